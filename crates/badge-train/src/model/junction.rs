//! Junctions: how strongly gradients flow back where an exit leaves the stack.

use crate::framework::{Result, Tensor};

/// What happens to gradients behind block m:
/// `dH_m = exit_and_onward · (d of exit m + onward · d of block m + 1)`.
///
/// Forwards a junction changes nothing. The gradient of every tap of exit m takes the factor
/// `exit_and_onward`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Junction {
    /// Factor of all that comes back to `H_m`; 0 stops it.
    pub exit_and_onward: f64,
    /// Factor of what comes back from the blocks behind.
    pub onward: f64,
}

impl Junction {
    /// Gradients as they are.
    pub const PLAIN: Self = Self {
        exit_and_onward: 1.0,
        onward: 1.0,
    };
    /// No gradient at all: `H_m` is a constant for exit m and for the blocks behind.
    pub const STOP: Self = Self {
        exit_and_onward: 0.0,
        onward: 1.0,
    };

    /// What exit m reads.
    pub(crate) fn to_exit(self, tap: &Tensor) -> Result<Tensor> {
        scale_gradient(tap, self.exit_and_onward)
    }

    /// What block m + 1 reads.
    pub(crate) fn to_next_block(self, hidden: &Tensor) -> Result<Tensor> {
        scale_gradient(hidden, self.exit_and_onward * self.onward)
    }
}

/// `x` forwards, the gradient times `factor` backwards.
fn scale_gradient(x: &Tensor, factor: f64) -> Result<Tensor> {
    if factor == 1.0 {
        return Ok(x.clone());
    }
    let constant = x.detach();
    if factor == 0.0 {
        return Ok(constant);
    }
    // (x - x) is exactly 0, so that the value is exactly x.
    let nothing = ((x - &constant)? * factor)?;
    constant + nothing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framework::{Device, Var};

    #[test]
    fn values_stay_and_gradients_scale() {
        let x = Var::randn(0.3_f32, 2.0, 50, &Device::Cpu).unwrap();
        let values = |t: &Tensor| t.to_vec1::<f32>().unwrap();
        for factor in [0.25, 1.0, 7.0] {
            let y = scale_gradient(&x, factor).unwrap();
            assert_eq!(values(&y), values(&x));
            let loss = (y.sqr().unwrap() * 0.5).unwrap().sum_all().unwrap();
            let gradient = loss.backward().unwrap().remove(&x).unwrap();
            for (gradient, x) in values(&gradient).iter().zip(values(&x)) {
                assert!((gradient - factor as f32 * x).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn a_stopped_gradient_does_not_arrive() {
        let x = Var::randn(0.0_f32, 1.0, 5, &Device::Cpu).unwrap();
        let y = Junction::STOP.to_exit(&x).unwrap();
        let sum = (y.sum_all().unwrap() + x.sum_all().unwrap()).unwrap();
        let gradient = sum.backward().unwrap().remove(&x).unwrap();
        assert_eq!(gradient.to_vec1::<f32>().unwrap(), [1.0; 5]);
    }
}
