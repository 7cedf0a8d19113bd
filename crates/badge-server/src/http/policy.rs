//! What a model leaves by: read by anyone, changed over the admin listener.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Query, Request, State};
use badge_core::policy::PolicySpec;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{App, Failure, body};
use crate::metrics::RecentAnswer;
use crate::model::Model;
use crate::operating_points::{OperatingPoints, PolicyTerms, Row};
use crate::refusal::Refusal;

/// Which model a question is about.
#[derive(Debug, Deserialize)]
pub(crate) struct Which {
    model: Option<String>,
}

/// `GET /v1/policy`: what every model runs where a request does not say.
pub(crate) async fn read(State(server): App) -> Json<Value> {
    let models = server.catalog.models();
    Json(json!({"models": models.iter().map(state).collect::<Value>()}))
}

fn state(model: &Arc<Model>) -> Value {
    let points = &model.station.points;
    let governor = points.governor();
    let promise = points.promise();
    json!({
        "model": model.source.name,
        "policy": points.current_policy().spec().to_string(),
        "mode": if governor.is_some() { "controlled" } else { "chosen" },
        "slo_ms": promise.slo.map(|slo| slo.as_secs_f64() * 1e3),
        "accuracy_floor": governor.as_ref().and_then(|governor| governor.accuracy_floor()),
        "level": promise.level,
        "expected_accuracy": promise.score,
        "command": governor.as_ref().map(|governor| governor.command()),
        "ladder": governor.as_ref().map(|governor| governor.ladder().clone()),
        "audit": governor.as_ref().map(|governor| governor.audit()),
        "calibrated": points.calibration().map(|c| c.policy.to_string()),
        "certificate": points.calibration()
            .and_then(|calibration| calibration.certificate.as_ref())
            .map(badge_core::calibration::Certificate::promise),
    })
}

/// `GET /v1/policy/frontier`: the policies of a model's calibration that may be used in each
/// other's place, the slowest first.
pub(crate) async fn frontier(
    State(server): App,
    Query(which): Query<Which>,
) -> Result<Json<Value>, Failure> {
    let model = server.catalog.model(which.model.as_deref())?;
    let blocks = model.facts.config.backbone.blocks as f64;
    let points = &model.station.points;
    let row = |row: &Row| {
        json!({
            "policy": row.policy.spec().to_string(),
            "score": row.score,
            "mean_exit": row.mean_exit,
            "layer_speedup": blocks / row.mean_exit,
            "certified": row.certified,
        })
    };
    Ok(Json(json!({
        "model": model.source.name,
        "metric": points.calibration().map(|calibration| calibration.metric.as_str()),
        "points": points.rows().iter().map(row).collect::<Value>(),
    })))
}

/// The body of `PUT /v1/policy`: a policy, or a promise that a controller is to keep.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyChange {
    model: Option<String>,
    policy: Option<Wanted>,
    slo_ms: Option<f64>,
    accuracy_floor: Option<f64>,
}

/// A policy as text, `"calibrated"`, or what a calibrated point is to keep.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "`policy` is a policy as text, \"calibrated\", or an object with `speedup` or \
                 `min_accuracy`"
)]
enum Wanted {
    Text(String),
    Terms(PolicyTerms),
}

/// `PUT /v1/policy`: what a model runs from the next text on.
pub(crate) async fn change(State(server): App, request: Request) -> Result<Json<Value>, Failure> {
    let change: PolicyChange = body::json(request, &server.settings.limits).await?;
    let model = server.catalog.model(change.model.as_deref())?;
    let points = &model.station.points;
    let before = points.current_policy();
    match (change.policy, change.slo_ms) {
        (Some(wanted), None) if change.accuracy_floor.is_none() => {
            points.set(points.standing(&wanted.terms(points))?);
        }
        (None, Some(slo_ms)) => govern(points, slo_ms, change.accuracy_floor)?,
        _ => {
            let problem = "give `policy`, or `slo_ms` and perhaps `accuracy_floor`";
            return Err(Refusal::Validation(problem.to_owned()).into());
        }
    }
    model.station.metrics.changed_by_api();
    let policy = points.current_policy();
    tracing::info!(
        model = model.source.name,
        before = %before.spec(),
        policy = %policy.spec(),
        "policy changed"
    );
    Ok(Json(state(&model)))
}

impl Wanted {
    fn terms(self, points: &OperatingPoints) -> PolicyTerms {
        let spec = match self {
            Self::Terms(terms) => return terms,
            Self::Text(text) if text == "calibrated" => {
                let calibrated = points.calibration().map(|c| c.policy.clone());
                calibrated.unwrap_or(PolicySpec::Full).to_string()
            }
            Self::Text(text) => text,
        };
        PolicyTerms {
            spec: Some(spec),
            ..PolicyTerms::default()
        }
    }
}

fn govern(points: &OperatingPoints, slo_ms: f64, floor: Option<f64>) -> Result<(), Refusal> {
    let slo = Duration::try_from_secs_f64(slo_ms / 1e3);
    let slo = slo.map_err(|_| Refusal::Validation(format!("`slo_ms`: {slo_ms} is no time")))?;
    if floor.is_some_and(|floor| !(0.0..=1.0).contains(&floor)) {
        let problem = "`accuracy_floor`: a score lies between 0 and 1";
        return Err(Refusal::Validation(problem.to_owned()));
    }
    let governed = points.govern(slo, floor);
    governed.map_err(|error| Refusal::Validation(format!("`slo_ms`: {error}")))
}

/// How far back `/v1/status` looks.
const WINDOW: Duration = Duration::from_secs(5);

/// `GET /v1/status`: how a model does at this moment, for those who look.
pub(crate) async fn status(
    State(server): App,
    Query(which): Query<Which>,
) -> Result<Json<Value>, Failure> {
    let model = server.catalog.model(which.model.as_deref())?;
    let (station, now) = (&model.station, Instant::now());
    let window = WINDOW.min(now.saturating_duration_since(server.start));
    let latest = station.metrics.latest(now, window);
    let mut latencies: Vec<_> = latest
        .iter()
        .map(|a| a.latency.as_secs_f64() * 1e3)
        .collect();
    latencies.sort_by(f64::total_cmp);
    let quantile = |q: f64| {
        let last = latencies.len().checked_sub(1)?;
        Some(latencies[(q * last as f64).round() as usize])
    };
    let depth = |answer: &RecentAnswer| answer.depth.0;
    let mean_depth = latest.iter().map(depth).sum::<usize>() as f64 / latest.len() as f64;
    let pressure = station.queue.pressure(now);
    let [shed, expired, abandoned] = station.metrics.losses();
    let exits = station.metrics.exits();
    let promise = station.points.promise();
    let exit = |(depth, count): &(badge_core::exit::Depth, u64)| json!([depth, count]);
    Ok(Json(json!({
        "model": model.source.name,
        "uptime_s": server.start.elapsed().as_secs_f64(),
        "ready": server.is_ready(),
        "window_s": window.as_secs_f64(),
        "answers_per_s": latest.len() as f64 / window.as_secs_f64().max(1e-3),
        "latency_ms": {"p50": quantile(0.5), "p99": quantile(0.99)},
        "mean_depth": Some(mean_depth).filter(|mean| mean.is_finite()),
        "num_layers": model.facts.config.backbone.blocks,
        "exits": exits.iter().map(exit).collect::<Value>(),
        "queue": {
            "requests": pressure.requests,
            "tokens": pressure.tokens,
            "oldest_ms": pressure.oldest.as_secs_f64() * 1e3,
        },
        "shed": shed,
        "expired": expired,
        "abandoned": abandoned,
        "policy": station.points.current_policy().spec().to_string(),
        "level": promise.level,
        "slo_ms": promise.slo.map(|slo| slo.as_secs_f64() * 1e3),
    })))
}
