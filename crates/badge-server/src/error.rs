//! What keeps a server from starting or a model from being loaded.

use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

/// Result with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What keeps a server from starting or a model from being loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Weights that cannot be packed.
    #[error("{}: {source}", directory.display())]
    Engine {
        /// The model directory.
        directory: PathBuf,
        /// What the engine says.
        source: badge_engine::Error,
    },
    /// A tokeniser or another file that cannot be read.
    #[error(transparent)]
    Tasks(#[from] badge_tasks::Error),
    /// A file with the wrong contents.
    #[error("{}: {source}", directory.display())]
    Core {
        /// The model directory.
        directory: PathBuf,
        /// What is wrong.
        source: badge_core::Error,
    },
    /// A calibration of other weights.
    #[error(
        "{}: exit_calibration.json was made for other weights or another config.json; run badge \
         calibrate again, or remove it",
        directory.display()
    )]
    OtherWeights {
        /// The model directory.
        directory: PathBuf,
    },
    /// A model that was let go or exchanged while it was being loaded anew.
    #[error("model `{model}` was let go or exchanged while it was being loaded anew")]
    Overtaken {
        /// Its name.
        model: String,
    },
    /// A policy that a model cannot run.
    #[error("model `{model}`: {source}")]
    Policy {
        /// The model's name.
        model: String,
        /// What is wrong.
        source: badge_core::Error,
    },
    /// A setting of which nothing can be made.
    #[error("{setting}: {problem}")]
    Setting {
        /// Its flag.
        setting: &'static str,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another --hostname or --port")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// A name that is no address.
    #[error("--hostname: `{host}` is no address of this machine: {source}")]
    Host {
        /// The name.
        host: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A thread, signal or runtime that the system refuses.
    #[error("the system refuses {what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
}
