//! Serves the admin API on the operators' listener.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::layers::access::Peer;
use super::layers::quota::Quota;
use super::routes::{router, writes};
use super::state::ApiState;
use crate::control::Control;
use crate::types::Repeats;

/// Most simultaneous connections.
const MAX_CONNECTIONS: usize = 256;
/// Longest time for a request head, and longest idle time of a connection.
const HEADER_TIME: Duration = Duration::from_secs(10);

/// The listener for operators.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    /// True once the gateway accepts no new connections.
    draining: Arc<AtomicBool>,
}

impl Admin {
    /// Serves on a listening socket.
    ///
    /// # Errors
    /// If the socket cannot be used.
    pub fn new(socket: std::net::TcpListener) -> Result<Self, String> {
        let listener = TcpListener::from_std(socket);
        let listener = listener.map_err(|error| format!("the admin address cannot be used: {error}"))?;
        Ok(Self { listener, draining: Arc::default() })
    }

    /// The bound address; `None` if the operating system reports none.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// The flag that makes `/readyz` respond with 503 while it is set.
    #[must_use]
    pub fn draining(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.draining)
    }

    /// Accepts and serves connections. Never returns.
    pub async fn serve(self, control: Arc<Control>) {
        let state = ApiState {
            control: Arc::clone(&control),
            draining: Arc::clone(&self.draining),
            writes: Arc::new(writes()),
            requests: Arc::new(Quota::of_requests()),
            failures: Arc::new(Quota::of_failures()),
        };
        let router = TowerToHyperService::new(router(state));
        let (places, mut failures) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), Repeats::default());
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if let Some(more) = failures.should_log(control.now()) {
                        tracing::warn!(%error, more, "cannot accept on the admin address; trying again");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let router = router.clone();
            tokio::spawn(async move {
                let service = service_fn(move |mut request: Request<Incoming>| {
                    request.extensions_mut().insert(Peer(peer.ip()));
                    let response = router.call(request);
                    async move {
                        let mut response = response.await?;
                        let no_store = HeaderValue::from_static("no-store");
                        response.headers_mut().entry(header::CACHE_CONTROL).or_insert(no_store);
                        Ok::<_, std::convert::Infallible>(response)
                    }
                });
                let mut builder = http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
                let _ = builder.serve_connection(TokioIo::new(stream), service).await; // affects only this client
                drop(place);
            });
        }
    }
}
