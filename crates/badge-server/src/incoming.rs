//! Texts that are being tokenised: work that is not in the queue yet.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use badge_core::controller::{Class, PerClass};

use crate::model::Model;

/// Texts that are being tokenised, as tokens by class.
#[derive(Debug, Default)]
pub(crate) struct Incoming(Mutex<PerClass<usize>>);

impl Incoming {
    /// About how many tokens are on their way to the queue.
    pub(crate) fn tokens(&self) -> PerClass<f64> {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        PerClass::from_fn(|class| *tokens.of(class) as f64)
    }
}

/// One text that is being tokenised; it is counted until this is dropped.
pub(crate) struct Entrance {
    pub(crate) model: Arc<Model>,
    class: Class,
    tokens: usize,
}

impl Entrance {
    pub(crate) fn new(model: &Arc<Model>, class: Class, tokens: usize) -> Self {
        let entrance = Self {
            model: Arc::clone(model),
            class,
            tokens,
        };
        *entrance.count().of_mut(class) += tokens;
        entrance
    }

    fn count(&self) -> MutexGuard<'_, PerClass<usize>> {
        let incoming = &self.model.station.incoming;
        incoming.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        *self.count().of_mut(self.class) -= self.tokens;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::catalog::tests::{catalog, folder};

    #[test]
    fn what_is_being_tokenised_is_ahead_of_what_is_no_more_urgent() {
        let folder = folder();
        let catalog = catalog(&folder, &["tiny"]);
        let model = catalog.model(None).unwrap();
        let ahead = |class: Class| model.station.ahead(class, Instant::now()).total();
        let urgent = Entrance::new(&model, Class::High, 7);
        let usual = Entrance::new(&model, Class::Normal, 20);
        let patient = Entrance::new(&model, Class::Batch, 100);
        assert_eq!(Class::ALL.map(ahead), [127.0, 27.0, 7.0]);
        drop((urgent, patient));
        assert_eq!(Class::ALL.map(ahead), [20.0, 20.0, 0.0]);
        drop(usual);
        assert_eq!(ahead(Class::Batch), 0.0);
    }
}
