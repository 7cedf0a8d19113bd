//! Connections of HTTP/2, which carry many requests at once and stay open between them.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Patience, accept, cut_off, patient};

/// How long a client that is told to go may take when it has nothing on its way: time for what was
/// written to be sent, no more, as it may never have said a word.
const FAREWELL: Duration = Duration::from_millis(500);

/// How often a client that says nothing is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_mins(1);

/// How long it may take to say so.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Accepts connections until told to close, and gives those that are open time to end.
pub(super) async fn listen(
    listener: TcpListener,
    app: Router,
    mut closed: watch::Receiver<bool>,
    patience: Patience,
) {
    let (leave, leaving) = watch::channel(false);
    while let Some(stream) = accept(&listener, &mut closed).await {
        let connection = connection(stream, app.clone(), leaving.clone(), patience);
        tokio::spawn(connection);
    }
    drop((listener, leaving));
    let _ = leave.send(true);
    // Each connection holds a receiver until its end.
    if timeout(patience.drain, leave.closed()).await.is_err() {
        cut_off(patience.drain);
    }
}

/// Serves one connection until its client goes, or the server does.
async fn connection(
    stream: TcpStream,
    app: Router,
    mut leaving: watch::Receiver<bool>,
    patience: Patience,
) {
    let stream = patient(stream, patience);
    let activity = Activity::default();
    let service = {
        let activity = activity.clone();
        let app = TowerToHyperService::new(app);
        service_fn(move |request: Request<Incoming>| {
            let busy = activity.begin();
            let answered = app.call(request.map(Body::new));
            async move {
                let _busy = busy;
                answered.await
            }
        })
    };
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = serving.as_mut() => return told(ended),
        _ = leaving.wait_for(|leaving| *leaving) => {}
        () = activity.never_within(patience.head) => {}
    }
    // Says which requests are the last, and ends when they are answered; before a client has
    // introduced itself, or while it does not answer, it would wait forever.
    serving.as_mut().graceful_shutdown();
    tokio::select! {
        ended = serving.as_mut() => told(ended),
        () = activity.none_for(FAREWELL) => {}
    }
}

fn told(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}

/// The requests of one connection that are on their way.
#[derive(Debug, Clone)]
struct Activity {
    state: Arc<watch::Sender<Requests>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Requests {
    on_their_way: usize,
    has_been_one: bool,
}

/// A request on its way, until it is dropped.
#[derive(Debug)]
struct Busy(Arc<watch::Sender<Requests>>);

impl Default for Activity {
    fn default() -> Self {
        let state = Arc::new(watch::channel(Requests::default()).0);
        Self { state }
    }
}

impl Activity {
    fn begin(&self) -> Busy {
        self.state.send_modify(|requests| {
            requests.on_their_way += 1;
            requests.has_been_one = true;
        });
        Busy(Arc::clone(&self.state))
    }

    /// Comes back when there has been no request within this time; not at all if there has.
    async fn never_within(&self, time: Duration) {
        sleep(time).await;
        if self.state.borrow().has_been_one {
            std::future::pending::<()>().await;
        }
    }

    /// Comes back when there has been no request on its way for this time.
    async fn none_for(&self, time: Duration) {
        let mut changes = self.state.subscribe();
        // The sender is ours.
        let _ = loop {
            let none = changes.wait_for(|requests| requests.on_their_way == 0);
            let _ = none.await;
            let one = changes.wait_for(|requests| requests.on_their_way > 0);
            if let Err(late) = timeout(time, one).await {
                break late;
            }
        };
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|requests| requests.on_their_way -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nothing_is_over_while_a_request_is_on_its_way() {
        let activity = Activity::default();
        let second = Duration::from_secs(1);
        assert!(
            timeout(second * 2, activity.never_within(second))
                .await
                .is_ok()
        );
        assert!(timeout(second * 2, activity.none_for(second)).await.is_ok());
        let busy = activity.begin();
        assert!(
            timeout(second * 9, activity.none_for(second))
                .await
                .is_err()
        );
        drop(busy);
        assert!(timeout(second * 2, activity.none_for(second)).await.is_ok());
        assert!(
            timeout(second * 9, activity.never_within(second))
                .await
                .is_err()
        );
    }
}
