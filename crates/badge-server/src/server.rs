//! What all routes share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::tokenization::TokenizationPool;
use crate::traces::Traces;

/// How often it is looked whether a controller has come.
const IDLE_TICK: Duration = Duration::from_millis(100);

/// Ticks as long as there is a server.
fn tick_on(server: &Weak<Server>) {
    while let Some(server) = server.upgrade() {
        let next = server.tick();
        drop(server);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// A server with its models loaded: what all routes share.
#[derive(Debug)]
pub struct Server {
    pub(crate) settings: Settings,
    pub(crate) catalog: Catalog,
    pub(crate) tokenization: TokenizationPool,
    pub(crate) metrics: Arc<Metrics>,
    /// Where spans of requests go, if anywhere.
    pub(crate) traces: Option<Traces>,
    pub(crate) start: Instant,
    draining: AtomicBool,
}

impl Server {
    /// Loads all models.
    ///
    /// # Errors
    /// Names the flag, or the file, key or tensor of a model that is wrong.
    pub fn load(settings: Settings) -> Result<Arc<Self>> {
        let start = Instant::now();
        settings.check()?;
        let metrics = Arc::new(Metrics::new());
        let traces = match &settings.traces {
            Some(traces) => Some(Traces::start(traces, &metrics)?),
            None => None,
        };
        let tokenization = TokenizationPool::start(settings.tokenization_workers)?;
        let catalog = Catalog::load(&settings.models, &settings.model, &metrics)?;
        let server = Arc::new(Self {
            settings,
            catalog,
            tokenization,
            metrics,
            traces,
            start,
            draining: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&server);
        thread::Builder::new()
            .name("governor".to_owned())
            .spawn(move || tick_on(&weak))
            .map_err(|source| Error::System {
                what: "a thread for the controller",
                source,
            })?;
        Ok(server)
    }

    /// Lets the controllers of all models have their ticks. Returns when the next one is due.
    fn tick(&self) -> Instant {
        let now = Instant::now();
        let mut next = now + IDLE_TICK;
        for model in self.catalog.models().iter() {
            model.station.queue.sweep(now);
            if let Some(governor) = model.station.points.governor() {
                if governor.next_tick() <= now {
                    model.station.tick(&governor, now);
                }
                next = next.min(governor.next_tick());
            }
        }
        next
    }

    /// What the server was built with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether requests are welcome: every model answers, and the server is not going away.
    pub fn is_ready(&self) -> bool {
        !self.is_draining() && self.catalog.is_ready()
    }

    /// Ends readiness; what is accepted is still answered.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the server is going away.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}
