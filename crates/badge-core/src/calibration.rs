//! Choosing an operating point on held-out rows, and what may be promised of it on others.
//!
//! A policy answers a row at some exit, and the answer has a loss between 0 and some maximum
//! ([`LossRange`]). [`risk_control`] decides which policies keep the expected loss on new rows
//! below a bound, with [`tail`] behind it; [`temperature`] fits the sharpness of an exit's
//! probabilities. [`ExitCalibration`] is what a model directory keeps of it all.

mod description;
pub mod risk_control;
pub mod tail;
pub mod temperature;

pub use description::{
    CALIBRATION_FILE, Certificate, ExitCalibration, Goal, LossKind, Method, OperatingPoint,
};
pub use tail::{LossRange, LossSum};
