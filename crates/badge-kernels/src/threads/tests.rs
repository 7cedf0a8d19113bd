use std::sync::atomic::AtomicU32;

use super::*;

const ROUNDS: usize = if cfg!(miri) { 10 } else { 2_000 };

fn pool(threads: usize) -> Pool {
    Pool::new(Isa::Scalar, threads)
}

/// How often each of `tasks` ran in one job.
fn counts(pool: &Pool, tasks: usize) -> Vec<u32> {
    let counts: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
    pool.run(tasks, &|task| {
        assert!(task.worker < pool.threads(), "{task:?}");
        counts[task.index].fetch_add(1, Ordering::Relaxed);
    });
    counts.into_iter().map(AtomicU32::into_inner).collect()
}

/// Sleeps until all but the caller do.
fn wait_for_sleep(pool: &Pool) {
    while pool.shared.sleepers.0.load(Ordering::SeqCst) < pool.threads() - 1 {
        thread::sleep(Duration::from_micros(50));
    }
}

#[test]
fn every_index_runs_exactly_once() {
    for threads in [1, 2, 3, 5] {
        let pool = pool(threads);
        for tasks in [0, 1, 2, 3, 4, 7, 61] {
            assert_eq!(counts(&pool, tasks), vec![1; tasks], "{threads} threads");
        }
    }
}

#[test]
fn short_jobs_in_a_row_never_mix() {
    let pool = pool(3);
    for round in 0..ROUNDS {
        let tasks = round % 5;
        assert_eq!(counts(&pool, tasks), vec![1; tasks], "round {round}");
    }
}

#[test]
fn what_tasks_wrote_is_visible_after_the_run() {
    /// Plain memory, so that a missing order is a data race for Miri to see.
    struct Slots(Vec<UnsafeCell<usize>>);
    // SAFETY: each task writes its own slot.
    unsafe impl Sync for Slots {}
    impl Slots {
        fn add(&self, index: usize) {
            // SAFETY: no other task of the job has this index.
            unsafe { *self.0[index].get() += index };
        }
    }
    let pool = pool(4);
    let slots = Slots((0..9).map(|_| UnsafeCell::new(0)).collect());
    for _ in 0..ROUNDS {
        pool.run(slots.0.len(), &|task| slots.add(task.index));
    }
    for (index, slot) in slots.0.into_iter().enumerate() {
        assert_eq!(slot.into_inner(), ROUNDS * index);
    }
}

#[test]
fn no_two_tasks_share_a_worker_at_the_same_time() {
    let pool = pool(3);
    let busy: Vec<AtomicBool> = (0..3).map(|_| AtomicBool::new(false)).collect();
    for _ in 0..ROUNDS {
        pool.run(7, &|task| {
            assert!(!busy[task.worker].swap(true, Ordering::Relaxed), "{task:?}");
            busy[task.worker].store(false, Ordering::Relaxed);
        });
    }
}

#[test]
fn all_threads_take_part() {
    let pool = pool(3);
    let arrived = AtomicUsize::new(0);
    // Each task waits for the others, so no thread can run two.
    pool.run(3, &|_| {
        arrived.fetch_add(1, Ordering::Relaxed);
        while arrived.load(Ordering::Relaxed) < 3 {
            thread::yield_now();
        }
    });
    assert_eq!(arrived.into_inner(), 3);
}

#[test]
fn sleepers_wake_for_the_next_job() {
    let pool = pool(3);
    for tasks in [2, 3] {
        wait_for_sleep(&pool);
        let arrived = AtomicUsize::new(0);
        pool.run(tasks, &|_| {
            arrived.fetch_add(1, Ordering::Relaxed);
            while arrived.load(Ordering::Relaxed) < tasks {
                thread::yield_now();
            }
        });
    }
}

#[test]
fn a_panic_reaches_the_caller_once_all_other_tasks_are_done() {
    let pool = pool(2);
    for guilty in 0..4 {
        let done = AtomicUsize::new(0);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pool.run(4, &|task| {
                assert_ne!(task.index, guilty, "as the test wants");
                done.fetch_add(1, Ordering::Relaxed);
            });
        }));
        let payload = outcome.expect_err("the task panicked");
        let message = payload.downcast_ref::<String>().expect("a message");
        assert!(message.contains("as the test wants"), "{message}");
        assert_eq!(done.into_inner(), 3);
        assert_eq!(counts(&pool, 5), [1; 5]);
    }
}

#[test]
fn a_panic_in_a_pool_of_one_leaves_it_usable() {
    let pool = pool(1);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        pool.run(2, &|_| panic!("as the test wants"));
    }));
    assert!(outcome.is_err());
    assert_eq!(counts(&pool, 3), [1; 3]);
}

#[test]
fn only_the_first_of_several_panics_is_kept() {
    let pool = pool(3);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        pool.run(6, &|task| panic!("task {}", task.index));
    }));
    assert!(outcome.is_err());
    assert_eq!(counts(&pool, 6), [1; 6]);
}

#[test]
fn several_callers_take_turns() {
    let pool = pool(3);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..ROUNDS / 10 {
                    assert_eq!(counts(&pool, 5), [1; 5]);
                }
            });
        }
    });
}

#[test]
fn a_task_that_forks_again_is_refused_by_every_pool() {
    for threads in [1, 2] {
        let (pool, other) = (pool(threads), pool(1));
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pool.run(2, &|_| other.run(1, &|_| {}));
        }));
        assert!(outcome.is_err());
        assert_eq!(counts(&pool, 2), [1; 2]);
    }
}

#[test]
fn dropping_a_pool_ends_its_threads() {
    for sleeping in [false, true] {
        let pool = pool(3);
        if sleeping {
            wait_for_sleep(&pool);
        }
        let shared = Arc::downgrade(&pool.shared);
        drop(pool);
        assert!(shared.upgrade().is_none(), "a thread still holds its share");
    }
}

#[test]
fn pools_can_be_moved_and_shared() {
    fn check<T: Send + Sync>() {}
    check::<Pool>();
}

#[test]
#[should_panic(expected = "a pool needs a thread, not 0")]
fn a_pool_of_no_threads_is_refused() {
    pool(0);
}

#[test]
fn there_is_at_least_one_thread_available() {
    assert!(available_threads() >= 1);
}
