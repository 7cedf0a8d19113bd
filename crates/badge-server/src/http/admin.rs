//! Models that come and go while the server runs; only on the admin listener.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::{App, Failure, access, body};
use crate::error::Result as LoadResult;
use crate::model::{Model, ModelSource};
use crate::refusal::Refusal;
use crate::server::Server;

/// Lets a request pass that knows the admin token, if there is one.
pub(crate) async fn check_token(State(server): App, request: Request, next: Next) -> Response {
    if access::knows(request.headers(), server.settings.admin_token.as_ref()) {
        return next.run(request).await;
    }
    Failure::from(Refusal::Unauthorized).into_response()
}

/// `POST /v2/repository/index`.
pub(crate) async fn index(State(server): App) -> Json<Value> {
    let models = server.catalog.models();
    let entry = |model: &Arc<Model>| {
        let (state, reason) = if model.station.is_alive() {
            ("READY", "")
        } else {
            ("UNAVAILABLE", "the engine has stopped")
        };
        json!({"name": model.source.name, "version": "1", "state": state, "reason": reason})
    };
    Json(models.iter().map(entry).collect())
}

/// The body of `.../load`, which may be empty.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct LoadFields {
    #[serde(default)]
    parameters: LoadParameters,
}

#[derive(Debug, Default, Deserialize)]
struct LoadParameters {
    /// The model directory; none to load a model anew from where it came.
    directory: Option<PathBuf>,
}

/// `POST /v2/repository/models/{name}/load`.
pub(crate) async fn load(
    State(server): App,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<Value>, Failure> {
    let bytes = body::read(request, &server.settings.limits).await?;
    let fields: LoadFields = if bytes.is_empty() {
        LoadFields::default()
    } else {
        body::parse(&bytes)?
    };
    let answer = json!({"name": name, "state": "READY"});
    if let Some(directory) = fields.parameters.directory {
        let source = ModelSource::new(name, directory);
        change(&server, move |server| server.catalog.put(&source)).await?;
    } else {
        let old = server.catalog.model(Some(&name))?;
        change(&server, move |server| server.catalog.renew(&old)).await?;
    }
    Ok(Json(answer))
}

/// `POST /v2/repository/models/{name}/unload`.
pub(crate) async fn unload(
    State(server): App,
    Path(name): Path<String>,
) -> Result<Json<Value>, Failure> {
    let answer = json!({"name": name, "state": "UNAVAILABLE"});
    let removed = spawn_blocking(move || server.catalog.remove(&name)).await;
    removed.map_err(|_| Refusal::Backend("unloading failed".to_owned()))??;
    Ok(Json(answer))
}

/// `POST /admin/reload`: all models anew from where they came.
pub(crate) async fn reload(State(server): App) -> Result<StatusCode, Failure> {
    change(&server, |server| server.catalog.reload()).await?;
    Ok(StatusCode::OK)
}

/// `POST /admin/drain`: no longer ready; what comes is still answered.
pub(crate) async fn drain(State(server): App) -> StatusCode {
    server.drain();
    tracing::info!("no longer ready, as asked for");
    StatusCode::OK
}

/// Loads something on a thread that may wait.
async fn change(
    server: &Arc<Server>,
    change: impl FnOnce(&Server) -> LoadResult<()> + Send + 'static,
) -> Result<(), Refusal> {
    let server = Arc::clone(server);
    let changed = spawn_blocking(move || change(&server)).await;
    let failed = |_| Err(Refusal::Backend("loading failed".to_owned()));
    changed.map_or_else(failed, |changed| changed.map_err(Refusal::from))
}
