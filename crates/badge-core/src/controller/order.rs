//! First come first served, or last: which end of a queue is worth serving.

use serde::Serialize;

/// The share of the SLO that requests may wait at the floor before the queue counts as standing.
const STANDING_SHARE: f64 = 0.25;

/// Seconds for which it has to stand (CoDel's interval; Nichols and Jacobson, 2012).
const STANDING_SECONDS: f64 = 0.1;

/// In which order the requests of a class are taken from the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueOrder {
    /// The oldest first.
    #[default]
    Fifo,
    /// The newest first: where a queue stands even at the floor, the oldest will be late anyway.
    Lifo,
}

/// Since when a queue has been standing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct StandingQueue {
    since: Option<f64>,
}

impl StandingQueue {
    /// One tick: whether the head's age has stayed above a quarter of the SLO for 100 ms while depth
    /// was at the floor.
    pub(super) fn tick(&mut self, now: f64, (head_age, slo): (f64, f64), at_floor: bool) {
        let stands = at_floor && head_age > STANDING_SHARE * slo;
        self.since = stands.then(|| self.since.map_or(now, |since| since.min(now)));
    }

    pub(super) fn order(self, now: f64) -> QueueOrder {
        match self.since {
            Some(since) if now - since >= STANDING_SECONDS => QueueOrder::Lifo,
            _ => QueueOrder::Fifo,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_turns_when_a_queue_stands_and_back_when_it_moves() {
        let mut queue = StandingQueue::default();
        let mut order_at = |now: f64, age: f64, at_floor: bool| {
            queue.tick(now, (age, 0.1), at_floor);
            queue.order(now)
        };
        assert_eq!(order_at(0.0, 0.05, true), QueueOrder::Fifo);
        assert_eq!(order_at(0.05, 0.05, true), QueueOrder::Fifo);
        assert_eq!(order_at(0.1, 0.05, true), QueueOrder::Lifo);
        assert_eq!(order_at(0.2, 0.02, true), QueueOrder::Fifo);
        assert_eq!(order_at(0.3, 0.05, true), QueueOrder::Fifo);
        assert_eq!(order_at(0.5, 0.05, true), QueueOrder::Lifo);
        // Above the floor there is depth to give away first.
        assert_eq!(order_at(0.6, 0.05, false), QueueOrder::Fifo);
    }
}
