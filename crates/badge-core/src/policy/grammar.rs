//! The grammar that all policies share: `name[:value][,key=value]...`
//!
//! A key whose presence says all, such as `normalised` in `entropy:0.2,normalised`, stands alone.

use std::fmt::Display;
use std::num::NonZeroUsize;
use std::str::FromStr;

use crate::error::Error;

/// What stands behind a policy's name, each part of it used once.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    value: Option<&'a str>,
    pairs: Vec<(&'a str, &'a str)>,
    /// Keys without a value.
    lone: Vec<&'a str>,
}

impl<'a> Fields<'a> {
    /// Splits a specification into its name and the rest.
    pub(super) fn split(text: &'a str) -> Result<(&'a str, Self), String> {
        let Some((name, rest)) = text.split_once(':') else {
            return Ok((text, Self::default()));
        };
        let mut fields = Self::default();
        for (position, item) in rest.split(',').enumerate() {
            match item.split_once('=') {
                Some((key, value)) => fields.add(key, value)?,
                None if item.is_empty() => {
                    return Err("nothing stands where a value or key=value should".to_owned());
                }
                None if position == 0 => fields.value = Some(item),
                None if fields.lone.contains(&item) => {
                    return Err(format!("`{item}` is given twice"));
                }
                None => fields.lone.push(item),
            }
        }
        Ok((name, fields))
    }

    fn add(&mut self, key: &'a str, value: &'a str) -> Result<(), String> {
        if value.is_empty() {
            return Err(format!("key `{key}` has no value"));
        }
        if self.pairs.iter().any(|(known, _)| *known == key) {
            return Err(format!("key `{key}` is given twice"));
        }
        self.pairs.push((key, value));
        Ok(())
    }

    /// The value right behind the colon, which the policy calls `key`.
    pub(super) fn value(&mut self, key: &str, example: &str) -> Result<&'a str, String> {
        self.value
            .take()
            .ok_or_else(|| format!("`{key}` is missing; write for instance {example}"))
    }

    /// The value of a key that may be left out.
    pub(super) fn take(&mut self, key: &str) -> Option<&'a str> {
        let position = self.pairs.iter().position(|(known, _)| *known == key)?;
        Some(self.pairs.remove(position).1)
    }

    /// Whether a key that has no value stands there.
    pub(super) fn flag(&mut self, key: &str) -> bool {
        let position = self.lone.iter().position(|known| *known == key);
        position
            .map(|position| self.lone.remove(position))
            .is_some()
    }

    /// The value of a key that must be there.
    pub(super) fn require(&mut self, key: &str) -> Result<&'a str, String> {
        self.take(key)
            .ok_or_else(|| format!("key `{key}` is missing"))
    }

    /// Refuses what nobody has asked for; `known` are the keys that the policy has.
    pub(super) fn finish(self, known: &[&str]) -> Result<(), String> {
        if let Some(value) = self.value {
            return Err(format!("it takes no bare value, but `{value}` was given"));
        }
        if let Some(item) = self.lone.first() {
            return Err(format!("`{item}` is not of the form key=value"));
        }
        match self.pairs.first() {
            None => Ok(()),
            Some((key, _)) if known.is_empty() => {
                Err(format!("key `{key}` is unknown; this policy has no keys"))
            }
            Some((key, _)) => Err(format!(
                "key `{key}` is unknown; known are {}",
                known.join(", ")
            )),
        }
    }
}

/// Refuses parameters, naming the policy as it would be written.
pub(super) fn refused(spec: String) -> impl FnOnce(String) -> Error {
    |problem| Error::Policy { spec, problem }
}

/// Reads a number that a policy compares with; its constructor judges the range.
pub(super) fn threshold(key: &str, text: &str) -> Result<f64, String> {
    number(key, text, "number")
}

/// Reads a count or a depth; the policy's constructor judges the range.
pub(super) fn whole_number(key: &str, text: &str) -> Result<usize, String> {
    number(key, text, "whole number")
}

fn number<T: FromStr<Err: Display>>(key: &str, text: &str, what: &str) -> Result<T, String> {
    text.parse()
        .map_err(|error| format!("key `{key}`: `{text}` is not a {what}: {error}"))
}

/// Refuses a threshold that no quantity above 0 can be held against.
pub(super) fn check_positive(key: &str, value: f64) -> Result<(), String> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(format!(
        "key `{key}`: {value} is not a positive finite number"
    ))
}

/// How many exits must fulfil a condition, which is at least one.
pub(super) fn patience(t: usize) -> Result<NonZeroUsize, String> {
    let refusal = "key `t`: 0 would always exit at the first exit; use fixed:1 for that";
    NonZeroUsize::new(t).ok_or_else(|| refusal.to_owned())
}
