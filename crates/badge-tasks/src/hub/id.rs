//! Names of repositories and where they are in URLs and in the cache.

use std::fmt;
use std::str::FromStr;

use super::cache::is_safe_path;
use crate::error::{Error, Result};

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepositoryKind {
    /// Weights.
    Model,
    /// Data.
    Dataset,
}

impl RepositoryKind {
    /// What stands before the name in a URL.
    pub(super) const fn url_prefix(self) -> &'static str {
        match self {
            Self::Model => "",
            Self::Dataset => "datasets/",
        }
    }

    /// What stands before the name of a folder of the cache.
    pub(super) const fn folder_prefix(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }
}

/// A repository of the hub at a revision: `NAME`, `ORG/NAME`, `ORG/NAME@REVISION`.
///
/// # Example
///
/// ```
/// let id: badge_tasks::HubId = "albert/albert-base-v2@v1.0".parse()?;
/// assert_eq!((id.name.as_str(), id.revision.as_str()), ("albert/albert-base-v2", "v1.0"));
/// # Ok::<(), badge_tasks::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubId {
    /// The name, with its organisation if it has one.
    pub name: String,
    /// A branch, a tag or a commit; `main` unless given.
    pub revision: String,
}

impl FromStr for HubId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |problem| {
            Err(Error::HubId {
                id: text.to_owned(),
                problem,
            })
        };
        let (name, revision) = text.split_once('@').unwrap_or((text, "main"));
        if name.starts_with(['.', '/', '~']) {
            return refuse("there is no such directory");
        }
        let parts: Vec<&str> = name.split('/').collect();
        if parts.len() > 2 {
            return refuse("there is no such directory, and a hub id has at most one `/`");
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        for part in parts {
            if part.is_empty() || part.len() > 96 || !part.chars().all(legal) {
                return refuse(
                    "a part is empty, too long or has characters other than a-z 0-9 - _ .",
                );
            }
            let ends = |c| matches!(c, '-' | '.');
            if part.contains("--")
                || part.contains("..")
                || part.starts_with(ends)
                || part.ends_with(ends)
            {
                return refuse("`--`, `..` and `-` or `.` at an end are not allowed");
            }
        }
        if !is_safe_path(revision) {
            return refuse("the revision is not the name of a branch, a tag or a commit");
        }
        Ok(Self {
            name: name.to_owned(),
            revision: revision.to_owned(),
        })
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)?;
        if self.revision != "main" {
            write!(formatter, "@{}", self.revision)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_round_trip() {
        for text in [
            "bert-base-uncased",
            "albert/albert-base-v2",
            "a/b@v1",
            "a/b@refs/pr/1",
        ] {
            assert_eq!(text.parse::<HubId>().unwrap().to_string(), text);
        }
        assert_eq!("a/b@main".parse::<HubId>().unwrap().to_string(), "a/b");
    }

    #[test]
    fn what_cannot_be_an_identifier_is_refused() {
        let cases = [
            "",
            "/abs/dir",
            "./dir",
            "~/dir",
            "a/b/c",
            "a//b",
            "a/",
            "a b",
            "a--b/c",
            "..",
            "a/..",
            "a/-b",
            "a/b.",
            "a/b@",
            "a/b@../../x",
            "a/b@x y",
            "a/b@/x",
            "ä/b",
        ];
        for text in cases {
            let error = text.parse::<HubId>().unwrap_err().to_string();
            assert!(
                error.contains("neither a directory nor a hub id"),
                "{text}: {error}"
            );
        }
    }
}
