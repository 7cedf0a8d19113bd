//! What a request's handler knows of its texts, for its span.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::queue::Outcome;

/// Texts of one request that have spans of their own.
const TEXTS_MAX: usize = 16;

/// What a request's handler writes down where its span is recorded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
pub(super) struct Noted {
    pub(super) model: Option<String>,
    pub(super) texts: usize,
    /// Tokens of all texts.
    pub(super) tokens: usize,
    /// The first texts.
    pub(super) first: Vec<NotedText>,
}

/// One text on its way.
#[derive(Debug)]
pub(super) struct NotedText {
    pub(super) tokens: usize,
    /// The block after which it left, from 1.
    pub(super) depth: usize,
    pub(super) policy: String,
    /// Where it was: from when, and how long.
    pub(super) stages: [(&'static str, Instant, Duration); 3],
}

impl Notes {
    /// Texts are for this model.
    pub(crate) fn asked(&self, model: &str, texts: usize) {
        let mut noted = self.lock();
        noted.model = Some(model.to_owned());
        noted.texts = texts;
    }

    /// They are answered.
    pub(crate) fn answered(&self, outcomes: &[Outcome]) {
        let mut noted = self.lock();
        noted.tokens = outcomes.iter().map(|outcome| outcome.tokens).sum();
        let first = outcomes.iter().take(TEXTS_MAX);
        noted.first = first.map(NotedText::of).collect();
    }

    pub(super) fn take(&self) -> Noted {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NotedText {
    fn of(outcome: &Outcome) -> Self {
        let queued = outcome.queued;
        let tokenized = queued.checked_sub(outcome.tokenization).unwrap_or(queued);
        Self {
            tokens: outcome.tokens,
            depth: outcome.answer.depth.0,
            policy: outcome.answer.policy().spec().to_string(),
            stages: [
                ("tokenize", tokenized, outcome.tokenization),
                ("queue", queued, outcome.queue),
                ("compute", queued + outcome.queue, outcome.compute),
            ],
        }
    }
}
