//! Ends requests in flight whose key stopped working: revoked, disabled, expired, rotated away, dropped by
//! the file, or its account suspended. They end as if their client had left, and are settled so.

use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Gate;
use super::waits::Waits;
use crate::snapshot::Standing;
use crate::types::KeyHash;

/// How often all requests in flight are looked at: a key that stops working is used for less than a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How many connections are looked at before other tasks get their turn.
const MAX_SLICE: usize = 1024;

/// Looks for as long as the worker lives.
pub(super) async fn watch(gate: Rc<Gate>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let numbers: Vec<u64> = gate.connections.borrow().keys().copied().collect();
        for numbers in numbers.chunks(MAX_SLICE) {
            numbers.iter().for_each(|number| look_at_connection(&gate, *number));
            tokio::task::yield_now().await;
        }
        let tunnels: Vec<Arc<Waits>> = {
            let mut tunnels = gate.tunnels.borrow_mut();
            tunnels.retain(|tunnel| tunnel.strong_count() > 0);
            tunnels.iter().filter_map(Weak::upgrade).collect()
        };
        for tunnels in tunnels.chunks(MAX_SLICE) {
            let lost = tunnels.iter().filter(|tunnel| tunnel.lost_its_key(|key| opens(&gate, key)));
            lost.for_each(|tunnel| tunnel.cut());
            tokio::task::yield_now().await;
        }
    }
}

fn look_at_connection(gate: &Gate, number: u64) {
    let known = gate.connections.borrow().get(&number).cloned();
    let Some((waker, connection)) = known else { return };
    if connection.upgrade().is_some_and(|connection| connection.end_requests(|key| opens(gate, key))) {
        waker.wake();
    }
}

/// Whether a request with this key would be admitted now, as far as its key and account go.
fn opens(gate: &Gate, key: &KeyHash) -> bool {
    let Some(key) = gate.directory.find_usable(key, gate.clock.wall()) else { return false };
    let view = gate.views.load();
    let served = matches!(view.standing(key.account.num, key.account.stored_plan()), Standing::Served(_));
    served && !key.account.is_suspended()
}
