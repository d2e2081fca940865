//! The dashboard: pages for customers and operators, made on the server from the operations of the control plane. They
//! work without a script; `assets/app.js` only adds comfort.

mod account;
mod assets;
mod brand;
mod enter;
mod html;
mod live;
mod operator;
mod reveals;
mod routes;
mod site;
mod user;
mod web;

use std::sync::Arc;

pub(super) use routes::router;

use super::Control;
use super::listener::Listener;

/// Serves the pages alone on a listener. Never returns.
pub fn serve(listener: Listener, control: Arc<Control>) -> impl Future<Output = ()> + Send + use<> {
    let router = router(Arc::clone(&control), true);
    listener.serve(router, control)
}
