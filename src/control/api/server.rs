//! Serves the admin API on the operators' listener.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::routes::{router, writes};
use super::state::ApiState;
use crate::control::listener::Listener;
use crate::control::quota::Quota;
use crate::control::{Control, dashboard};

/// The listener for operators.
#[derive(Debug)]
pub struct Admin {
    listener: Listener,
    /// True once the gateway accepts no new connections.
    draining: Arc<AtomicBool>,
}

impl Admin {
    /// Serves on a listening socket.
    ///
    /// # Errors
    /// If the socket cannot be used.
    pub fn new(socket: std::net::TcpListener) -> Result<Self, String> {
        Ok(Self { listener: Listener::new(socket)?, draining: Arc::default() })
    }

    /// The bound address; `None` if the operating system reports none.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.address()
    }

    /// The flag that makes `/readyz` respond with 503 while it is set.
    #[must_use]
    pub fn draining(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.draining)
    }

    /// Accepts and serves connections. Never returns. `has_pages`: true if the dashboard has no listener of its own.
    pub fn serve(self, control: Arc<Control>, has_pages: bool) -> impl Future<Output = ()> + Send + use<> {
        let state = ApiState {
            control: Arc::clone(&control),
            draining: Arc::clone(&self.draining),
            writes: Arc::new(writes()),
            requests: Arc::new(Quota::of_requests()),
            failures: Arc::new(Quota::of_failures()),
        };
        let mut router = router(state);
        if has_pages {
            router = router.merge(dashboard::router(Arc::clone(&control), false));
        }
        self.listener.serve(router, control)
    }
}
