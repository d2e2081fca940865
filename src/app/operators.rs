//! Serves operators and customers on a thread of its own, whose work gives way to that of the workers.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::process::{getpriority_process, setpriority_process};
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::StartError;
use crate::control::Control;
use crate::control::api::Admin;
use crate::control::dashboard;
use crate::control::listener::Listener;
use crate::gateway::PublicAddress;

/// How much nicer than the workers' threads those of the control plane are. Where all cores are busy, one of them gets about
/// a tenth of a core.
const NICER: i32 = 10;
/// The nicest priority that Linux has.
const NICEST: i32 = 19;

/// The runtime of the control plane. Dropping it ends its thread, and with it whatever is still being served.
#[derive(Debug)]
pub(super) struct ControlRuntime {
    handle: Handle,
    _end: DropGuard,
}

/// Makes the current thread nicer, and those that it starts, so that they delay workers on the same core less. A failure
/// is ignored: everything works without it.
fn give_way() {
    if let Ok(now) = getpriority_process(None) {
        let _ = setpriority_process(None, (now + NICER).min(NICEST));
    }
}

impl ControlRuntime {
    /// Starts the thread.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(super) fn start() -> Result<Self, StartError> {
        let failed = |error| StartError::Other(format!("the control plane cannot start: {error}"));
        let runtime = Builder::new_current_thread()
            .enable_all()
            .thread_name("tollgate-operations")
            .build()
            .map_err(failed)?;
        let (handle, end) = (runtime.handle().clone(), CancellationToken::new());
        let ended = end.clone();
        let run = move || {
            give_way();
            runtime.block_on(ended.cancelled());
            runtime.shutdown_background();
        };
        std::thread::Builder::new().name("tollgate-control".to_owned()).spawn(run).map_err(failed)?;
        Ok(Self { handle, _end: end.drop_guard() })
    }

    /// Runs a task there.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.handle.spawn(task)
    }

    /// Does what needs the runtime, such as taking a socket.
    pub(super) fn within<R>(&self, work: impl FnOnce() -> R) -> R {
        let _entered = self.handle.enter();
        work()
    }
}

/// The listeners of the control plane, which serve.
pub(super) struct Operators {
    pub(super) admin: SocketAddr,
    pub(super) dashboard: Option<SocketAddr>,
    pub(super) draining: Arc<AtomicBool>,
}

impl Operators {
    /// Starts to serve the admin API, and the dashboard on its own socket if it has one. `pages`: whether there is a
    /// dashboard, and its socket.
    ///
    /// # Errors
    /// If a socket cannot be used.
    pub(super) fn serve(
        runtime: &ControlRuntime,
        control: &Arc<Control>,
        admin: TcpListener,
        (has_dashboard, own): (bool, Option<TcpListener>),
        public: &[PublicAddress],
        background: &mut Vec<JoinHandle<()>>,
    ) -> Result<Self, StartError> {
        if let Some(api) = public.first() {
            control.api_listens_at(api.address, api.is_tls);
        }
        let admin = runtime.within(|| Admin::new(admin))?;
        let unknown = || StartError::Other("the admin address is unknown".to_owned());
        let (address, draining) = (admin.address().ok_or_else(unknown)?, admin.draining());
        background.push(runtime.spawn(admin.serve(Arc::clone(control), own.is_none())));
        let mut pages = address;
        if let Some(socket) = own {
            let listener = runtime.within(|| Listener::new(socket))?;
            pages = listener.address().unwrap_or(address);
            background.push(runtime.spawn(dashboard::serve(listener, Arc::clone(control))));
        }
        control.dashboard_listens_at(pages);
        Ok(Self { admin: address, dashboard: has_dashboard.then_some(pages), draining })
    }
}
