//! Why a request body ended early.

use std::cell::Cell;
use std::rc::Rc;

use crate::policy::reject::{Reason, Refusal};

/// Why a request body ended early.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(in crate::gateway::request) enum BodyFault {
    #[error("the request body is too large")]
    TooLarge,
    #[error("the client aborted the request body")]
    Aborted,
}

impl From<BodyFault> for Refusal {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::TooLarge => Reason::BodyTooLarge.into(),
            BodyFault::Aborted => Self::because(Reason::BadRequest, "The request's body ended early."),
        }
    }
}

/// Records why a body ended early, if it did. The response needs this when the body itself has been dropped.
#[derive(Clone, Debug, Default)]
pub(in crate::gateway::request) struct BodyProgress(Rc<Cell<Option<BodyFault>>>);

impl BodyProgress {
    pub(in crate::gateway::request) fn fault(&self) -> Option<BodyFault> {
        self.0.get()
    }

    pub(super) fn fail(&self, fault: BodyFault) -> BodyFault {
        self.0.set(Some(fault));
        fault
    }
}
