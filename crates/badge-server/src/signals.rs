//! What the system asks of the process: an end, or its models anew.

use std::sync::Arc;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;

use crate::error::{Error, Result};
use crate::serve::{Listeners, serve};
use crate::server::Server;

/// Signals that are waited for.
#[cfg(unix)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// Signals that are waited for.
#[cfg(not(unix))]
pub(crate) struct Signals;

impl Signals {
    /// Starts to wait for them: from here on none of them ends the process by itself.
    #[cfg(unix)]
    pub(crate) fn catch() -> Result<Self> {
        let catch = |kind| {
            signal(kind).map_err(|source| Error::System {
                what: "a signal handler",
                source,
            })
        };
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hang_up: catch(SignalKind::hangup())?,
        })
    }

    /// Serves until asked to end; the second time waits for nobody.
    #[cfg(unix)]
    pub(crate) async fn serve(self, server: Arc<Server>, listeners: Listeners) {
        let Self {
            mut terminate,
            mut interrupt,
            mut hang_up,
        } = self;
        let reloading = Arc::clone(&server);
        let reload = async move {
            while hang_up.recv().await.is_some() {
                let server = Arc::clone(&reloading);
                tracing::info!("loading all models anew");
                // Each model that is not loaded is told of where it happens.
                let _ = spawn_blocking(move || server.catalog.reload()).await;
            }
        };
        let (ask, mut asked) = tokio::sync::watch::channel(0_u32);
        let mut again = asked.clone();
        let count = async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                ask.send_modify(|count| *count += 1);
            }
        };
        let stop = async move {
            let _ = asked.wait_for(|count| *count >= 1).await;
        };
        tokio::select! {
            () = serve(server, listeners, stop) => {}
            () = reload => {}
            () = count => {}
            _ = again.wait_for(|count| *count >= 2) => {
                tracing::warn!("asked twice to end: requests are cut off");
            }
        }
    }

    /// Starts to wait for them.
    #[cfg(not(unix))]
    pub(crate) fn catch() -> Result<Self> {
        Ok(Self)
    }

    /// Serves until interrupted.
    #[cfg(not(unix))]
    pub(crate) async fn serve(self, server: Arc<Server>, listeners: Listeners) {
        let stop = async {
            let _ = tokio::signal::ctrl_c().await;
        };
        serve(server, listeners, stop).await;
    }
}
