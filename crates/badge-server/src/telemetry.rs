//! Structured logs on standard error. They hold routes, times and numbers; never texts or keys.

use std::io;

use tracing_subscriber::EnvFilter;

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogForm {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// Starts logging, once per process; later calls change nothing. The environment variable
/// `LOG_LEVEL` filters, as `RUST_LOG` does elsewhere.
pub fn start_logging(form: LogForm, default_level: &str) {
    let filter = std::env::var("LOG_LEVEL").unwrap_or_else(|_| default_level.to_owned());
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(io::stderr);
    // A second start in one process finds the first one's logs running, which is as good.
    let _ = match form {
        LogForm::Text => builder.try_init(),
        LogForm::Json => builder.json().flatten_event(true).try_init(),
    };
}
