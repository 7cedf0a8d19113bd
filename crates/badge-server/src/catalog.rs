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
    /// Held while a model is loaded or let go: packing takes all threads, and a name, its place and
    /// its metrics are one model's.
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
        found.map(Arc::clone).ok_or_else(|| unknown(name, &models))
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
                Some(place) => take_place(place, &model),
                None => models.push(Arc::clone(&model)),
            },
        );
        drop(turn);
        announce(&model, "loaded");
        Ok(())
    }

    /// Loads a model anew from where it came, and puts it in its own place. What has been let go or
    /// exchanged meanwhile stays as it is: this is older than that.
    ///
    /// # Errors
    /// As [`Model::load`], and [`Error::Overtaken`].
    pub(crate) fn renew(&self, old: &Arc<Model>) -> Result<()> {
        let turn = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody takes its place before it is its turn again.
        if !self.models().iter().any(|model| Arc::ptr_eq(model, old)) {
            let model = old.source.name.clone();
            return Err(Error::Overtaken { model });
        }
        let model = Arc::new(Model::load(&old.source, &self.settings, &self.metrics)?);
        self.change(|models| {
            if let Some(place) = models.iter_mut().find(|place| Arc::ptr_eq(place, old)) {
                take_place(place, &model);
            }
        });
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
        // By name: who held the models themselves would keep each in memory until the last is done.
        for name in self.names() {
            let Ok(old) = self.model(Some(&name)) else {
                continue;
            };
            match self.renew(&old) {
                Ok(()) => {}
                Err(error @ Error::Overtaken { .. }) => tracing::info!(%error, "not reloaded"),
                Err(error) => {
                    tracing::error!(model = name, %error, "not reloaded; the old one goes on");
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Lets a model go; its last requests are still answered. Waits for what is being loaded.
    ///
    /// # Errors
    /// When there is no such model, or no other one.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Refusal> {
        let turn = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = self.change(|models| {
            let place = models.iter().position(|model| model.source.name == name);
            let place = place.ok_or_else(|| unknown(name, models))?;
            if models.len() == 1 {
                let problem = "it is the only model; load another one first, or stop the server";
                return Err(Refusal::Validation(format!("model `{name}`: {problem}")));
            }
            Ok(models.remove(place))
        })?;
        let exits = gone.facts.config.exits();
        self.metrics.forget(name, exits.exits.depths());
        drop(turn);
        tracing::info!(model = name, "let go");
        Ok(())
    }

    /// Their names, in the order of the command line.
    pub(crate) fn names(&self) -> Vec<String> {
        let models = self.models();
        models
            .iter()
            .map(|model| model.source.name.clone())
            .collect()
    }

    /// Changes the models, and what is looked at before is what is changed.
    fn change<T>(&self, change: impl FnOnce(&mut Vec<Arc<Model>>) -> T) -> T {
        let mut place = self.models.write().unwrap_or_else(PoisonError::into_inner);
        let mut models = Vec::clone(&place);
        let result = change(&mut models);
        *place = Arc::new(models);
        result
    }
}

/// Puts a model in the place of another one of its name.
fn take_place(place: &mut Arc<Model>, model: &Arc<Model>) {
    model.station.points.succeed(&place.station.points);
    *place = Arc::clone(model);
}

fn unknown(name: &str, models: &[Arc<Model>]) -> Refusal {
    let names: Vec<_> = models.iter().map(|m| m.source.name.as_str()).collect();
    Refusal::UnknownModel {
        model: name.to_owned(),
        known: names.join(", "),
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

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Barrier;
    use std::thread;

    use tempfile::TempDir;

    use super::*;

    /// A folder with a tiny model.
    pub(crate) fn folder() -> TempDir {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
        let folder = TempDir::new().unwrap();
        for file in [
            "parity/albert/config.json",
            "parity/albert/model.safetensors",
            "tokenizer/tokenizer.json",
        ] {
            let source = fixtures.join(file);
            fs::copy(&source, folder.path().join(source.file_name().unwrap())).unwrap();
        }
        folder
    }

    pub(crate) fn catalog(folder: &TempDir, names: &[&str]) -> Catalog {
        let source = |name: &&str| ModelSource::new(*name, folder.path());
        let sources: Vec<_> = names.iter().map(source).collect();
        let settings = ModelSettings {
            threads: 1,
            ..ModelSettings::default()
        };
        Catalog::load(&sources, &settings, &Arc::new(Metrics::new())).unwrap()
    }

    #[test]
    fn what_is_let_go_while_it_is_loaded_anew_stays_away() {
        let folder = folder();
        let catalog = catalog(&folder, &["a", "b"]);
        let old = catalog.model(Some("b")).unwrap();
        catalog.remove("b").unwrap();
        let error = catalog.renew(&old).unwrap_err();
        assert!(matches!(error, Error::Overtaken { .. }), "{error}");
        assert_eq!(catalog.names(), ["a"]);
        // Nor does what is older take the place of what is newer.
        let old = catalog.model(Some("a")).unwrap();
        catalog.put(&old.source).unwrap();
        let newer = catalog.model(Some("a")).unwrap();
        assert!(catalog.renew(&old).is_err());
        assert!(Arc::ptr_eq(&newer, &catalog.model(Some("a")).unwrap()));
        catalog.reload().unwrap();
        assert!(!Arc::ptr_eq(&newer, &catalog.model(Some("a")).unwrap()));
    }

    #[test]
    fn two_that_let_go_at_once_leave_one_model() {
        let folder = folder();
        let catalog = catalog(&folder, &["a", "b"]);
        let both = catalog.models();
        for _ in 0..300 {
            let start = Barrier::new(2);
            let removed = thread::scope(|scope| {
                let remove = |name| {
                    let (catalog, start) = (&catalog, &start);
                    scope.spawn(move || {
                        start.wait();
                        catalog.remove(name).is_ok()
                    })
                };
                let removing = ["a", "b"].map(remove);
                removing.map(|thread| thread.join().unwrap())
            });
            assert_eq!(removed.iter().filter(|removed| **removed).count(), 1);
            catalog.change(|models| *models = Vec::clone(&both));
        }
    }
}
