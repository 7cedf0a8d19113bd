use super::*;

/// A job of so many tokens that is due after so many milliseconds.
fn job(start: Instant, tokens: u32, due_ms: u64) -> (Job, impl Sized) {
    let (reply, receiver) = oneshot::channel();
    let job = Job {
        encoding: Encoding {
            ids: vec![1; tokens as usize],
            type_ids: vec![0; tokens as usize],
        },
        choice: Choice::default(),
        due: start + Duration::from_millis(due_ms),
        deadline: None,
        arrival: start,
        queued: start,
        tokenization: Duration::ZERO,
        class: Class::Normal,
        answer_to: AnswerTo::Caller(reply, None),
    };
    (job, receiver)
}

#[test]
fn the_most_urgent_is_taken_first_and_equals_in_their_order() {
    let (queue, start) = (Queue::default(), Instant::now());
    let mut receivers = Vec::new();
    for (tokens, due) in [(1, 50), (2, 10), (3, 50), (4, 10), (5, 20)] {
        let (job, receiver) = job(start, tokens, due);
        receivers.push(receiver);
        queue.push(job).unwrap();
    }
    let now = start + Duration::from_millis(7);
    let pressure = queue.pressure(now);
    assert_eq!((pressure.requests, pressure.tokens), (5, 15));
    assert_eq!(pressure.oldest, Duration::from_millis(7));
    assert_eq!(pressure.tokens_arrived, 15);
    assert!((pressure.text_tokens - 3.0).abs() < 1e-9);
    let order: Vec<_> = std::iter::from_fn(|| queue.pop(QueueOrder::Fifo))
        .map(|job| job.encoding.len())
        .collect();
    assert_eq!(order, [2, 4, 5, 1, 3]);
    let nothing = Pressure {
        tokens_arrived: 15,
        text_tokens: pressure.text_tokens,
        ..Pressure::default()
    };
    assert_eq!(queue.pressure(now), nothing);
    assert!(queue.is_empty());
}

#[test]
fn what_can_wait_longer_is_not_ahead_and_its_age_alarms_nobody() {
    let (queue, start) = (Queue::default(), Instant::now());
    let mut receivers = Vec::new();
    for (tokens, due, class) in [
        (1, 10, Class::High),
        (2, 40, Class::Normal),
        (4, 60, Class::Normal),
        (8, 30, Class::Batch),
        (16, 800, Class::Batch),
    ] {
        let (mut job, receiver) = job(start, tokens, due);
        job.class = class;
        if class == Class::Batch {
            job.arrival -= Duration::from_millis(500);
        }
        receivers.push(receiver);
        queue.push(job).unwrap();
    }
    let ahead = |ms: u64| {
        let ahead = queue.ahead(start + Duration::from_millis(ms));
        [ahead.high, ahead.normal, ahead.batch]
    };
    assert_eq!(ahead(5), [0.0, 0.0, 0.0]);
    assert_eq!(ahead(50), [1.0, 2.0, 8.0]);
    assert_eq!(ahead(1000), [1.0, 6.0, 24.0]);
    let pressure = queue.pressure(start + Duration::from_millis(7));
    assert_eq!(pressure.oldest, Duration::from_millis(507));
    assert_eq!(pressure.oldest_promised, Duration::from_millis(7));
}

#[test]
fn audits_wait_for_everybody_and_nobody_for_them() {
    let (queue, start) = (Queue::default(), Instant::now());
    let audit = |tokens| {
        let (mut job, _) = job(start, tokens, 0);
        job.answer_to = AnswerTo::Audit { decision: vec![] };
        job
    };
    queue.push_audit(audit(7));
    let (waiting, _receiver) = job(start, 1, 1000);
    queue.push(waiting).unwrap();
    let pressure = queue.pressure(start + Duration::from_millis(3));
    assert_eq!((pressure.requests, pressure.tokens), (1, 1));
    let taken = [QueueOrder::Fifo, QueueOrder::Lifo].map(|order| queue.pop(order).unwrap());
    assert_eq!(taken.map(|job| job.encoding.len()), [1, 7]);
    for _ in 0..2 * AUDITS_MAX {
        queue.push_audit(audit(1));
    }
    assert_eq!(queue.lock().audits.len(), AUDITS_MAX);
}

#[test]
fn what_nobody_wants_any_more_leaves_and_gives_its_room_back() {
    let (queue, start) = (Queue::default(), Instant::now());
    let room = std::sync::Arc::new(tokio::sync::Semaphore::new(3));
    let mut receivers = Vec::new();
    for deadline in [None, Some(5), Some(50)] {
        let (mut job, receiver) = job(start, 2, 0);
        job.deadline = deadline.map(|ms| start + Duration::from_millis(ms));
        let (reply, receiver_of_reply) = oneshot::channel();
        drop(receiver);
        let permit = std::sync::Arc::clone(&room).try_acquire_owned().unwrap();
        job.answer_to = AnswerTo::Caller(reply, Some(permit));
        receivers.push(receiver_of_reply);
        queue.push(job).unwrap();
    }
    assert_eq!(room.available_permits(), 0);
    let late = start + Duration::from_millis(10);
    queue.sweep(late);
    assert_eq!(
        (queue.pressure(late).tokens, room.available_permits()),
        (4, 1)
    );
    let told = receivers[1].try_recv().unwrap();
    assert!(matches!(told, Err(Refusal::Expired)));
    receivers.clear();
    queue.sweep(late);
    assert!(queue.is_empty());
    assert_eq!(room.available_permits(), 3);
}

#[test]
fn where_a_queue_stands_the_newest_of_the_most_urgent_class_comes_first() {
    let (queue, start) = (Queue::default(), Instant::now());
    let mut receivers = Vec::new();
    for (tokens, class) in [
        (1, Class::High),
        (2, Class::Normal),
        (3, Class::High),
        (4, Class::Batch),
    ] {
        let (mut job, receiver) = job(start, tokens, 0);
        job.class = class;
        job.arrival += Duration::from_millis(u64::from(tokens));
        receivers.push(receiver);
        queue.push(job).unwrap();
    }
    let order: Vec<_> = std::iter::from_fn(|| queue.pop(QueueOrder::Lifo))
        .map(|job| job.encoding.len())
        .collect();
    assert_eq!(order, [3, 1, 2, 4]);
}

#[test]
fn a_closed_queue_gives_out_what_it_has_and_takes_no_more() {
    let (queue, start) = (Queue::default(), Instant::now());
    let (first, _kept) = job(start, 3, 0);
    queue.push(first).unwrap();
    queue.close();
    let (second, _kept) = job(start, 3, 0);
    assert!(queue.push(second).is_err());
    assert!(queue.wait().is_some());
    assert!(queue.wait().is_none());
}

#[test]
fn a_job_is_dead_when_its_caller_has_gone_or_its_deadline_has_passed() {
    let start = Instant::now();
    let (mut waiting, receiver) = job(start, 1, 0);
    assert!(!waiting.is_dead(start));
    waiting.deadline = Some(start + Duration::from_millis(5));
    assert!(!waiting.is_dead(start));
    assert!(waiting.is_dead(start + Duration::from_millis(5)));
    drop(receiver);
    assert!(waiting.is_dead(start));
}
