//! Serves HTTP on a listener of the control plane: the admin API, and the dashboard.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

use super::Control;
use crate::policy::client_address::client_network;
use crate::types::Repeats;

/// Most simultaneous connections.
const MAX_CONNECTIONS: usize = 256;
/// Most of them from one address, so that others find a place.
const MAX_OF_ADDRESS: usize = MAX_CONNECTIONS / 2;
/// Longest time in which a client takes none of a response.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// Longest time for a request head, and longest idle time of a connection.
const HEADER_TIME: Duration = Duration::from_secs(10);

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub(in crate::control) struct Peer(pub(in crate::control) IpAddr);

/// The number of connections from each address.
#[derive(Clone, Debug, Default)]
struct Addresses(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection that is counted until this is dropped.
struct Counted(Addresses, IpAddr);

impl Addresses {
    /// Counts a connection; `None` if there are too many from its address.
    fn enter(&self, address: IpAddr) -> Option<Counted> {
        let mut counts = self.0.lock();
        let count = counts.entry(address).or_default();
        if *count >= MAX_OF_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Counted(self.clone(), address))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.0.0.lock();
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

/// A listener of the control plane.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Serves on a listening socket.
    ///
    /// # Errors
    /// If the socket cannot be used.
    pub fn new(socket: std::net::TcpListener) -> Result<Self, String> {
        let listener = TcpListener::from_std(socket);
        listener.map(Self).map_err(|error| format!("the address cannot be used: {error}"))
    }

    /// The bound address; `None` if the operating system reports none.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }

    /// Accepts and serves connections. Never returns.
    pub(in crate::control) async fn serve(self, router: Router, control: Arc<Control>) {
        let router = TowerToHyperService::new(router);
        let (places, mut failures) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), Repeats::default());
        let addresses = Addresses::default();
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (stream, peer) = match self.0.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if let Some(more) = failures.should_log(control.now()) {
                        tracing::warn!(%error, more, "cannot accept on the operators' address; trying again");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let ip = peer.ip().to_canonical();
            let is_proxy = control.snapshot().settings.trusted_proxies.iter().any(|net| net.contains(&ip));
            let counted = if is_proxy { None } else { addresses.enter(client_network(ip)) };
            if counted.is_none() && !is_proxy {
                continue;
            }
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(WRITE_TIME));
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
                let io = TokioIo::new(Box::pin(stream));
                let _ = builder.serve_connection(io, service).await; // affects only this client
                drop((place, counted));
            });
        }
    }
}
