//! What a request says about how it is to be treated, in its body and its headers.

use std::time::Duration;

use axum::http::HeaderMap;
use badge_core::controller::Class;
use badge_tasks::Overlong;
use serde::Deserialize;

use super::observation::Arrival;
use crate::operating_points::PolicyTerms;
use crate::refusal::Refusal;
use crate::request::Terms;
use crate::settings::Limits;

/// The fields that every route of texts takes beside its own.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct CommonFields {
    /// The model, where there are several.
    pub(crate) model: Option<String>,
    pub(crate) truncate: Option<bool>,
    #[serde(default)]
    truncation_direction: Direction,
    policy: Option<PolicyField>,
    deadline_ms: Option<f64>,
    priority: Option<Class>,
}

/// `policy`: a policy as text, or an object.
#[derive(Debug, Clone, Deserialize)]
#[serde(
    untagged,
    expecting = "`policy` is a policy as text, such as \"dge:tau=0.3,t=2\", or an \
    object with `spec`, `speedup`, `min_accuracy`, `max_depth`, `deadline_ms` or `priority`"
)]
enum PolicyField {
    Text(String),
    Object(PolicyTerms),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum Direction {
    #[default]
    #[serde(alias = "right")]
    Right,
    #[serde(alias = "left")]
    Left,
}

impl CommonFields {
    /// A policy and nothing else.
    pub(crate) fn of_policy(policy: PolicyTerms) -> Self {
        Self {
            policy: Some(PolicyField::Object(policy)),
            ..Self::default()
        }
    }

    /// The policy that is asked for.
    pub(crate) fn policy(&self) -> PolicyTerms {
        match &self.policy {
            None => PolicyTerms::default(),
            Some(PolicyField::Object(terms)) => terms.clone(),
            Some(PolicyField::Text(spec)) => PolicyTerms {
                spec: Some(spec.clone()),
                ..PolicyTerms::default()
            },
        }
    }

    /// How the texts are to be treated; `arrival` is when the request came.
    pub(crate) fn terms(
        &self,
        headers: &HeaderMap,
        limits: &Limits,
        arrival: &Arrival,
    ) -> Result<Terms, Refusal> {
        let policy = self.policy();
        let from_body = match policy.deadline_ms.or(self.deadline_ms) {
            Some(ms) => Some(milliseconds(ms, "deadline_ms")?),
            None => None,
        };
        let patience = match from_body {
            Some(patience) => Some(patience),
            None => patience_of(headers)?.or(limits.default_deadline),
        };
        let truncate = self.truncate.unwrap_or(limits.auto_truncate);
        Ok(Terms {
            overlong: match (truncate, self.truncation_direction) {
                (false, _) => Overlong::Refuse,
                (true, Direction::Right) => Overlong::CutEnd,
                (true, Direction::Left) => Overlong::CutBeginning,
            },
            class: policy.priority.or(self.priority).unwrap_or_default(),
            arrival: arrival.at,
            patience,
            notes: arrival.notes.clone(),
        })
    }
}

fn milliseconds(ms: f64, field: &str) -> Result<Duration, Refusal> {
    let seconds = ms / 1e3;
    let duration = Duration::try_from_secs_f64(seconds).ok();
    // A year is as good as no deadline, and adds to any clock.
    let duration = duration.filter(|d| *d <= Duration::from_hours(366 * 24));
    duration
        .ok_or_else(|| Refusal::Validation(format!("`{field}`: {ms} is no number of milliseconds")))
}

/// How long the caller waits, from the first header that says so.
fn patience_of(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let text = |name| {
        let value = headers.get(name)?;
        Some(value.to_str().unwrap_or_default().trim())
    };
    for name in ["x-request-deadline-ms", "x-envoy-expected-rq-timeout-ms"] {
        if let Some(value) = text(name) {
            let ms = value.parse().map_err(|_| {
                Refusal::Validation(format!("header {name}: `{value}` is no number"))
            })?;
            return milliseconds(ms, name).map(Some);
        }
    }
    let Some(value) = text("grpc-timeout") else {
        return Ok(None);
    };
    let timeout = grpc_timeout(value).ok_or_else(|| {
        Refusal::Validation(format!(
            "header grpc-timeout: `{value}` is no time, as 100m is"
        ))
    });
    timeout.map(Some)
}

/// The time of a `grpc-timeout` header: at most eight digits and a unit.
pub(crate) fn grpc_timeout(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_hours(number),
        "M" => Duration::from_mins(number),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: &str) -> CommonFields {
        serde_json::from_str(json).unwrap()
    }

    fn terms(json: &str, headers: &[(&'static str, &str)]) -> Result<Terms, Refusal> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let limits = Limits::default();
        fields(json).terms(&headers.collect(), &limits, &Arrival::now())
    }

    #[test]
    fn the_first_deadline_that_is_given_counts() {
        let all = [("x-request-deadline-ms", "30"), ("grpc-timeout", "20m")];
        for (json, headers, ms) in [
            (r#"{"policy": {"deadline_ms": 50}}"#, &all[..], Some(50)),
            (r#"{"deadline_ms": 40}"#, &all[..], Some(40)),
            ("{}", &all[..], Some(30)),
            ("{}", &all[1..], Some(20)),
            ("{}", &[("x-envoy-expected-rq-timeout-ms", "15")], Some(15)),
            ("{}", &[], None),
        ] {
            let found = terms(json, headers).unwrap().patience;
            assert_eq!(found, ms.map(Duration::from_millis), "{json}");
        }
    }

    #[test]
    fn impossible_deadlines_are_refused_with_their_name() {
        for (json, headers, name) in [
            (r#"{"deadline_ms": -1}"#, &[][..], "deadline_ms"),
            (r#"{"deadline_ms": 1e300}"#, &[], "deadline_ms"),
            (
                "{}",
                &[("x-request-deadline-ms", "soon")],
                "x-request-deadline-ms",
            ),
            ("{}", &[("grpc-timeout", "m")], "grpc-timeout"),
            ("{}", &[("grpc-timeout", "999999999m")], "grpc-timeout"),
            ("{}", &[("grpc-timeout", "1é")], "grpc-timeout"),
        ] {
            let message = terms(json, headers).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn truncation_is_what_the_request_says_else_the_servers() {
        for (json, overlong) in [
            ("{}", Overlong::CutEnd),
            (r#"{"truncate": null}"#, Overlong::CutEnd),
            (r#"{"truncate": false}"#, Overlong::Refuse),
            (
                r#"{"truncation_direction": "Left"}"#,
                Overlong::CutBeginning,
            ),
            (
                r#"{"truncation_direction": "left"}"#,
                Overlong::CutBeginning,
            ),
        ] {
            assert_eq!(terms(json, &[]).unwrap().overlong, overlong, "{json}");
        }
    }

    #[test]
    fn a_policy_is_a_text_or_an_object() {
        let policy = fields(r#"{"policy": "fixed:3"}"#).policy();
        assert_eq!(policy.spec.as_deref(), Some("fixed:3"));
        let policy = fields(r#"{"policy": {"max_layer": 2}, "priority": "high"}"#);
        assert_eq!(policy.policy().max_depth, Some(2));
        let typo = serde_json::from_str::<CommonFields>(r#"{"policy": {"speed_up": 2}}"#);
        assert!(typo.unwrap_err().to_string().contains("`speedup`"));
    }

    #[test]
    fn times_of_grpc_have_six_units() {
        for (text, time) in [
            ("1H", Duration::from_hours(1)),
            ("2M", Duration::from_mins(2)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("6n", Duration::from_nanos(6)),
        ] {
            assert_eq!(grpc_timeout(text), Some(time));
        }
        assert!(
            ["", "m", "1", "1x", "-1m"]
                .map(grpc_timeout)
                .iter()
                .all(Option::is_none)
        );
    }
}
