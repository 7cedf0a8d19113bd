//! Who computes: a pool of threads for fork-join over numbered tasks.
//!
//! A forward pass forks and joins several hundred times, often for a few microseconds of work, so
//! the pool is built for that one thing. There is no queue: one job at a time, its tasks claimed by
//! counting down one atomic number. The caller works too and never waits for a thread that has
//! claimed nothing, so a thread that sleeps or is preempted delays no job.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::isa::Isa;

/// How long a thread looks for the next job before it sleeps. Waking a sleeper takes 5 to 50
/// microseconds, while the gap between two operations of a forward pass is a few: within a pass no
/// thread falls asleep, and between requests none burns power for longer than a few wake-ups cost.
const SPIN: Duration = Duration::from_micros(if cfg!(miri) { 1 } else { 200 });

/// Looks at the job between two looks at the clock: 1 to 10 microseconds, by processor.
const LOOKS_PER_CLOCK: u32 = if cfg!(miri) { 2 } else { 128 };

/// Looks at what other threads are about to do before the core is offered to them at each look.
/// With more threads than cores, one of them may wait for that very core.
const LOOKS_BEFORE_YIELD: u32 = if cfg!(miri) { 2 } else { 4096 };

/// A task of a job, and who runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Which of the job's tasks: `0..tasks`.
    pub index: usize,
    /// Which of the pool's threads: `0..threads`, the caller being 0. No two tasks of one call that
    /// run at the same time share it, so it may choose a working memory of that call's.
    pub worker: usize,
}

/// Threads that wait for jobs, and the instruction set they use.
///
/// Dropping the pool ends its threads.
pub struct Pool {
    isa: Isa,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held while a job runs: there is room for one.
    turn: Mutex<()>,
}

/// The number of threads this process may usefully run: the cores, less those that its affinity
/// mask or its cgroup's quota withholds. One where the system does not say.
pub fn available_threads() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl Pool {
    /// A pool of the caller and `threads - 1` further threads.
    ///
    /// # Panics
    /// When `threads` is 0, or the system refuses to start a thread.
    pub fn new(isa: Isa, threads: usize) -> Self {
        assert!(threads > 0, "a pool needs a thread, not {threads}");
        let mut pool = Self {
            isa,
            shared: Arc::new(Shared::new()),
            workers: Vec::with_capacity(threads - 1),
            turn: Mutex::new(()),
        };
        for worker in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let started = thread::Builder::new()
                .name(format!("badge-{worker}"))
                .spawn(move || shared.serve(worker));
            match started {
                Ok(handle) => pool.workers.push(handle),
                Err(error) => panic!("cannot start thread {worker} of {threads}: {error}"),
            }
        }
        pool
    }

    /// The instruction set that kernels use on this pool.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads that run tasks, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task` once with each index of `0..tasks`, on all threads, and returns when every call
    /// has. What the tasks wrote is visible to the caller then. Indices are claimed in rising order.
    ///
    /// With one thread or one task, the caller runs everything by itself. Other calls made at once
    /// take turns. Nothing is allocated.
    ///
    /// # Panics
    /// With what the first task to panic panicked with, once all others are done (with one thread,
    /// at once). In a task, of any pool: tasks
    /// cannot fork again.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(Task) + Sync)) {
        let inside = Inside::enter();
        if tasks <= 1 || self.workers.is_empty() {
            for index in 0..tasks {
                task(Task { index, worker: 0 });
            }
            return;
        }
        let turn = lock(&self.turn);
        self.shared.fork(tasks, task);
        let mut panics = std::mem::take(&mut *lock(&self.shared.panics));
        drop((turn, inside));
        if !panics.is_empty() {
            let first = panics.swap_remove(0);
            drop(panics);
            resume_unwind(first);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop();
        for worker in self.workers.drain(..) {
            // Panics of tasks are caught; a thread has none of its own.
            let _ = worker.join();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("isa", &self.isa)
            .field("threads", &self.threads())
            .finish_non_exhaustive()
    }
}

/// A value on cache lines of its own; processors fetch these in pairs.
#[repr(align(128))]
struct Apart<T>(T);

/// The job, as its caller lends it.
#[derive(Clone, Copy)]
struct Job {
    /// Valid while a claimed task is not finished.
    task: *const (dyn Fn(Task) + Sync),
    tasks: usize,
}

/// What the threads of a pool share.
///
/// The order of things that makes it sound: a caller writes `job` while no task is claimed or
/// running, and then sets `unclaimed`. A thread reads `job` only after it has claimed a task by
/// counting `unclaimed` down from a positive number, and counts `finished` up once the task has
/// returned. The caller leaves [`Pool::run`], and with it the borrow of the closure, when its own
/// tasks and the finished ones are all.
/// A thread that comes late finds no task, or one of the next job, which it then rightly runs.
struct Shared {
    board: Apart<Board>,
    /// Tasks of the job that have returned, but for the caller's.
    finished: Apart<AtomicUsize>,
    /// Threads that lay down and were not woken, or more: one that wakes by itself stays counted.
    /// Changed under `bed` only.
    sleepers: Apart<AtomicUsize>,
    bed: Mutex<()>,
    bell: Condvar,
    /// What tasks panicked with. The caller drops them, for a drop may panic in turn.
    panics: Mutex<Vec<Box<dyn Any + Send>>>,
}

/// What waiting threads look at; together on a cache line, which thus moves once for each job.
struct Board {
    /// Tasks that nobody has claimed; negative where several threads counted down in vain.
    unclaimed: AtomicIsize,
    job: UnsafeCell<Job>,
    stopping: AtomicBool,
}

// SAFETY: the job alone is not `Sync`; it is written and read in the order that `Shared` states. The
// closure it points to is `Sync`.
unsafe impl Sync for Board {}
// SAFETY: the job alone is not `Send`; its pointer is followed only while the lender waits, on
// whichever thread, and the closure it points to is `Sync`.
unsafe impl Send for Board {}

impl Shared {
    fn new() -> Self {
        Self {
            board: Apart(Board {
                unclaimed: AtomicIsize::new(0),
                job: UnsafeCell::new(Job {
                    task: &|_| {},
                    tasks: 0,
                }),
                stopping: AtomicBool::new(false),
            }),
            finished: Apart(AtomicUsize::new(0)),
            sleepers: Apart(AtomicUsize::new(0)),
            bed: Mutex::new(()),
            bell: Condvar::new(),
            panics: Mutex::new(Vec::new()),
        }
    }

    /// Runs a job of two tasks or more; the caller holds the turn.
    fn fork(&self, tasks: usize, task: &(dyn Fn(Task) + Sync)) {
        self.publish(tasks, task);
        // The first task is the caller's: it starts while the others hear of the job.
        self.perform(task, 0, 0);
        let mut own = 1;
        while let Some(unclaimed) = self.claim() {
            self.perform(task, tasks - unclaimed, 0);
            own += 1;
        }
        // What the tasks of others wrote is acquired here.
        wait_until(|| self.finished.0.load(Ordering::Acquire) == tasks - own);
    }

    /// Offers all tasks but the first, and wakes sleepers for them.
    fn publish(&self, tasks: usize, task: &(dyn Fn(Task) + Sync)) {
        let unclaimed = isize::try_from(tasks - 1).expect("tasks can be counted");
        // SAFETY: only the lifetime changes. The pointer is followed by threads with a claimed task
        // alone, and `fork` returns once it has seen them all finish: until then `task` lives.
        let task: &'static (dyn Fn(Task) + Sync) = unsafe { std::mem::transmute(task) };
        // SAFETY: the caller holds the turn and has joined every former task, so no thread
        // has a claimed task, which alone entitles to read the job.
        unsafe { *self.board.0.job.get() = Job { task, tasks } };
        self.finished.0.store(0, Ordering::Relaxed);
        // Releases the job. This store, the load below and the two accesses in `sleep` have one
        // total order, in which either this thread sees the sleeper or the sleeper sees the job.
        self.board.0.unclaimed.store(unclaimed, Ordering::SeqCst);
        if self.sleepers.0.load(Ordering::SeqCst) > 0 {
            self.wake(tasks - 1);
        }
    }

    /// Wakes `wanted` sleepers, or all where there are fewer.
    fn wake(&self, wanted: usize) {
        // Whoever counts itself as a sleeper holds this lock until it lies down.
        let bed = lock(&self.bed);
        let sleepers = self.sleepers.0.load(Ordering::Relaxed);
        let left = sleepers.saturating_sub(wanted);
        self.sleepers.0.store(left, Ordering::Relaxed);
        drop(bed);
        if left == 0 {
            self.bell.notify_all();
        } else {
            (0..wanted).for_each(|_| self.bell.notify_one());
        }
    }

    /// Claims a task where one is left: the last but `n - 1`, where `n` is returned.
    fn claim(&self) -> Option<usize> {
        let unclaimed = &self.board.0.unclaimed;
        // Looking first keeps the number from falling further and further.
        if unclaimed.load(Ordering::Relaxed) <= 0 {
            return None;
        }
        let left = unclaimed.fetch_sub(1, Ordering::Acquire);
        (left > 0).then_some(left.unsigned_abs())
    }

    /// Calls a claimed task and keeps its panic, if any.
    fn perform(&self, task: &(dyn Fn(Task) + Sync), index: usize, worker: usize) {
        let outcome = catch_unwind(AssertUnwindSafe(|| task(Task { index, worker })));
        if let Err(payload) = outcome {
            lock(&self.panics).push(payload);
        }
    }

    /// The life of one of the pool's threads.
    fn serve(&self, worker: usize) {
        // Lives as long as the thread: all it ever runs is tasks.
        let _inside = Inside::enter();
        while !self.board.0.stopping.load(Ordering::Relaxed) {
            self.work(worker);
            if !self.spin() {
                self.sleep();
            }
        }
    }

    /// Runs tasks until none is unclaimed, on a thread that is not the caller's.
    fn work(&self, worker: usize) {
        while let Some(unclaimed) = self.claim() {
            // SAFETY: a task is claimed, so the job stays as it is until that task is finished; the
            // acquiring count-down has seen the job's release.
            let job = unsafe { *self.board.0.job.get() };
            // SAFETY: the lender stays in `fork` until this task is finished.
            let task = unsafe { &*job.task };
            self.perform(task, job.tasks - unclaimed, worker);
            // Releases what the task wrote; the last use of what the lender lent is above.
            self.finished.0.fetch_add(1, Ordering::Release);
        }
    }

    /// Whether something came up within [`SPIN`].
    fn spin(&self) -> bool {
        let start = Instant::now();
        loop {
            for _ in 0..LOOKS_PER_CLOCK {
                if self.has_news(Ordering::Relaxed) {
                    return true;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() >= SPIN {
                return false;
            }
        }
    }

    /// Sleeps until woken. By then others may have finished the job; still the thread stays awake
    /// for a while, since where there was one job, the next is likely to follow.
    fn sleep(&self) {
        let bed = lock(&self.bed);
        self.sleepers.0.fetch_add(1, Ordering::SeqCst);
        if self.has_news(Ordering::SeqCst) {
            self.sleepers.0.fetch_sub(1, Ordering::Relaxed);
        } else {
            drop(self.bell.wait(bed));
        }
    }

    /// Whether there is a task to claim, or nothing to wait for any more.
    fn has_news(&self, ordering: Ordering) -> bool {
        let board = &self.board.0;
        board.unclaimed.load(ordering) > 0 || board.stopping.load(ordering)
    }

    /// Tells all threads to end.
    fn stop(&self) {
        let _bed = lock(&self.bed);
        self.board.0.stopping.store(true, Ordering::SeqCst);
        self.bell.notify_all();
    }
}

/// Waits for other threads to make `ready` true, which takes them a moment.
pub(crate) fn wait_until(ready: impl Fn() -> bool) {
    let mut looks = 0;
    while !ready() {
        if looks < LOOKS_BEFORE_YIELD {
            looks += 1;
            std::hint::spin_loop();
        } else {
            thread::yield_now();
        }
    }
}

/// Locks; what these locks guard is whole at all times, so a panic elsewhere is no reason not to.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The mark of a thread that is running a job.
struct Inside;

thread_local! {
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
}

impl Inside {
    /// Refuses threads that have the mark: they would wait for themselves.
    fn enter() -> Self {
        assert!(!IS_INSIDE.get(), "a task of a pool cannot fork again");
        IS_INSIDE.set(true);
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        IS_INSIDE.set(false);
    }
}

#[cfg(test)]
mod tests;
