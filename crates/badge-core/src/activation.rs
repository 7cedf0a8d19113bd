//! Element-wise non-linearities under the names that Hugging Face configurations use.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An element-wise activation function.
///
/// The names accepted by [`FromStr`] are those of `hidden_act` in Hugging Face configurations, and
/// the paper's own for the bypass (`GELU, ReLU, LeakyReLU, SWISH, Tanh, Identity`; paper, App. C).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Activation {
    /// `x Φ(x)` with the exact normal distribution function (erf).
    Gelu,
    /// `½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))`, ALBERT's `gelu_new`.
    GeluTanh,
    /// `x σ(1.702 x)`, OpenAI's quick GELU.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// `x` for positive `x`, else `0.01 x`.
    LeakyRelu,
    /// `x σ(x)`, also called SiLU.
    Swish,
    /// `x tanh(ln(1 + eˣ))`.
    Mish,
    /// Hyperbolic tangent.
    Tanh,
    /// `σ(x) = 1 / (1 + e⁻ˣ)`.
    Sigmoid,
    /// `x` itself.
    Identity,
}

/// Each canonical name with the other spellings met in the wild.
const SPELLINGS: &[(Activation, &[&str])] = &[
    (Activation::Gelu, &["gelu", "gelu_python"]),
    (
        Activation::GeluTanh,
        &["gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_tanh"],
    ),
    (Activation::QuickGelu, &["quick_gelu"]),
    (Activation::Relu, &["relu"]),
    (Activation::LeakyRelu, &["leaky_relu", "leakyrelu"]),
    (Activation::Swish, &["swish", "silu"]),
    (Activation::Mish, &["mish"]),
    (Activation::Tanh, &["tanh"]),
    (Activation::Sigmoid, &["sigmoid"]),
    (Activation::Identity, &["identity", "linear"]),
];

impl Activation {
    /// The canonical name, which Hugging Face's `ACT2FN` knows too (except `identity`).
    pub fn name(self) -> &'static str {
        let (_, names) = SPELLINGS
            .iter()
            .find(|(a, _)| *a == self)
            .expect("every activation is in the table");
        names[0]
    }

    /// Every activation, in the order of the table.
    pub fn all() -> impl Iterator<Item = Activation> {
        SPELLINGS.iter().map(|(a, _)| *a)
    }

    /// The function's value: the reference that faster forms are tested against.
    pub fn value(self, x: f64) -> f64 {
        match self {
            Self::Gelu => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
            Self::GeluTanh => 0.5 * x * (1.0 + gelu_tanh_argument(x).tanh()),
            Self::QuickGelu => x * sigmoid(1.702 * x),
            Self::Relu => x.max(0.0),
            Self::LeakyRelu => x.max(0.01 * x),
            Self::Swish => x * sigmoid(x),
            Self::Mish => x * softplus(x).tanh(),
            Self::Tanh => x.tanh(),
            Self::Sigmoid => sigmoid(x),
            Self::Identity => x,
        }
    }

    /// The derivative at `x`; at the kink of ReLU and LeakyReLU the left one, as PyTorch has it.
    pub fn derivative(self, x: f64) -> f64 {
        match self {
            Self::Gelu => {
                let cdf = 0.5 * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2));
                let pdf = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
                cdf + x * pdf
            }
            Self::GeluTanh => {
                let tanh = gelu_tanh_argument(x).tanh();
                let slope = GELU_TANH_SCALE * (1.0 + 3.0 * GELU_TANH_CUBIC * x * x);
                0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * slope
            }
            Self::QuickGelu => {
                let s = sigmoid(1.702 * x);
                s + 1.702 * x * s * (1.0 - s)
            }
            Self::Relu => f64::from(x > 0.0),
            Self::LeakyRelu => {
                if x > 0.0 {
                    1.0
                } else {
                    0.01
                }
            }
            Self::Swish => {
                let s = sigmoid(x);
                s + x * s * (1.0 - s)
            }
            Self::Mish => {
                let t = softplus(x).tanh();
                t + x * (1.0 - t * t) * sigmoid(x)
            }
            Self::Tanh => 1.0 - x.tanh() * x.tanh(),
            Self::Sigmoid => sigmoid(x) * (1.0 - sigmoid(x)),
            Self::Identity => 1.0,
        }
    }
}

/// `√(2/π)`.
const GELU_TANH_SCALE: f64 = 0.797_884_560_802_865_4;
/// The cubic coefficient of the tanh form (Hendrycks and Gimpel, 2016).
const GELU_TANH_CUBIC: f64 = 0.044_715;

fn gelu_tanh_argument(x: f64) -> f64 {
    GELU_TANH_SCALE * (x + GELU_TANH_CUBIC * x * x * x)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `ln(1 + eˣ)` without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

impl FromStr for Activation {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let lower = name.to_ascii_lowercase();
        SPELLINGS
            .iter()
            .find(|(_, names)| names.contains(&lower.as_str()))
            .map(|(activation, _)| *activation)
            .ok_or_else(|| {
                let known: Vec<_> = SPELLINGS
                    .iter()
                    .flat_map(|(_, names)| *names)
                    .copied()
                    .collect();
                format!(
                    "unknown activation `{name}`; known are {}",
                    known.join(", ")
                )
            })
    }
}

impl TryFrom<String> for Activation {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl From<Activation> for String {
    fn from(activation: Activation) -> Self {
        activation.name().to_owned()
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivative_is_the_slope_of_the_value() {
        let h = 1e-6;
        for activation in Activation::all() {
            for x in [-4.0, -1.3, -0.2, 0.3, 0.9, 2.7] {
                let slope = (activation.value(x + h) - activation.value(x - h)) / (2.0 * h);
                let derivative = activation.derivative(x);
                assert!((slope - derivative).abs() < 1e-8, "{activation} at {x}");
            }
        }
    }

    #[test]
    fn every_spelling_reads_as_its_activation_and_round_trips() {
        for (activation, names) in SPELLINGS {
            for name in *names {
                assert_eq!(
                    name.to_uppercase().parse::<Activation>().as_ref(),
                    Ok(activation)
                );
            }
            assert_eq!(
                activation.name().parse::<Activation>().as_ref(),
                Ok(activation)
            );
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let message = "gleu".parse::<Activation>().unwrap_err();
        assert!(
            message.contains("`gleu`") && message.contains("gelu_new"),
            "{message}"
        );
    }
}
