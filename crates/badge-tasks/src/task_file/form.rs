//! The keys of a task file, as written.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskForm {
    pub(super) name: String,
    pub(super) problem: Option<String>,
    pub(super) labels: Option<Labels>,
    pub(super) metric: String,
    pub(super) format: Option<String>,
    pub(super) header: Option<bool>,
    pub(super) label_delimiter: Option<String>,
    pub(super) files: FilesForm,
    pub(super) columns: ColumnsForm,
    #[serde(default)]
    pub(super) split: SplitForm,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FilesForm {
    pub(super) train: OneOrMany,
    pub(super) dev: Option<OneOrMany>,
    pub(super) test: Option<OneOrMany>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ColumnsForm {
    pub(super) text: ColumnName,
    pub(super) pair: Option<ColumnName>,
    pub(super) label: ColumnName,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SplitForm {
    pub(super) seed: Option<u64>,
    pub(super) dev: Option<f64>,
    pub(super) test: Option<f64>,
}

/// `"file"` or `["file", ...]`.
#[derive(Debug)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Self::One(name) => vec![name.clone()],
            Self::Many(names) => names.clone(),
        }
    }
}

/// `["a", "b"]` or `"from-data"`.
#[derive(Debug)]
pub(super) enum Labels {
    FromData,
    List(Vec<String>),
}

/// `"name"` or a position.
#[derive(Debug)]
pub(super) enum ColumnName {
    Name(String),
    Position(u64),
}

// Visitors rather than untagged enums: those answer every mistake with "did not match any variant".

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Files;

        impl<'de> Visitor<'de> for Files {
            type Value = OneOrMany;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a file name or a list of file names")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany::One(name.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<OneOrMany, A::Error> {
                collect(names).map(OneOrMany::Many)
            }
        }
        deserializer.deserialize_any(Files)
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LabelList;

        impl<'de> Visitor<'de> for LabelList {
            type Value = Labels;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of labels or \"from-data\"")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Labels, E> {
                if word == "from-data" {
                    Ok(Labels::FromData)
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(word), &self))
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, labels: A) -> Result<Labels, A::Error> {
                collect(labels).map(Labels::List)
            }
        }
        deserializer.deserialize_any(LabelList)
    }
}

impl<'de> Deserialize<'de> for ColumnName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = ColumnName;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the name or the position of a column")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<ColumnName, E> {
                Ok(ColumnName::Name(name.to_owned()))
            }

            fn visit_i64<E: de::Error>(self, position: i64) -> Result<ColumnName, E> {
                u64::try_from(position)
                    .map(ColumnName::Position)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(position), &self))
            }
        }
        deserializer.deserialize_any(Name)
    }
}

fn collect<'de, A: SeqAccess<'de>>(mut items: A) -> Result<Vec<String>, A::Error> {
    let mut collected = Vec::new();
    while let Some(item) = items.next_element()? {
        collected.push(item);
    }
    Ok(collected)
}
