//! Typed access to the keys of a JSON object, with errors that name the key.

use serde_json::{Map, Value};

use super::CONFIG_FILE;
use crate::error::{Error, Result};

/// The keys of `config.json`.
pub(crate) struct Keys<'a> {
    object: &'a Map<String, Value>,
}

/// A size that no real model reaches; larger ones are typing errors or attacks on memory.
const SIZE_MAX: u64 = 1 << 24;

/// Labels that have no names. Each costs memory though the file holds but their number.
const ANONYMOUS_LABELS_MAX: usize = 1 << 16;

impl<'a> Keys<'a> {
    pub(crate) fn new(object: &'a Map<String, Value>) -> Self {
        Self { object }
    }

    pub(crate) fn wrong(key: &str, problem: String) -> Error {
        Error::ConfigKey {
            file: CONFIG_FILE.to_owned(),
            key: key.to_owned(),
            problem,
        }
    }

    fn present(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.present(key)
            .map(|value| {
                value
                    .as_str()
                    .ok_or_else(|| Self::wrong(key, format!("{value} is not a string")))
            })
            .transpose()
    }

    /// A size of at least 1, or the default when the key is absent.
    pub(crate) fn size(&self, key: &str, default: Option<usize>) -> Result<usize> {
        let Some(value) = self.present(key) else {
            return default.ok_or_else(|| Self::wrong(key, "is missing".to_owned()));
        };
        match value.as_u64() {
            Some(size) if (1..=SIZE_MAX).contains(&size) => Ok(size as usize),
            _ => Err(Self::wrong(
                key,
                format!("{value} is not a whole number in 1..={SIZE_MAX}"),
            )),
        }
    }

    /// A finite number, or the default when the key is absent.
    pub(crate) fn number(&self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.present(key) else {
            return Ok(default);
        };
        value
            .as_f64()
            .ok_or_else(|| Self::wrong(key, format!("{value} is not a number")))
    }

    /// A token id; 0 when the key is absent.
    pub(crate) fn token_id(&self, key: &str) -> Result<u32> {
        let Some(value) = self.present(key) else {
            return Ok(0);
        };
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| Self::wrong(key, format!("{value} is not a token id")))
    }

    /// A probability below 1.
    pub(crate) fn dropout(&self, key: &str, default: f64) -> Result<f64> {
        let value = self.number(key, default)?;
        if (0.0..1.0).contains(&value) {
            Ok(value)
        } else {
            Err(Self::wrong(
                key,
                format!("dropout {value} is not in [0, 1)"),
            ))
        }
    }

    /// `id2label` in the order of its ids; `num_labels` anonymous labels; or Hugging Face's
    /// default of two.
    pub(crate) fn labels(&self) -> Result<Vec<String>> {
        let Some(value) = self.present("id2label") else {
            let count = self.size("num_labels", Some(2))?;
            if count > ANONYMOUS_LABELS_MAX {
                let problem = format!("{count} labels must be named in id2label");
                return Err(Self::wrong("num_labels", problem));
            }
            return Ok((0..count).map(|i| format!("LABEL_{i}")).collect());
        };
        let Some(map) = value.as_object().filter(|map| !map.is_empty()) else {
            return Err(Self::wrong(
                "id2label",
                "must map ids to label names".to_owned(),
            ));
        };
        let mut labels = vec![None; map.len()];
        for (id, label) in map {
            let place = id.parse::<usize>().ok().and_then(|id| labels.get_mut(id));
            let (Some(place), Some(label)) = (place, label.as_str()) else {
                let problem = format!(
                    "entry {id}: {label} is not a label with an id in 0..{}",
                    map.len()
                );
                return Err(Self::wrong("id2label", problem));
            };
            *place = Some(label.to_owned());
        }
        labels
            .into_iter()
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| {
                Self::wrong(
                    "id2label",
                    "ids must be 0, 1, 2, ... without a gap".to_owned(),
                )
            })
    }
}
