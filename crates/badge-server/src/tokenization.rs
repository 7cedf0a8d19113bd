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
            // What it panicked about may hold the text, which is nobody else's business.
            .panic_handler(|_| tracing::error!("a tokeniser panicked; its text is refused"))
            .build()
            .map_err(|error| Error::System {
                what: "threads that tokenise",
                source: std::io::Error::other(error),
            })?;
        Ok(Self(Arc::new(pool)))
    }

    /// Runs a task on one of the threads, when one is free. Should it panic, it is over, and what
    /// it holds is dropped.
    pub(crate) fn spawn(&self, task: impl FnOnce() + Send + 'static) {
        self.0.spawn(task);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_task_that_panics_ends_alone() {
        let pool = TokenizationPool::start(1).unwrap();
        let (held, dropped) = channel::<()>();
        pool.spawn(move || {
            let _held = held;
            panic!("a text that no tokeniser understands");
        });
        let wait = Duration::from_secs(20);
        // Its caller hears of it.
        assert_eq!(
            dropped.recv_timeout(wait),
            Err(RecvTimeoutError::Disconnected)
        );
        let (reply, answer) = channel();
        pool.spawn(move || reply.send(7).unwrap());
        assert_eq!(answer.recv_timeout(wait), Ok(7));
    }
}
