//! A request's texts on their way through tokeniser, queue and engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use badge_core::controller::{Admission, Ask, Class};
use badge_tasks::{Encoding, Example, Overlong};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::timeout_at;

use crate::account::Account;
use crate::incoming::Entrance;
use crate::metrics::Shed;
use crate::model::Model;
use crate::operating_points::Choice;
use crate::queue::{AnswerTo, Job, Outcome};
use crate::refusal::Refusal;
use crate::tokenization::TokenizationPool;
use crate::traces::Notes;

/// What is to be classified.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Input {
    /// A text or a pair of texts.
    Text(Example),
    /// Token ids that the caller has made.
    Ids(Encoding),
}

impl From<Example> for Input {
    fn from(example: Example) -> Self {
        Self::Text(example)
    }
}

/// How the texts of one request are to be treated.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) overlong: Overlong,
    pub(crate) class: Class,
    /// When the request came.
    pub(crate) arrival: Instant,
    /// How long an answer is worth anything, if the caller said so.
    pub(crate) patience: Option<Duration>,
    /// Where to write down what becomes of them, if that is wanted.
    pub(crate) notes: Option<Notes>,
}

/// Within how long a text of class `normal` is to be answered where no time is promised: what the
/// queue goes by.
const HORIZON: Duration = Duration::from_secs(1);

/// Bytes of a token, about: what is not tokenised yet is counted by its length.
const BYTES_PER_TOKEN: usize = 4;

impl Terms {
    /// Until when an answer is wanted of a text that is handed in at `start`, which is the order of
    /// the queue; `horizon` is what class `normal` has.
    ///
    /// Each class has a horizon of its own instead of a queue of its own, so that the lowest one
    /// gets its turn in the end. A deadline makes a text more urgent than its class, never less.
    fn due(&self, start: Instant, horizon: Duration) -> Instant {
        let horizon = match self.class {
            Class::High => horizon / 4,
            Class::Normal => horizon,
            Class::Batch => horizon.mul_f64(Class::Batch.patience()),
        };
        let due = start + horizon;
        self.deadline().map_or(due, |deadline| deadline.min(due))
    }

    fn deadline(&self) -> Option<Instant> {
        self.patience.map(|patience| self.arrival + patience)
    }
}

impl Input {
    /// Bytes that are to be tokenised.
    fn bytes(&self) -> usize {
        match self {
            Self::Ids(_) => 0,
            Self::Text(example) => {
                example.text.len() + example.pair.as_ref().map_or(0, String::len)
            }
        }
    }

    /// About how many tokens it will have.
    fn tokens(&self, length_max: usize) -> usize {
        match self {
            Self::Ids(encoding) => encoding.len(),
            Self::Text(_) => {
                let special = 2;
                let tokens = self.bytes() / BYTES_PER_TOKEN + special;
                tokens.min(length_max)
            }
        }
    }
}

/// Answers texts, in their order: all of them or none.
///
/// When the future is dropped, texts that have not joined the engine are never computed.
///
/// # Errors
/// The refusal of the first text that is refused.
pub(crate) async fn answer(
    model: &Arc<Model>,
    pool: &TokenizationPool,
    texts: Vec<(Input, Choice)>,
    terms: &Terms,
) -> Result<Vec<Outcome>, Refusal> {
    let station = &model.station;
    if let Some(notes) = &terms.notes {
        notes.asked(&model.source.name, texts.len());
    }
    if !station.is_alive() {
        return Err(Refusal::Backend(STOPPED.to_owned()));
    }
    let account = Account::open(station, texts.len(), terms.class);
    let (start, count) = (account.start(), texts.len());
    // All texts of a request come in together or not at all.
    let places = u32::try_from(count).unwrap_or(u32::MAX);
    let Ok(room) = Arc::clone(&model.room).try_acquire_many_owned(places) else {
        return Err(account.refuse(Shed::Concurrency, model.time_to_clear()));
    };
    let governor = station.points.governor();
    let horizon = governor.as_ref().map_or(HORIZON, |g| g.horizon());
    let due = terms.due(start, horizon);
    if let Some(governor) = governor {
        let work = texts
            .iter()
            .map(|(input, _)| input.tokens(model.facts.length_max));
        let slack = terms.deadline().map(|d| d.saturating_duration_since(start));
        let ask = Ask {
            class: terms.class,
            slack: slack.map(|slack| slack.as_secs_f64()),
            work: work.sum::<usize>() as f64,
            min_accuracy: None,
        };
        let ahead = station.ahead(terms.class, due);
        if let Admission::Refuse { retry_after } = governor.admit((&ahead, station.begun()), &ask) {
            return Err(account.refuse(Shed::Slo, Duration::from_secs(retry_after)));
        }
    }
    station.metrics.arrived(count);
    let bytes = texts.iter().map(|(input, _)| input.bytes()).sum();
    let mut entry = Entry {
        terms,
        due,
        start,
        room,
        bytes,
    };
    let texts = texts.into_iter();
    let receivers: Vec<_> = texts
        .map(|text| submit(model, pool, text, &mut entry))
        .collect();
    let mut outcomes = Vec::with_capacity(count);
    for receiver in receivers {
        match receive(receiver, model, terms).await {
            Ok(outcome) => outcomes.push(outcome),
            Err(refusal) => {
                account.close(Err(&refusal));
                return Err(refusal);
            }
        }
    }
    account.close(Ok(&outcomes));
    if let Some(notes) = &terms.notes {
        notes.answered(&outcomes);
    }
    Ok(outcomes)
}

type Reply = Result<Outcome, Refusal>;

const STOPPED: &str = "the engine has stopped; the log says why";

const TOKENISER_FAILED: &str = "the tokeniser failed on this text";

/// What the texts of a request have in common when they are let in.
struct Entry<'a> {
    terms: &'a Terms,
    due: Instant,
    start: Instant,
    /// A place for each text that has not been submitted yet.
    room: OwnedSemaphorePermit,
    /// What all of them come to: many short texts are tokenised side by side, as a long one is aside.
    bytes: usize,
}

/// Has a text tokenised and put into the queue.
fn submit(
    model: &Arc<Model>,
    pool: &TokenizationPool,
    (input, choice): (Input, Choice),
    entry: &mut Entry<'_>,
) -> oneshot::Receiver<Reply> {
    let (reply, receiver) = oneshot::channel::<Reply>();
    let length_max = model.facts.length_max;
    let (class, overlong) = (entry.terms.class, entry.terms.overlong);
    let entrance = Entrance::new(model, class, input.tokens(length_max));
    let place = entry.room.split(1);
    let (due, arrival, deadline) = (entry.due, entry.start, entry.terms.deadline());
    pool.run(entry.bytes, move || {
        // A caller that has gone costs nothing.
        if reply.is_closed() {
            return;
        }
        let model = &entrance.model;
        let start = Instant::now();
        let encoded = match input {
            Input::Ids(encoding) => Ok(encoding),
            Input::Text(example) => model
                .tokenizer
                .encode_within(&example, length_max, overlong),
        };
        let encoding = match encoded {
            Ok(encoding) => encoding,
            Err(error) => {
                drop(place);
                let _ = reply.send(Err(error.into()));
                return;
            }
        };
        let queued = Instant::now();
        let job = Job {
            encoding,
            choice,
            due,
            deadline,
            arrival,
            queued,
            tokenization: queued - start,
            class,
            answer_to: AnswerTo::Caller(reply, place),
        };
        if let Err(job) = model.station.queue.push(job) {
            job.answer_to
                .tell(Err(Refusal::Backend(STOPPED.to_owned())));
        }
    });
    receiver
}

/// Waits for an answer until the deadline.
async fn receive(receiver: oneshot::Receiver<Reply>, model: &Model, terms: &Terms) -> Reply {
    let received = match terms.deadline() {
        None => receiver.await,
        Some(deadline) => match timeout_at(deadline.into(), receiver).await {
            Ok(received) => received,
            Err(_) => return Err(Refusal::Expired),
        },
    };
    // The sender is dropped where the engine's thread has ended, or the tokeniser has panicked.
    let failed = if model.station.is_alive() {
        TOKENISER_FAILED
    } else {
        STOPPED
    };
    received.unwrap_or_else(|_| Err(Refusal::Backend(failed.to_owned())))
}

impl Model {
    /// About how long the texts that wait will take: what a caller is told to wait.
    pub(crate) fn time_to_clear(&self) -> Duration {
        let work = self.station.metrics.work();
        let tokens = self.station.queue.pressure(Instant::now()).tokens;
        let blocks = self.facts.config.backbone.blocks as f64;
        let rate = work.token_blocks as f64 / work.busy.as_secs_f64();
        let seconds = if rate.is_finite() && rate > 0.0 {
            tokens as f64 * blocks / rate
        } else {
            1.0
        };
        Duration::from_secs_f64(seconds.clamp(1.0, 60.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urgency_follows_from_class_and_a_deadline_only_adds_to_it() {
        let start = Instant::now();
        let horizon = Duration::from_millis(400);
        let due = |class, patience_ms: Option<u64>| {
            let terms = Terms {
                overlong: Overlong::CutEnd,
                class,
                arrival: start,
                patience: patience_ms.map(Duration::from_millis),
                notes: None,
            };
            (terms.due(start, horizon) - start).as_millis()
        };
        for (class, patience_ms, ms) in [
            (Class::High, None, 100),
            (Class::High, Some(15_000), 100),
            (Class::Normal, None, 400),
            (Class::Normal, Some(15_000), 400),
            (Class::Normal, Some(40), 40),
            // Whoever has waited long enough is before those that have just come.
            (Class::Batch, None, 8000),
            (Class::Batch, Some(60_000), 8000),
            (Class::Batch, Some(5000), 5000),
        ] {
            assert_eq!(due(class, patience_ms), ms, "{class} {patience_ms:?}");
        }
    }

    #[test]
    fn what_is_not_tokenised_yet_is_counted_by_its_length() {
        let text = Input::from(Example::of_pair("a".repeat(100), "b".repeat(60)));
        assert_eq!((text.tokens(512), text.tokens(30)), (42, 30));
        let ids = Input::Ids(Encoding {
            ids: vec![2; 9],
            type_ids: vec![0; 9],
        });
        assert_eq!(ids.tokens(512), 9);
    }
}
