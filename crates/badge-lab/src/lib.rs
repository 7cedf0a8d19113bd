//! What the commands do beyond one model: experiments, and how their results are shown and kept.
//!
//! [`fine_tune`] runs a training, [`inference`] answers with a model, [`evaluation`] holds it
//! against a split, [`agreement`] against another computation of it, [`sweep`] draws its curves,
//! [`calibration`] chooses an operating point and says what may be promised of it, by [`replay`]
//! over stored logits; [`quickstart`] does it all on a corpus of its own.
//! [`record`] and [`model_card`] keep what a run was; [`tables`] of one [`table`] form, [`plot`]
//! and [`report`] show it. [`mod@bench`] measures the engine and the machine under it.
//! [`traffic`] is when requests arrive; [`simulation`] tries the SLO controller on it, [`load_test`]
//! a server.

pub mod agreement;
pub mod bench;
pub mod calibration;
pub mod chart;
pub mod evaluation;
pub mod fine_tune;
pub mod frontier;
pub mod inference;
pub mod interval;
pub mod load_test;
pub mod model_card;
pub mod plot;
pub mod quantile;
pub mod quickstart;
pub mod raster;
pub mod record;
pub mod replay;
pub mod report;
pub mod reproduce;
pub mod simulation;
pub mod sweep;
pub mod table;
pub mod tables;
pub mod traffic;
