//! What the commands do beyond one model: experiments, and how their results are shown and kept.
//!
//! [`fine_tune`] runs a training, [`evaluation`] holds a model against a split, [`calibration`]
//! chooses an operating point; [`quickstart`] does all three on a corpus of its own. [`record`] and
//! [`model_card`] keep what a run was; [`tables`] of one [`table`] form, [`plot`] and [`report`] show it.
//! [`bench`] measures the engine and the machine under it.

pub mod bench;
pub mod calibration;
pub mod evaluation;
pub mod fine_tune;
pub mod interval;
pub mod model_card;
pub mod plot;
pub mod quickstart;
pub mod record;
pub mod report;
pub mod table;
pub mod tables;
