//! Early-exit models behind HTTP, with latency that can be chosen while they serve.
//!
//! A request's way: [`http`] reads it and turns it into texts; `tokenization` makes ids of them
//! on threads of its own; the `queue` holds them, the most urgent first; the `runner`, one
//! thread per model, lets them join the engine between two blocks and answers them as they leave.
//! What they leave by is the `operating_points`' business: the policy that a request asks for,
//! or else the one that the model has at this moment, which the `governor` may change with the
//! load.
//!
//! [`Server`] holds all of it; [`http::app`] is the router that tests call without a socket.

mod account;
mod calibrated;
mod catalog;
mod error;
mod governor;
pub mod http;
mod incoming;
mod metrics;
mod model;
mod operating_points;
mod process;
mod queue;
mod refusal;
mod request;
mod runner;
mod scoring;
mod serve;
mod server;
mod settings;
mod signals;
mod steering;
mod telemetry;
mod tokenization;
mod traces;

pub use error::{Error, Result};
pub use model::ModelSource;
pub use serve::{Listeners, run, serve};
pub use server::Server;
pub use settings::{
    Limits, ModelSettings, PairForm, Secret, Settings, default_tokenization_workers,
};
pub use telemetry::{LogForm, start_logging};
pub use traces::TraceSettings;
