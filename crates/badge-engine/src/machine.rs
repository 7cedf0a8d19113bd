//! Who computes, and the clock beside it.

use badge_kernels::threads::Pool;

use crate::profile::{Operation, Profile};

/// The threads of an engine and its profile: every kernel is called through here.
#[derive(Debug)]
pub(crate) struct Machine {
    pool: Pool,
    pub(crate) profile: Profile,
}

impl Machine {
    pub(crate) fn new(pool: Pool, profile: Profile) -> Self {
        Self { pool, profile }
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Runs kernels on the threads; their time counts to `operation`.
    pub(crate) fn run<R>(&mut self, operation: Operation, work: impl FnOnce(&Pool) -> R) -> R {
        let pool = &self.pool;
        self.profile.time(operation, || work(pool))
    }
}
