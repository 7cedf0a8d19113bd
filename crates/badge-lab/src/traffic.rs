//! When requests arrive: recorded traces and synthetic patterns, as moments in seconds.
//!
//! [`Pattern`] describes a rate over time as text (`step:rate=200,peak=600,...`), [`trace`] reads
//! what others have recorded, and [`Arrivals`] are what comes of either.

mod arrivals;
mod pattern;
mod source;
pub mod trace;

pub use arrivals::{Arrivals, Segment};
pub use pattern::{Pattern, Shape};
pub use source::{Adjustment, Source, Traffic};
