//! When requests arrive: recorded traces and synthetic patterns, as moments in seconds.
//!
//! [`Pattern`] describes a rate over time as text (`step:rate=200,peak=600,...`), [`trace`] reads
//! what others have recorded, and [`Arrivals`] are what comes of either. Replay against a server
//! ([`crate::load_test`]) and simulation ([`crate::simulation`]) both run on them.

mod arrivals;
mod pattern;
mod source;
pub mod trace;

pub use arrivals::{Arrivals, Segment};
pub use pattern::{Pattern, Shape};
pub use source::{Adjustment, Source, Traffic};
