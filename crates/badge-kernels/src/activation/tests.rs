//! The error bounds of the documentation, on every instruction set.

use super::*;
use crate::isa::Isa;
use crate::reference;
use crate::simd::Operation;
use crate::training::reference::derivative;

/// Applies an activation to every element.
struct Apply<'a> {
    activation: Activation,
    x: &'a mut [f32],
    is_derivative: bool,
}

impl Operation for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.activation.visit(Loop {
            simd,
            x: self.x,
            is_derivative: self.is_derivative,
        });
    }
}

struct Loop<'a, S> {
    simd: S,
    x: &'a mut [f32],
    is_derivative: bool,
}

impl<S: Simd> Visitor for Loop<'_, S> {
    type Output = ();

    #[inline(always)]
    fn visit<F: Function>(self, function: F) {
        let s = self.simd;
        for x in self.x.chunks_mut(S::LANES) {
            let v = s.load_part(x, 0.0);
            let y = if self.is_derivative {
                function.derivative(s, v)
            } else {
                function.apply(s, v)
            };
            s.store_part(y, x);
        }
    }
}

fn apply(isa: Isa, activation: Activation, x: &[f32]) -> Vec<f32> {
    let mut y = x.to_vec();
    isa.run(Apply {
        activation,
        x: &mut y,
        is_derivative: false,
    });
    y
}

fn derivatives(isa: Isa, activation: Activation, x: &[f32]) -> Vec<f32> {
    let mut y = x.to_vec();
    isa.run(Apply {
        activation,
        x: &mut y,
        is_derivative: true,
    });
    y
}

/// The bound that the documentation of the variant states.
fn bound(activation: Activation) -> f64 {
    match activation {
        Activation::Relu | Activation::Identity => 0.0,
        Activation::LeakyRelu => 1e-9,
        _ => 2e-7,
    }
}

/// From -20 to 20 densely, then at growing distances, up to the largest and down to the smallest.
fn grid() -> Vec<f32> {
    let dense = (-40_000..=40_000).map(|i| i as f32 * 5.003e-4);
    let mut all: Vec<f32> = dense.collect();
    let mut far = f32::MAX;
    while far > 0.0 {
        all.extend([far, -far]);
        // Not 0.93: rounding would stop at the smallest number.
        far *= 0.49;
    }
    all.extend([0.0, -0.0, f32::MIN_POSITIVE, -f32::MIN_POSITIVE]);
    all
}

#[test]
fn errors_stay_below_their_documented_bounds() {
    let x = grid();
    for isa in Isa::available() {
        for activation in Activation::ALL {
            let mut worst = (0.0, 0.0);
            for (x, y) in x.iter().zip(apply(isa, activation, &x)) {
                let exact = reference::activation(activation, f64::from(*x));
                let error = (f64::from(y) - exact).abs() / f64::from(x.abs()).max(1.0);
                assert!(error.is_finite(), "{isa}, {activation:?}({x}) = {y}");
                if error > worst.0 {
                    worst = (error, *x);
                }
            }
            assert!(
                worst.0 <= bound(activation),
                "{isa}, {activation:?}({}): error {:e}",
                worst.1,
                worst.0
            );
        }
    }
}

#[test]
fn derivatives_stay_within_their_bound_and_have_the_same_bits_everywhere() {
    let mut x = grid();
    x.extend([f32::INFINITY, f32::NEG_INFINITY]);
    for activation in Activation::ALL {
        let expected = derivatives(Isa::Scalar, activation, &x);
        for isa in Isa::available() {
            let found = derivatives(isa, activation, &x);
            for ((x, y), expected) in x.iter().zip(found).zip(&expected) {
                assert_eq!(
                    y.to_bits(),
                    expected.to_bits(),
                    "{isa}, {activation:?}({x})"
                );
                if x.is_finite() {
                    let exact = derivative(activation, f64::from(*x));
                    let error = (f64::from(y) - exact).abs();
                    assert!(
                        error <= 5e-7,
                        "{isa}, {activation:?}'({x}) = {y}: {error:e}"
                    );
                }
                assert!(y.is_finite(), "{isa}, {activation:?}'({x}) = {y}");
            }
        }
    }
}

/// Every step is one that IEEE 754 rounds the same way everywhere, and no lane looks at another.
#[test]
fn every_instruction_set_gives_the_same_bits() {
    let x = grid();
    for activation in Activation::ALL {
        let expected = apply(Isa::Scalar, activation, &x);
        for isa in Isa::available() {
            let y = apply(isa, activation, &x);
            let pairs = x.iter().zip(y.iter().zip(&expected));
            for (x, (y, expected)) in pairs {
                assert_eq!(
                    y.to_bits(),
                    expected.to_bits(),
                    "{isa}, {activation:?}({x})"
                );
            }
        }
    }
}

#[test]
fn tanh_is_accurate_relative_to_small_results() {
    let x = grid();
    for isa in Isa::available() {
        for (x, y) in x.iter().zip(apply(isa, Activation::Tanh, &x)) {
            let exact = f64::from(*x).tanh();
            // Where the result itself is subnormal, it has fewer digits.
            let error = (f64::from(y) - exact).abs() - 1e-45;
            assert!(error <= 3e-7 * exact.abs(), "{isa}, tanh({x}) = {y}");
        }
    }
}

#[test]
fn powers_of_two_keep_their_bound() {
    struct Powers<'a>(&'a mut [f32]);
    impl Operation for Powers<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            for y in self.0.chunks_mut(S::LANES) {
                s.store_part(exp2_or_least(s, s.load_part(y, 0.0)), y);
            }
        }
    }
    let y: Vec<f32> = (-126_000..=127_000).map(|i| i as f32 / 1000.0).collect();
    for isa in Isa::available() {
        let mut powers = y.clone();
        isa.run(Powers(&mut powers));
        for (y, power) in y.iter().zip(powers) {
            let error = (f64::from(power) / f64::from(*y).exp2() - 1.0).abs();
            let bound = if y.fract() == 0.0 { 0.0 } else { 2e-7 };
            assert!(error <= bound, "{isa}, 2^{y}: {error:e}");
        }
        let mut special = [f32::NEG_INFINITY, -1e30, -127.0];
        isa.run(Powers(&mut special));
        assert_eq!(special, [f32::MIN_POSITIVE; 3]);
    }
}

#[test]
fn not_a_number_stays_so_and_infinities_give_limits() {
    for isa in Isa::available() {
        for activation in Activation::ALL {
            // Several lanes, so that vectors are full.
            assert!(
                apply(isa, activation, &[f32::NAN; 33])
                    .iter()
                    .all(|y| y.is_nan())
            );
            let (below, above) = match activation {
                Activation::Tanh => (-1.0, 1.0),
                Activation::Sigmoid => (0.0, 1.0),
                Activation::LeakyRelu | Activation::Identity => (f32::NEG_INFINITY, f32::INFINITY),
                _ => (0.0, f32::INFINITY),
            };
            let y = apply(isa, activation, &[f32::NEG_INFINITY, f32::INFINITY]);
            assert_eq!(y[1], above, "{isa}, {activation:?}");
            let near = y[0] == below || (y[0] - below).abs() <= 2e-7;
            assert!(near, "{isa}, {activation:?}: {}", y[0]);
        }
    }
}
