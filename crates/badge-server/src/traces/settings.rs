//! Where spans go, and how many wait.

use std::time::Duration;

use axum::http::Uri;
use axum::http::uri::Authority;

use crate::error::{Error, Result};

/// Where spans go, and how many of them wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSettings {
    /// Where batches are posted.
    endpoint: String,
    /// The flag or variable that says so.
    setting: &'static str,
    /// The name of this service; `None` for that of the environment, else `badge`.
    pub service_name: Option<String>,
    /// Spans that wait; more are lost.
    pub queue_max: usize,
    /// Spans that are sent together.
    pub batch_max: usize,
    /// How long a span waits for others.
    pub delay: Duration,
}

impl TraceSettings {
    /// Spans go to a collector: OTLP's path is put behind its base URL. `setting` is the flag or
    /// variable that holds it.
    ///
    /// # Errors
    /// Names the setting if it is no such URL.
    pub fn of_base(setting: &'static str, url: &str) -> Result<Self> {
        let settings = Self::of_url(setting, url)?;
        if settings.endpoint.contains('?') {
            return Err(wrong(setting, url, "a base URL has no query"));
        }
        let base = settings.endpoint.trim_end_matches('/');
        Ok(Self {
            endpoint: format!("{base}/v1/traces"),
            ..settings
        })
    }

    /// Spans are posted to a URL as it is.
    ///
    /// # Errors
    /// Names the setting if it is no such URL.
    pub fn of_url(setting: &'static str, url: &str) -> Result<Self> {
        let settings = Self {
            endpoint: url.trim().to_owned(),
            setting,
            service_name: None,
            queue_max: 2048,
            batch_max: 512,
            delay: Duration::from_secs(5),
        };
        settings.check()?;
        Ok(settings)
    }

    /// Refuses what nothing can be sent by.
    ///
    /// # Errors
    /// Names the setting.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |problem| Err(wrong(self.setting, &self.endpoint, problem));
        let Ok(uri) = self.endpoint.parse::<Uri>() else {
            return wrong("it is no URL");
        };
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return wrong("it has to begin with http:// or https://");
        }
        let authority = uri.authority().map_or("", Authority::as_str);
        if authority.contains('@') {
            // Not even in this message.
            let problem = "keys belong into OTEL_EXPORTER_OTLP_HEADERS, not into the URL";
            let (setting, problem) = (self.setting, problem.to_owned());
            return Err(Error::Setting { setting, problem });
        }
        if self.batch_max == 0 || self.queue_max == 0 {
            return wrong("no span may wait for it");
        }
        Ok(())
    }

    /// The whole URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The same without its query, which may hold a key.
    pub(crate) fn collector(&self) -> &str {
        without_query(&self.endpoint)
    }

    /// Says that the exporter cannot be built so.
    pub(super) fn refused(&self, problem: String) -> Error {
        let setting = self.setting;
        Error::Setting { setting, problem }
    }
}

fn without_query(url: &str) -> &str {
    url.split_once('?').map_or(url, |(before, _)| before)
}

fn wrong(setting: &'static str, url: &str, problem: &str) -> Error {
    let url = without_query(url);
    let problem = format!("`{url}`: {problem}, as in http://localhost:4318");
    Error::Setting { setting, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAG: &str = "--otlp-endpoint";

    #[test]
    fn the_path_is_put_behind_a_base() {
        for (url, endpoint) in [
            ("http://localhost:4318", "http://localhost:4318/v1/traces"),
            (
                " http://localhost:4318/ ",
                "http://localhost:4318/v1/traces",
            ),
            (
                "https://a.example/otlp/",
                "https://a.example/otlp/v1/traces",
            ),
            ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
        ] {
            let settings = TraceSettings::of_base(FLAG, url).unwrap();
            assert_eq!(settings.endpoint(), endpoint);
        }
        let whole = TraceSettings::of_url("V", "http://a/b?c=d").unwrap();
        assert_eq!(whole.endpoint(), "http://a/b?c=d");
        assert_eq!(whole.collector(), "http://a/b");
    }

    #[test]
    fn what_is_no_url_is_refused_by_the_name_of_its_setting() {
        for url in [
            "",
            "localhost:4318",
            "/v1/traces",
            "ftp://localhost",
            "grpc://localhost:4317",
            "http://",
            "http://a b",
            "http://a/?key=secret",
            "http://user:secret@a",
        ] {
            let message = TraceSettings::of_base(FLAG, url).unwrap_err().to_string();
            assert!(message.starts_with("--otlp-endpoint: "), "{message}");
            assert!(!message.contains("secret"), "{message}");
        }
    }
}
