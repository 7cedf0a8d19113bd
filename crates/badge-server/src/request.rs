//! A request's texts on their way through tokeniser, queue and engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use badge_core::controller::{Admission, Class};
use badge_tasks::{Encoding, Example, Overlong};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::metrics::RecentAnswer;
use crate::model::Model;
use crate::operating_points::Choice;
use crate::queue::{AnswerTo, Dead, Job, Outcome};
use crate::refusal::Refusal;
use crate::tokenization::TokenizationPool;

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
}

/// Within how long a text is to be answered that has no deadline: what the queue goes by, not a
/// promise.
const HORIZON: Duration = Duration::from_secs(1);

impl Terms {
    /// Until when an answer is wanted, which is the order of the queue.
    ///
    /// Each class has a horizon of its own instead of a queue of its own, so that the lowest one
    /// gets its turn in the end.
    fn due(&self) -> Instant {
        let horizon = match self.class {
            Class::High => HORIZON / 4,
            Class::Normal => HORIZON,
            Class::Batch => HORIZON * 20,
        };
        self.arrival + self.patience.unwrap_or(horizon)
    }

    fn deadline(&self) -> Option<Instant> {
        self.patience.map(|patience| self.arrival + patience)
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
    if !station.is_alive() {
        return Err(Refusal::Backend(STOPPED.to_owned()));
    }
    let count = texts.len();
    // All texts of a request come in together or not at all.
    let places = u32::try_from(count).unwrap_or(u32::MAX);
    let Ok(_room) = Arc::clone(&model.room).try_acquire_many_owned(places) else {
        station.metrics.refused(count);
        let retry_after = model.time_to_clear();
        return Err(Refusal::Overloaded { retry_after });
    };
    if let Some(governor) = station.points.governor() {
        let now = Instant::now();
        let waiting = station.queue.pressure(now).tokens_by_class;
        let slack = terms.deadline().map(|d| d.saturating_duration_since(now));
        let admission = governor.admit(&station.backlog(&waiting), slack);
        if let Admission::Refuse { retry_after } = admission {
            station.metrics.refused_by_controller(count);
            let retry_after = Duration::from_secs(retry_after);
            return Err(Refusal::Overloaded { retry_after });
        }
    }
    station.metrics.arrived(count);
    let receivers: Vec<_> = texts
        .into_iter()
        .map(|(input, choice)| submit(model, pool, (input, choice), terms))
        .collect();
    let mut outcomes = Vec::with_capacity(count);
    for receiver in receivers {
        outcomes.push(receive(receiver, model, terms).await?);
    }
    let at = Instant::now();
    let slo = station.points.governor().map(|governor| governor.slo());
    for outcome in &outcomes {
        if let Some(slo) = slo {
            station.metrics.kept(at - terms.arrival, slo);
        }
        station.metrics.answered(RecentAnswer {
            at,
            latency: at - terms.arrival,
            depth: outcome.answer.depth,
        });
    }
    Ok(outcomes)
}

type Reply = Result<Outcome, Refusal>;

const STOPPED: &str = "the engine has stopped; the log says why";

const TOKENISER_FAILED: &str = "the tokeniser failed on this text";

/// Has a text tokenised and put into the queue.
fn submit(
    model: &Arc<Model>,
    pool: &TokenizationPool,
    (input, choice): (Input, Choice),
    terms: &Terms,
) -> oneshot::Receiver<Reply> {
    let (reply, receiver) = oneshot::channel::<Reply>();
    let model = Arc::clone(model);
    let (due, deadline) = (terms.due(), terms.deadline());
    let (class, overlong) = (terms.class, terms.overlong);
    pool.spawn(move || {
        // A caller that has gone costs nothing.
        if reply.is_closed() {
            model.station.metrics.dead(Dead::Abandoned);
            return;
        }
        let start = Instant::now();
        let length_max = model.facts.length_max;
        let encoded = match input {
            Input::Ids(encoding) => Ok(encoding),
            Input::Text(example) => model
                .tokenizer
                .encode_within(&example, length_max, overlong),
        };
        let arrival = Instant::now();
        let encoding = match encoded {
            Ok(encoding) => encoding,
            Err(error) => {
                let _ = reply.send(Err(error.into()));
                return;
            }
        };
        let job = Job {
            encoding,
            choice,
            due,
            deadline,
            arrival,
            tokenization: arrival - start,
            class,
            answer_to: AnswerTo::Caller(reply),
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
    fn urgency_follows_from_deadline_then_class() {
        let arrival = Instant::now();
        let due = |class, patience_ms: Option<u64>| {
            let terms = Terms {
                overlong: Overlong::CutEnd,
                class,
                arrival,
                patience: patience_ms.map(Duration::from_millis),
            };
            terms.due() - arrival
        };
        let order = [
            due(Class::Batch, Some(40)),
            due(Class::High, None),
            due(Class::Normal, None),
            due(Class::Batch, None),
        ];
        assert!(order.is_sorted(), "{order:?}");
        // Whoever has waited long enough is before those that have just come.
        assert!(due(Class::Batch, None) < HORIZON * 21);
    }
}
