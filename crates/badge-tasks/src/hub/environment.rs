//! The environment variables that Hugging Face's libraries agree on.

use std::fmt;
use std::path::{Path, PathBuf};

/// A secret that no message, log or debug print ever shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token; white space around it is removed, and nothing is no token.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        // A token that cannot stand in a header would make the client print the header.
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()))
            .then(|| Self(text.to_owned()))
    }

    /// The value of an `Authorization` header.
    pub(super) fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(hidden)")
    }
}

/// Where the hub and its cache are, and how to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubEnvironment {
    /// The folder of `models--ORG--NAME` and the like.
    pub cache: PathBuf,
    /// The server, without a slash at its end.
    pub endpoint: String,
    /// Sent to the server, and to it alone.
    pub token: Option<Token>,
    /// Whether the network must not be used.
    pub offline: bool,
}

impl HubEnvironment {
    /// The environment of this process.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// The environment that `variable` describes.
    ///
    /// `HF_HUB_CACHE` (or the older `HUGGINGFACE_HUB_CACHE`), else `hub` in `HF_HOME`, else
    /// `huggingface/hub` in `XDG_CACHE_HOME`, else in `.cache` of `HOME` is the cache;
    /// `HF_ENDPOINT` the server; `HF_TOKEN`, else the file `HF_TOKEN_PATH`, else `token` in the
    /// home is the token, unless `HF_HUB_DISABLE_IMPLICIT_TOKEN` is set; `HF_HUB_OFFLINE` forbids
    /// the network. An empty variable counts as none.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let user = set("HOME")
            .or_else(|| set("USERPROFILE"))
            .map_or_else(PathBuf::new, Into::into);
        let path = |name: &str| set(name).map(|value| expand(&value, &user));
        let home = path("HF_HOME").unwrap_or_else(|| {
            path("XDG_CACHE_HOME")
                .unwrap_or_else(|| user.join(".cache"))
                .join("huggingface")
        });
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .unwrap_or_else(|| home.join("hub"));
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let token = set("HF_TOKEN").or_else(|| std::fs::read_to_string(token_file).ok());
        let anonymous = is_true(set("HF_HUB_DISABLE_IMPLICIT_TOKEN"));
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        Self {
            cache,
            endpoint: endpoint.trim().trim_end_matches('/').to_owned(),
            token: token
                .filter(|_| !anonymous)
                .and_then(|text| Token::new(&text)),
            offline: is_true(set("HF_HUB_OFFLINE")),
        }
    }
}

/// Python's libraries take these words for true, in any case.
fn is_true(value: Option<String>) -> bool {
    let words = ["1", "on", "yes", "true"];
    value.is_some_and(|value| words.contains(&value.trim().to_ascii_lowercase().as_str()))
}

/// A path in which `~` stands for the user's home.
fn expand(value: &str, user: &Path) -> PathBuf {
    match value.strip_prefix("~/") {
        Some(rest) => user.join(rest),
        None => PathBuf::from(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> HubEnvironment {
        HubEnvironment::from_variables(|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn cache_is_found_in_the_documented_order() {
        let all = [
            ("HF_HUB_CACHE", "/a"),
            ("HUGGINGFACE_HUB_CACHE", "/b"),
            ("HF_HOME", "/c"),
            ("XDG_CACHE_HOME", "/d"),
            ("HOME", "/e"),
        ];
        let expected = [
            "/a",
            "/b",
            "/c/hub",
            "/d/huggingface/hub",
            "/e/.cache/huggingface/hub",
        ];
        for (skipped, expected) in expected.iter().enumerate() {
            assert_eq!(environment(&all[skipped..]).cache, Path::new(expected));
        }
        let home = environment(&[("HF_HOME", "~/hf"), ("HOME", "/e")]);
        assert_eq!(home.cache, Path::new("/e/hf/hub"));
        assert_eq!(
            environment(&[("HF_HOME", ""), ("HOME", "/e")]).cache,
            Path::new(expected[4])
        );
    }

    #[test]
    fn words_for_true_are_pythons() {
        for (word, offline) in [("1", true), ("YES", true), ("on", true), ("True", true)]
            .into_iter()
            .chain([("0", false), ("no", false), ("", false), ("off", false)])
        {
            assert_eq!(
                environment(&[("HF_HUB_OFFLINE", word)]).offline,
                offline,
                "{word}"
            );
        }
    }

    #[test]
    fn endpoint_loses_its_slash() {
        assert_eq!(environment(&[]).endpoint, "https://huggingface.co");
        let mirror = environment(&[("HF_ENDPOINT", "https://mirror.example/hf/")]);
        assert_eq!(mirror.endpoint, "https://mirror.example/hf");
    }

    #[test]
    fn token_comes_from_the_variable_or_the_file_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        std::fs::write(folder.path().join("token"), "from_file\n").unwrap();
        let token = |variables: &[(&str, &str)]| {
            environment(variables)
                .token
                .map(|token| token.authorization())
        };
        let bearer = |token: &str| Some(format!("Bearer {token}"));
        assert_eq!(token(&[("HF_HOME", home)]), bearer("from_file"));
        assert_eq!(
            token(&[("HF_HOME", home), ("HF_TOKEN", " direct ")]),
            bearer("direct")
        );
        assert_eq!(
            token(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]),
            None
        );
        assert_eq!(
            token(&[("HF_TOKEN", "two\r\nlines"), ("HF_HOME", "/none")]),
            None
        );
        let shown = format!("{:?}", environment(&[("HF_TOKEN", "secret")]));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
