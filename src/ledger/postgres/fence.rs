//! Keeps a gateway from writing once another process has served in its place.
//!
//! While a gateway is connected, it holds locks, so nobody else serves as it. When it was cut off and has its locks again,
//! another process may have: one that settled what it left. That began another generation.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// The generation that a process began, once it had all locks of its gateway.
#[derive(Debug, Default)]
pub(super) struct Fence {
    generation: AtomicI64,
    has_fallen: AtomicBool,
}

impl Fence {
    pub(super) fn begin(&self, generation: i64) {
        self.generation.store(generation, Ordering::SeqCst);
    }

    /// The generation; `None` before it began.
    pub(super) fn generation(&self) -> Option<i64> {
        Some(self.generation.load(Ordering::SeqCst)).filter(|generation| *generation > 0)
    }

    /// Another process has served.
    pub(super) fn fall(&self) {
        self.has_fallen.store(true, Ordering::SeqCst);
    }

    /// True if another process has served, so that nothing may be written.
    pub(super) fn has_fallen(&self) -> bool {
        self.has_fallen.load(Ordering::SeqCst)
    }
}
