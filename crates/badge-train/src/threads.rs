//! The threads that kernels compute on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use badge_kernels::isa::Isa;
use badge_kernels::threads::Pool;

use crate::error::{Error, Result};

/// The pool with as many threads as the framework has here, so that one setting governs both.
///
/// There is one pool per number of threads, kept for the life of the process: what computes at the
/// same time takes turns on it instead of fighting over the cores. A pool's threads sleep soon after
/// its last job, and the framework's soon after theirs, so that neither disturbs the other.
///
/// # Errors
/// When `BADGE_ISA` names an instruction set that does not exist or that this machine lacks.
pub(crate) fn pool() -> Result<Arc<Pool>> {
    static POOLS: Mutex<BTreeMap<usize, Arc<Pool>>> = Mutex::new(BTreeMap::new());
    let isa = isa()?;
    let threads = rayon::current_num_threads();
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let pool = pools
        .entry(threads)
        .or_insert_with(|| Arc::new(Pool::new(isa, threads)));
    Ok(Arc::clone(pool))
}

/// The instruction set of the kernels.
///
/// # Errors
/// When `BADGE_ISA` names one that does not exist or that this machine lacks.
pub(crate) fn isa() -> Result<Isa> {
    Isa::choose().map_err(|problem| Error::Setting {
        setting: badge_kernels::isa::ISA_VARIABLE,
        problem: problem.to_string(),
    })
}
