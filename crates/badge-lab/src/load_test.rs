//! Open-loop load: requests go out when the trace says so, whatever has become of earlier ones.
//!
//! Latency counts from the moment at which a request was *to be* sent. A generator that waits for
//! answers before it sends asks less of a server just when that is slow, and then reports what the
//! few it asked had to wait (coordinated omission); here a request that could not be sent in time
//! has been waiting since.
//!
//! [`run`] talks to any server with text-embeddings-inference's `/predict`. [`Summary`] says what
//! came of it, [`Timeline`] when.

mod client;
mod presentation;
mod question;
mod schedule;
mod summary;
mod timeline;

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

pub use client::ServerFacts;
pub use presentation::LoadReport;
pub use question::{Question, questions};
pub use schedule::run;
pub use summary::{Burst, Quantiles, Summary};
pub use timeline::{Timeline, Window};

/// The most connections: each is a thread.
const CONNECTIONS_MAX: usize = 4096;

/// Where requests go and what is expected of the answers.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server, such as `http://127.0.0.1:8080`.
    pub url: String,
    /// The promised time.
    pub slo: Duration,
    /// What every request says it can wait for; none to say nothing.
    pub deadline: Option<Duration>,
    /// Requests that may be on their way at once.
    pub connections: usize,
    /// When a request without an answer counts as lost.
    pub timeout: Duration,
    /// The key that the server asks for, if it does.
    pub api_key: Option<String>,
}

/// What became of one request. Times are in seconds from the start of the trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Event {
    /// When it was to be sent.
    pub scheduled: f64,
    /// When it was.
    pub sent: f64,
    /// When its answer was complete, or when it was given up.
    pub done: f64,
    /// What the answer was.
    pub fate: Fate,
    /// The block after which the text left, where the server says so.
    pub exit: Option<f64>,
    /// The relative depth of the server's policy when the answer came, 1 for all blocks, where it
    /// says so (`x-policy-level`).
    pub level: Option<f64>,
    /// Whether the label was the right one, where that is known.
    pub correct: Option<bool>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// With an answer.
    Served,
    /// The server would not take it (429).
    Refused,
    /// Its deadline passed in the server (504).
    Expired,
    /// With another status.
    Failed(u16),
    /// Without any: no connection, a connection that broke, or no answer in time.
    Lost,
}

/// What a run gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// One event a request, by the moment it was scheduled for.
    pub events: Vec<Event>,
    /// What the server says of itself.
    pub server: ServerFacts,
    /// CPU seconds of the server during the run, where it says so.
    pub cpu_seconds: Option<f64>,
}

impl Event {
    /// Seconds from when it was to be sent until the answer was complete.
    pub fn latency(&self) -> f64 {
        self.done - self.scheduled
    }

    /// Seconds by which it was sent late.
    pub fn lag(&self) -> f64 {
        self.sent - self.scheduled
    }
}

impl Options {
    /// # Errors
    /// Names the flag that holds something impossible.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.url.starts_with("http://") || self.url.starts_with("https://"),
            "--url: `{}` begins with neither http:// nor https://",
            self.url
        );
        ensure!(
            (1..=CONNECTIONS_MAX).contains(&self.connections),
            "--connections: {} does not lie in 1..={CONNECTIONS_MAX}",
            self.connections
        );
        Ok(())
    }
}
