//! The models that are served, by name; loaded, exchanged and let go while requests run.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::model::{Model, ModelSource};
use crate::refusal::Refusal;
use crate::settings::ModelSettings;

/// The models that are served. A request keeps the model that it began with.
#[derive(Debug)]
pub(crate) struct Catalog {
    settings: ModelSettings,
    metrics: Arc<Metrics>,
    /// In the order of the command line; the first answers where a request names none.
    models: RwLock<Arc<Vec<Arc<Model>>>>,
    /// Held while a model is loaded: packing takes all threads.
    loading: Mutex<()>,
}

impl Catalog {
    /// Loads all models, one after the other.
    ///
    /// # Errors
    /// That of the first model that cannot be loaded.
    pub(crate) fn load(
        sources: &[ModelSource],
        settings: &ModelSettings,
        metrics: &Arc<Metrics>,
    ) -> Result<Self> {
        let load = |source| Model::load(source, settings, metrics).map(Arc::new);
        let models: Vec<_> = sources.iter().map(load).collect::<Result<_>>()?;
        for model in &models {
            metrics.build(model.facts.instruction_set, &model.facts.precision);
            announce(model, "loaded");
        }
        Ok(Self {
            settings: settings.clone(),
            metrics: Arc::clone(metrics),
            models: RwLock::new(Arc::new(models)),
            loading: Mutex::default(),
        })
    }

    /// All models, as they are at this moment.
    pub(crate) fn models(&self) -> Arc<Vec<Arc<Model>>> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&models)
    }

    /// The model of this name, or the first where none is named.
    pub(crate) fn model(&self, name: Option<&str>) -> Result<Arc<Model>, Refusal> {
        let models = self.models();
        let Some(name) = name else {
            let first = models.first().map(Arc::clone);
            return first.ok_or(Refusal::NotReady("no model is loaded"));
        };
        let found = models.iter().find(|model| model.source.name == name);
        found.map(Arc::clone).ok_or_else(|| {
            let names: Vec<_> = models.iter().map(|m| m.source.name.as_str()).collect();
            Refusal::UnknownModel {
                model: name.to_owned(),
                known: names.join(", "),
            }
        })
    }

    /// The model of this name, or the first: where clients put any name they like.
    pub(crate) fn model_or_first(&self, name: Option<&str>) -> Result<Arc<Model>, Refusal> {
        self.model(name).or_else(|_| self.model(None))
    }

    /// Whether there is a model and all of them answer.
    pub(crate) fn is_ready(&self) -> bool {
        let models = self.models();
        !models.is_empty() && models.iter().all(|model| model.station.is_alive())
    }

    /// Loads a model and puts it in the place of the one of its name, if there is one. Requests
    /// that have begun are answered by the model they began with. When loading fails nothing
    /// changes.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub(crate) fn put(&self, source: &ModelSource) -> Result<()> {
        let turn = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let model = Arc::new(Model::load(source, &self.settings, &self.metrics)?);
        self.change(
            |models| match models.iter_mut().find(|m| m.source.name == source.name) {
                Some(place) => *place = Arc::clone(&model),
                None => models.push(Arc::clone(&model)),
            },
        );
        drop(turn);
        announce(&model, "loaded");
        Ok(())
    }

    /// Loads all models anew from where they came. Each that loads takes its place; the others go
    /// on as they were.
    ///
    /// # Errors
    /// That of the first model that cannot be loaded.
    pub(crate) fn reload(&self) -> Result<()> {
        let mut first_error = None;
        for model in self.models().iter() {
            if let Err(error) = self.put(&model.source) {
                let model = &model.source.name;
                tracing::error!(%model, %error, "not reloaded; the old one goes on");
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Lets a model go; its last requests are still answered.
    ///
    /// # Errors
    /// When there is no such model, or no other one.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Refusal> {
        self.model(Some(name))?;
        if self.models().len() == 1 {
            let problem = "it is the only model; load another one first, or stop the server";
            return Err(Refusal::Validation(format!("model `{name}`: {problem}")));
        }
        self.change(|models| models.retain(|model| model.source.name != name));
        tracing::info!(model = name, "let go");
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Model>>)) {
        let mut place = self.models.write().unwrap_or_else(PoisonError::into_inner);
        let mut models = Vec::clone(&place);
        change(&mut models);
        *place = Arc::new(models);
    }
}

fn announce(model: &Model, what: &str) {
    let facts = &model.facts;
    tracing::info!(
        model = model.source.name,
        precision = facts.precision,
        instruction_set = facts.instruction_set,
        policy = %model.station.points.current_policy().spec(),
        packed_mib = facts.packed_bytes / (1 << 20),
        load_ms = facts.load_time.as_millis() as u64,
        "{what}"
    );
}

impl From<Error> for Refusal {
    /// Why a model was not loaded.
    fn from(error: Error) -> Self {
        Self::Validation(error.to_string())
    }
}
