//! Threads that make ids of texts, so that neither connections nor engines wait for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

/// Up to so many bytes a lone text is tokenised where its request is read: to wake another thread
/// takes as long.
const AT_ONCE_BYTES: usize = 512;

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
            .panic_handler(|_| report_panic())
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

    /// The same of a task that tokenises so many bytes: at once and here where they are few.
    pub(crate) fn run(&self, bytes: usize, task: impl FnOnce() + Send + 'static) {
        if bytes > AT_ONCE_BYTES {
            self.spawn(task);
        } else if catch_unwind(AssertUnwindSafe(task)).is_err() {
            report_panic();
        }
    }
}

/// What it panicked about may hold the text, which is nobody else's business.
fn report_panic() {
    tracing::error!("a tokeniser panicked; its text is refused");
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_task_that_panics_ends_alone() {
        let pool = TokenizationPool::start(1).unwrap();
        for bytes in [AT_ONCE_BYTES, AT_ONCE_BYTES + 1] {
            let (held, dropped) = channel::<()>();
            pool.run(bytes, move || {
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
            pool.run(bytes, move || reply.send(7).unwrap());
            assert_eq!(answer.recv_timeout(wait), Ok(7));
        }
    }

    #[test]
    fn short_texts_stay_on_their_thread() {
        let pool = TokenizationPool::start(1).unwrap();
        let thread_of = |bytes| {
            let (reply, answer) = channel();
            pool.run(bytes, move || {
                reply.send(std::thread::current().id()).unwrap();
            });
            answer.recv_timeout(Duration::from_secs(20)).unwrap()
        };
        let here = std::thread::current().id();
        assert_eq!(thread_of(AT_ONCE_BYTES), here);
        assert_ne!(thread_of(AT_ONCE_BYTES + 1), here);
    }
}
