//! The ideas of BADGE as pure functions over plain data.
//!
//! Reading order: a [`config`] describes a backbone; [`exit`] says where exits sit, [`bypass`]
//! and [`exit_head`] what feeds them; an exit answers with a [`distribution`]; two distributions have a
//! [`divergence`]; a [`policy`] watches the exits and decides when to stop; [`cost`] says what was
//! saved. [`calibration`] chooses among policies and says what may be promised of the choice;
//! [`controller`] moves among such choices as load asks.
//! [`checkpoint`] knows the name and shape of every weight.
//!
//! This crate knows nothing of tensor libraries, threads, clocks, files or the network: it reads
//! bytes that it is given.

pub mod activation;
pub mod bypass;
pub mod calibration;
pub mod checkpoint;
pub mod config;
pub mod controller;
pub mod cost;
pub mod distribution;
pub mod divergence;
pub mod error;
pub mod exit;
pub mod exit_head;
pub mod policy;

pub use error::{Error, Result};
