//! Listening: connections in, and an orderly end.

mod streams;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;

use crate::error::{Error, Result};
use crate::http;
use crate::server::Server;
use crate::settings::Settings;
use crate::signals::Signals;
use crate::traces::TraceSettings;

/// How long to wait when the system has no room for another connection.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(50);

/// How long threads may take to end when all is answered.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Loads the models and serves them until the system asks for an end (SIGTERM, SIGINT). SIGHUP
/// loads all models anew; a second request for an end waits for nobody.
///
/// # Errors
/// Names the flag, address, file or tensor that is wrong.
pub fn run(settings: Settings) -> Result<()> {
    let start = Instant::now();
    let runtime = Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Error::System {
        what: "threads for connections",
        source,
    })?;
    let served = runtime.block_on(run_until_signal(settings, start));
    runtime.shutdown_timeout(END_TIMEOUT);
    served
}

async fn run_until_signal(settings: Settings, start: Instant) -> Result<()> {
    settings.check()?;
    let signals = Signals::catch()?;
    // Before the models are loaded: a port that is taken is told at once.
    let listeners = Listeners::bind(&settings).await?;
    let loaded = spawn_blocking(|| Server::load(settings)).await;
    let server = loaded.map_err(|error| Error::System {
        what: "a thread to load models",
        source: io::Error::other(error),
    })??;
    tracing::info!(
        address = %listeners.address(),
        grpc = listeners.grpc_address().map(tracing::field::display),
        admin = listeners.admin_address().map(tracing::field::display),
        traces = server.settings.traces.as_ref().map(TraceSettings::collector),
        ready_ms = start.elapsed().as_millis() as u64,
        "ready"
    );
    signals.serve(server, listeners).await;
    tracing::info!("gone");
    Ok(())
}

/// Sockets that are bound, so that their ports are known before anything is served.
#[derive(Debug)]
pub struct Listeners {
    main: TcpListener,
    grpc: Option<TcpListener>,
    admin: Option<TcpListener>,
}

impl Listeners {
    /// Binds the addresses of the settings.
    ///
    /// # Errors
    /// Names the address.
    pub async fn bind(settings: &Settings) -> Result<Self> {
        Ok(Self {
            admin: bind_if(settings.admin_address).await?,
            grpc: bind_if(settings.grpc_address).await?,
            main: bind(settings.address).await?,
        })
    }

    /// Where inference is served.
    pub fn address(&self) -> SocketAddr {
        address(&self.main)
    }

    /// Where gRPC is served.
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc.as_ref().map(address)
    }

    /// Where policies and models can be changed.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(address)
    }
}

fn address(listener: &TcpListener) -> SocketAddr {
    listener
        .local_addr()
        .expect("a bound socket has an address")
}

/// Serves until `stop` comes; then readiness ends, the listeners close after the delay that
/// balancers need, and what has been accepted is answered within the time for it.
pub async fn serve(server: Arc<Server>, listeners: Listeners, stop: impl Future<Output = ()>) {
    let (closing, closed) = watch::channel(false);
    let patience = Patience {
        head: server.settings.limits.head_timeout,
        answer: server.settings.limits.answer_timeout,
        drain: server.settings.drain_timeout,
    };
    let mut tasks = JoinSet::new();
    let app = http::app(Arc::clone(&server));
    tasks.spawn(listen(listeners.main, app, closed.clone(), patience));
    if let Some(listener) = listeners.grpc {
        let app = http::grpc(Arc::clone(&server));
        tasks.spawn(streams::listen(listener, app, closed.clone(), patience));
    }
    if let Some(listener) = listeners.admin {
        let app = http::admin(Arc::clone(&server));
        tasks.spawn(listen(listener, app, closed, patience));
    }
    stop.await;
    server.drain();
    let delay_ms = server.settings.shutdown_delay.as_millis() as u64;
    tracing::info!(delay_ms, "going away: no longer ready");
    sleep(server.settings.shutdown_delay).await;
    // The receivers live as long as their tasks.
    let _ = closing.send(true);
    tasks.join_all().await;
    if let Some(traces) = &server.traces {
        traces.flush().await;
    }
}

/// How long clients are waited for.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// For the head of a request, and while a connection says nothing.
    head: Duration,
    /// While a client takes nothing of what is written to it.
    answer: Duration,
    /// For what was accepted, once the listener has closed.
    drain: Duration,
}

async fn bind(address: SocketAddr) -> Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| Error::Listen { address, source })
}

async fn bind_if(address: Option<SocketAddr>) -> Result<Option<TcpListener>> {
    match address {
        Some(address) => bind(address).await.map(Some),
        None => Ok(None),
    }
}

/// Accepts connections until told to close, and gives those that are open time to end.
async fn listen(
    listener: TcpListener,
    app: Router,
    mut closed: watch::Receiver<bool>,
    patience: Patience,
) {
    let connections = GracefulShutdown::new();
    while let Some(stream) = accept(&listener, &mut closed).await {
        connect(stream, &app, &connections, patience);
    }
    drop(listener);
    let gone = timeout(patience.drain, connections.shutdown()).await;
    if gone.is_err() {
        cut_off(patience.drain);
    }
}

/// The next connection, or none where the listener is told to close.
async fn accept(listener: &TcpListener, closed: &mut watch::Receiver<bool>) -> Option<TcpStream> {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closed.wait_for(|closed| *closed) => return None,
        };
        match accepted {
            Ok((stream, _)) => return Some(stream),
            Err(error) => endure(&error).await,
        }
    }
}

fn cut_off(drain: Duration) {
    let seconds = drain.as_secs();
    tracing::warn!(
        seconds,
        "requests were cut off: they took longer than --drain-timeout-s"
    );
}

/// A connection that sends at once, and breaks off when nothing of it is taken for too long.
fn patient(stream: TcpStream, patience: Patience) -> Pin<Box<TimeoutStream<TcpStream>>> {
    // Answers are small: waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(patience.answer));
    Box::pin(stream)
}

/// Serves one connection in a task of its own.
fn connect(stream: TcpStream, app: &Router, connections: &GracefulShutdown, patience: Patience) {
    let stream = patient(stream, patience);
    let service = TowerToHyperService::new(app.clone());
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .serve_connection(TokioIo::new(stream), service);
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection broke off");
        }
    });
}

/// A client that goes before it is accepted is no trouble of ours; too many open files are, until
/// some are closed.
async fn endure(error: &io::Error) {
    let theirs = [
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::ConnectionRefused,
    ];
    if !theirs.contains(&error.kind()) {
        tracing::warn!(%error, "cannot accept connections for a moment");
        sleep(NO_ROOM_PAUSE).await;
    }
}
