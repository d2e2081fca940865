//! Serves `/healthz` and `/readyz` on the admin address.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::Control;
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
        let (places, mut failures) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), Repeats::default());
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if let Some(more) = failures.should_log(control.clock.now()) {
                        tracing::warn!(%error, more, "cannot accept on the admin address; trying again");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (control, draining) = (Arc::clone(&control), Arc::clone(&self.draining));
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let response = answer(&request, &control, draining.load(Ordering::SeqCst));
                    async move { Ok::<_, Infallible>(response) }
                });
                let mut builder = http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
                let _ = builder.serve_connection(TokioIo::new(stream), service).await; // affects only this client
                drop(place);
            });
        }
    }
}

fn answer(request: &Request<Incoming>, control: &Control, draining: bool) -> Response<Full<Bytes>> {
    let plain = |status: StatusCode, body: &'static str| {
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status;
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
        response
    };
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/healthz") => plain(StatusCode::OK, "{\"status\":\"ok\"}\n"),
        (&Method::GET | &Method::HEAD, "/readyz") if draining => {
            plain(StatusCode::SERVICE_UNAVAILABLE, "{\"status\":\"draining\"}\n")
        }
        (&Method::GET | &Method::HEAD, "/readyz") if !control.is_ready() => {
            plain(StatusCode::SERVICE_UNAVAILABLE, "{\"status\":\"the ledger cannot be written\"}\n")
        }
        (&Method::GET | &Method::HEAD, "/readyz") => plain(StatusCode::OK, "{\"status\":\"ready\"}\n"),
        _ => plain(StatusCode::NOT_FOUND, ""),
    }
}
