//! Threads that make ids of texts, so that neither connections nor engines wait for it.

use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

/// Threads for tokenisers of all models.
#[derive(Debug, Clone)]
pub(crate) struct TokenizationPool(Arc<ThreadPool>);

impl TokenizationPool {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system refuses them.
    pub(crate) fn start(workers: usize) -> Result<Self> {
        let pool = ThreadPoolBuilder::new()
            .num_threads(workers)
            .thread_name(|index| format!("tokenizer-{index}"))
            .build()
            .map_err(|error| Error::System {
                what: "threads that tokenise",
                source: std::io::Error::other(error),
            })?;
        Ok(Self(Arc::new(pool)))
    }

    /// Runs a task on one of the threads, when one is free.
    pub(crate) fn spawn(&self, task: impl FnOnce() + Send + 'static) {
        self.0.spawn(task);
    }
}
