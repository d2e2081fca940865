//! What handlers share.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http::{Method, StatusCode};

use crate::control::Control;
use crate::control::operations::Caller;
use crate::control::quota::Quota;

/// What handlers share.
#[derive(Clone)]
pub(super) struct ApiState {
    pub(super) control: Arc<Control>,
    /// True once the gateway accepts no new connections.
    pub(super) draining: Arc<AtomicBool>,
    /// The methods and paths of operations that change something.
    pub(super) writes: Arc<HashSet<(Method, String)>>,
    /// Requests of each token.
    pub(super) requests: Arc<Quota<String>>,
    /// Failed authentications from each address.
    pub(super) failures: Arc<Quota<IpAddr>>,
}

/// A creation succeeds with 201, also when it is repeated.
pub(super) fn created(caller: &Caller) {
    if let Some(repeat) = &caller.repeat {
        repeat.succeeds_with(StatusCode::CREATED.as_u16());
    }
}
