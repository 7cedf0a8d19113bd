//! What the commands do beyond one model: experiments, and how their results are shown and kept.
//!
//! [`quickstart`] makes its own corpus; [`record`] keeps what a run was; [`table`], [`plot`] and
//! [`report`] show it.

pub mod evaluation;
pub mod fine_tune;
pub mod interval;
pub mod model_card;
pub mod plot;
pub mod quickstart;
pub mod record;
pub mod report;
pub mod table;
