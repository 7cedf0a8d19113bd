//! What is promised to the texts of a request, and what becomes of it.

use std::time::{Duration, Instant};

use badge_core::controller::Class;

use crate::metrics::{ModelMetrics, RecentAnswer, Shed};
use crate::queue::Outcome;
use crate::refusal::Refusal;
use crate::runner::Station;

/// The texts of one request, and what is promised to them. Where it is dropped while it is open,
/// their caller has gone.
pub(crate) struct Account<'a> {
    metrics: &'a ModelMetrics,
    texts: usize,
    start: Instant,
    /// Within how long they are to be answered, if that is promised.
    slo: Option<Duration>,
    is_open: bool,
}

impl<'a> Account<'a> {
    /// Opens it for so many texts, which come now.
    pub(crate) fn open(station: &'a Station, texts: usize, class: Class) -> Self {
        // What nobody waits for is not held to the promise.
        let governor = station.points.governor().filter(|_| class != Class::Batch);
        Self {
            metrics: &station.metrics,
            texts,
            start: Instant::now(),
            slo: governor.map(|governor| governor.horizon()),
            is_open: true,
        }
    }

    /// When the texts were handed in.
    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    /// The texts are refused.
    pub(crate) fn refuse(mut self, shed: Shed, retry_after: Duration) -> Refusal {
        self.is_open = false;
        self.metrics.shed(self.texts, shed, self.slo.is_some());
        Refusal::Overloaded { retry_after }
    }

    /// Takes note of what has become of the texts.
    pub(crate) fn close(mut self, outcomes: Result<&[Outcome], &Refusal>) {
        self.is_open = false;
        let at = Instant::now();
        let latency = at - self.start;
        match outcomes {
            Ok(outcomes) => {
                if let Some(slo) = self.slo {
                    self.metrics.kept(self.texts, (at, latency), slo);
                }
                for outcome in outcomes {
                    let depth = outcome.answer.depth;
                    self.metrics.answered(RecentAnswer { at, latency, depth });
                }
            }
            Err(Refusal::Expired) => self.metrics.expired(self.texts, at, self.slo),
            Err(_) => {}
        }
    }
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.metrics.abandoned(self.texts);
        }
    }
}
