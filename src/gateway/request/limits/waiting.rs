//! Requests that wait for their gateway's share of a limit.

use std::pin::pin;

use tokio::time::timeout;

use super::{Limits, Pass, ResponseHeaders, Subject};
use crate::gateway::request::services::Services;
use crate::limit_store::MAX_WAIT;
use crate::policy::reject::{Reason, Refusal};
use crate::snapshot::Settings;

impl Limits {
    /// Admits a request as [`Limits::admit`], once the store has granted shares of the limits, or has not in time.
    ///
    /// # Errors
    /// As [`Limits::admit`].
    pub(in crate::gateway::request) async fn admit_later(
        &self,
        services: &Services,
        subject: &mut Subject<'_>,
        settings: &Settings,
        response: &mut ResponseHeaders,
    ) -> Result<Pass, Refusal> {
        let time = &services.connections.time;
        let until = services.connections.clock.now().plus(MAX_WAIT);
        let mut may_wait = true;
        while let Some(store) = &self.store {
            let mut answered = pin!(store.answered());
            answered.as_mut().enable(); // before it is asked
            subject.now = services.connections.clock.now();
            if let Some(pass) = self.admit(subject, settings, time.wall(), may_wait, response)? {
                return Ok(pass);
            }
            may_wait = timeout(until.since(subject.now), answered).await.is_ok();
        }
        Err(Reason::Overloaded.into()) // it waits only for a store
    }
}
