//! Talks to the service manager (systemd): sockets that it opened, and its notifications. Without one, nothing happens.

use std::net::TcpListener;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

/// The listening sockets that the service manager opened (socket activation).
pub(super) fn sockets() -> Vec<TcpListener> {
    let mut passed = ListenFd::from_env();
    (0..passed.len()).filter_map(|at| passed.take_tcp_listener(at).ok().flatten()).collect()
}

/// The gateway serves. It is the main process of its service from now on.
pub(super) fn ready() {
    notify(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready]);
}

/// The gateway reloads its configuration, until it is [`ready`] again.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// The gateway stops.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// How often the service manager expects [`alive`]; `None` if it does not.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// The gateway is alive.
pub(super) fn alive() {
    notify(&[NotifyState::Watchdog]);
}

fn notify(state: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(state); // the gateway also works without a service manager
}
