//! Priority classes, and how much of the load each of them bears.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How much a request is to be spared when depth is reduced.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Work that nobody waits for: it gives depth away first.
    Batch,
    /// Everything that says nothing else.
    #[default]
    Normal,
    /// Kept deep for longest.
    High,
}

/// One value for every class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PerClass<T> {
    /// That of [`Class::Batch`].
    pub batch: T,
    /// That of [`Class::Normal`].
    pub normal: T,
    /// That of [`Class::High`].
    pub high: T,
}

impl Class {
    /// Every class, the one that is spared least first.
    pub const ALL: [Self; 3] = [Self::Batch, Self::Normal, Self::High];

    /// κ: the depth that the class gives away for each unit that the command gives away.
    pub const fn share(self) -> f64 {
        match self {
            Self::Batch => 1.5,
            Self::Normal => 1.0,
            Self::High => 0.5,
        }
    }

    /// The class's depth under the command `depth`: `1 - κ (1 - d)`, between `floor` and 1.
    pub fn depth(self, depth: f64, floor: f64) -> f64 {
        (1.0 - self.share() * (1.0 - depth)).clamp(floor, 1.0)
    }

    /// The time in which the class is answered, in units of the SLO. What nobody waits for is not
    /// held to the SLO, but gets its turn.
    pub const fn patience(self) -> f64 {
        match self {
            Self::Batch => 20.0,
            Self::Normal | Self::High => 1.0,
        }
    }

    /// The name in requests, flags and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Class {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|class| class.name() == name);
        found.ok_or_else(|| format!("class `{name}` is unknown; use one of batch, normal, high"))
    }
}

impl<T> PerClass<T> {
    /// The values that `of` gives for each class.
    pub fn from_fn(of: impl Fn(Class) -> T) -> Self {
        Self {
            batch: of(Class::Batch),
            normal: of(Class::Normal),
            high: of(Class::High),
        }
    }

    /// That of a class.
    pub fn of(&self, class: Class) -> &T {
        match class {
            Class::Batch => &self.batch,
            Class::Normal => &self.normal,
            Class::High => &self.high,
        }
    }

    /// That of a class, to be changed.
    pub fn of_mut(&mut self, class: Class) -> &mut T {
        match class {
            Class::Batch => &mut self.batch,
            Class::Normal => &mut self.normal,
            Class::High => &mut self.high,
        }
    }
}

impl PerClass<f64> {
    /// The sum over the classes.
    pub fn total(&self) -> f64 {
        self.batch + self.normal + self.high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_batch_class_reaches_the_floor_first_and_the_high_class_last() {
        for step in 0..=65 {
            let depth = 1.0 - 0.01 * f64::from(step);
            let of = PerClass::from_fn(|class| class.depth(depth, 0.35));
            assert!(of.batch <= of.normal && of.normal <= of.high, "{of:?}");
            assert!((of.normal - depth).abs() < 1e-12, "{of:?}");
        }
        assert_eq!(Class::Batch.depth(0.5, 0.35), 0.35);
        assert_eq!(Class::High.depth(0.35, 0.35), 0.675);
    }

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for class in Class::ALL {
            assert_eq!(class.to_string().parse(), Ok(class));
        }
        let error = "urgent".parse::<Class>().unwrap_err();
        assert!(
            error.contains("`urgent`") && error.contains("high"),
            "{error}"
        );
    }
}
