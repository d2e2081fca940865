//! Explains a request of the last hour from what was kept about it.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{Decision, Steps};
use crate::control::Control;
use crate::control::operations::blocking;
use crate::control::operations::caller::{Caller, Permission};
use crate::control::operations::error::{OperationError, Result};
use crate::control::operations::terms::Time;
use crate::ledger::store::SecretRow;
use crate::policy::outcome::{Outcome, ShadowRule};
use crate::policy::reject::Reason;
use crate::telemetry::decisions::RequestDecision;
use crate::types::{AccountId, Credits, KeyId, RequestId};

/// Longest id of a trusted proxy, in bytes.
const MAX_GIVEN_ID: usize = 128;

/// What was decided about a request. No path, query, header or body is kept.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Request)]
pub struct RequestView {
    /// The request's id.
    #[schema(value_type = String)]
    pub id: RequestId,
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// Its duration in milliseconds.
    pub duration_ms: f64,
    /// Its method; null if it is not a usual one.
    pub method: Option<&'static str>,
    /// The account, if the request was authenticated.
    #[schema(value_type = Option<String>)]
    pub account: Option<AccountId>,
    /// The key, if the request was authenticated.
    #[schema(value_type = Option<String>)]
    pub key: Option<KeyId>,
    /// The route, if there was one and the configuration still has it.
    pub route: Option<String>,
    /// `proxied`, `answered`, `replayed`, `client_gone`, `cut`, `key_ended`, or the reason of the refusal.
    pub outcome: &'static str,
    /// The status of the response; 499 if the client disconnected before it.
    pub status: u16,
    /// The status of the upstream's response, if there was one.
    pub upstream_status: Option<u16>,
    /// The credits charged.
    #[schema(value_type = f64)]
    pub credits: Credits,
    /// The decisions, in order.
    pub steps: Vec<Decision>,
}

/// The steps of a request, each with the reasons for which it refuses.
const STEPS: [(&str, &[Reason]); 12] = [
    ("head", &[Reason::BadRequest, Reason::HeaderTooLarge]),
    ("route", &[Reason::NoRoute, Reason::MethodNotAllowed]),
    ("key", &[Reason::MissingKey, Reason::KeyInQuery, Reason::InvalidKey]),
    ("account", &[Reason::AccountSuspended]),
    ("scope", &[Reason::RouteForbidden]),
    ("address", &[Reason::AddressForbidden]),
    ("job", &[Reason::NoJob]),
    ("body", &[Reason::BodyTooLarge]),
    ("limits", &[Reason::RateLimited, Reason::ConcurrencyLimited]),
    ("repeat", &[Reason::IdempotencyInProgress, Reason::IdempotencyKeyReused, Reason::ResponseNotKept]),
    ("credits", &[Reason::InsufficientCredits, Reason::LedgerUnavailable]),
    ("upstream", &[Reason::UpstreamUnreachable, Reason::UpstreamTimeout, Reason::Overloaded]),
];

impl Control {
    /// Shows what was decided about a request of the last hour. `id`: the request's id, or the one that a trusted proxy
    /// gave it.
    ///
    /// # Errors
    /// If nothing is kept about such a request.
    pub async fn request(&self, caller: &Caller, id: &str) -> Result<RequestView> {
        caller.may(Permission::ReadAccounts)?;
        let (now, stats) = (self.clock.wall(), self.stats());
        let (own, mark) = (id.parse::<RequestId>().ok(), RequestId::proxy_mark(id.as_bytes()));
        if own.is_none() && id.len() > MAX_GIVEN_ID {
            return Err(self.not_kept());
        }
        let is_it = move |decision: &RequestDecision| match own {
            Some(own) => decision.id == own,
            None => decision.id.has(mark),
        };
        let found = blocking(move || Ok(stats.decisions.find(now, is_it))).await?;
        let Some(decision) = found else { return Err(self.not_kept()) };
        let account = match decision.caller {
            Some((_, key)) => Some(self.key_of(caller, Permission::ReadAccounts, key).await?.1),
            None => None,
        };
        let snapshot = self.snapshot();
        let route = snapshot.routes.iter().find(|route| route.num == decision.route && route.num.0 != 0);
        let route = route.map(|route| route.name.to_string());
        Ok(view(&decision, account, route))
    }

    /// The newest requests of an account that are kept, or of one of its keys, at most `most`.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn recent_requests(
        &self,
        caller: &Caller,
        id: AccountId,
        key: Option<KeyId>,
        most: usize,
    ) -> Result<Vec<RequestView>> {
        caller.may_in(Permission::ReadAccounts, &id)?;
        let Some(account) = self.directory.account(&id).map(|account| account.num) else {
            return Err(id.into());
        };
        let (now, stats, snapshot) = (self.clock.wall(), self.stats(), self.snapshot());
        blocking(move || {
            let is_wanted = |decision: &RequestDecision| {
                decision.caller.is_some_and(|(of, used)| of == account && key.is_none_or(|key| key == used))
            };
            let found = stats.decisions.newest(now, most, is_wanted);
            let name = |decision: &RequestDecision| {
                let route = snapshot.routes.iter().find(|route| route.num == decision.route);
                route.filter(|route| route.num.0 != 0).map(|route| route.name.to_string())
            };
            Ok(found.iter().map(|decision| view(decision, Some(id.clone()), name(decision))).collect())
        })
        .await
    }

    /// The requests of the last hour with the secret of a key that was replaced and is accepted still: at least so many, since
    /// only the newest are kept.
    ///
    /// # Errors
    /// If there is no such key.
    pub async fn requests_with_old_secret(&self, caller: &Caller, id: KeyId) -> Result<usize> {
        let (row, owner) = self.key_of(caller, Permission::ReadAccounts, id).await?;
        let now = self.clock.wall();
        let is_old = |secret: &&SecretRow| secret.until.is_some_and(|until| until > now);
        let Some(old) = row.secrets.iter().find(is_old).map(|secret| secret.hash.start()) else {
            return Ok(0);
        };
        let Some(account) = self.directory.account(&owner).map(|account| account.num) else { return Ok(0) };
        let stats = self.stats();
        blocking(move || {
            let is_wanted =
                |decision: &RequestDecision| decision.caller == Some((account, id)) && decision.secret == old;
            Ok(stats.decisions.newest(now, usize::MAX, is_wanted).len())
        })
        .await
    }

    fn not_kept(&self) -> OperationError {
        let times = self.stats.decisions.complete_since();
        let since = |time: Option<_>| time.map_or("the last hour".to_owned(), |time| format!("since {time}"));
        let [others, refused] = times.map(since);
        OperationError::Missing(format!(
            "nothing is kept about such a request; refused requests are kept: {refused}; others: {others}"
        ))
    }
}

fn view(decision: &RequestDecision, account: Option<AccountId>, route: Option<String>) -> RequestView {
    RequestView {
        id: decision.id,
        at: Time(decision.at),
        duration_ms: f64::from(decision.micros) / 1_000.0,
        method: decision.method.name(),
        key: decision.caller.map(|(_, key)| key),
        outcome: decision.outcome.code(),
        status: decision.status,
        upstream_status: Some(decision.upstream_status).filter(|&status| status != 0),
        credits: decision.credits,
        steps: steps(decision, account.as_ref(), route.as_deref()),
        account,
        route,
    }
}

/// The steps that the request passed, and the one that refused it.
fn steps(decision: &RequestDecision, account: Option<&AccountId>, route: Option<&str>) -> Vec<Decision> {
    let reason = match decision.outcome {
        Outcome::Refused(reason) => Some(reason),
        _ => None,
    };
    let mut refusing =
        reason.and_then(|reason| STEPS.iter().position(|(_, reasons)| reasons.contains(&reason)));
    if reason == Some(Reason::RateLimited) && decision.limit.is_none() {
        refusing = Some(2); // too many keys of the client's address were rejected
    }
    let key = decision.caller.map(|(_, key)| key);
    let mut steps = Steps::default();
    for (at, (name, _)) in STEPS.iter().enumerate() {
        let shadow = decision.shadow.rules().find(|rule| STEPS[at].1.contains(&rule.reason()));
        let detail = match *name {
            "route" => json!(route),
            "key" => json!(key),
            "account" => json!(account),
            "limits" | "credits" if refusing == Some(at) => json!(decision.limit.as_deref()),
            "limits" if shadow.is_some() => json!(decision.limit.as_deref()),
            "upstream" if decision.upstream_status != 0 => json!({ "status": decision.upstream_status }),
            _ => Value::Null,
        };
        match (refusing, reason) {
            (Some(refusing), Some(reason)) if refusing == at => {
                steps.refuse(name, reason, detail);
                break;
            }
            _ if is_left_out(name, decision) => {}
            _ => steps.pass_with(name, shadow.map(ShadowRule::reason), detail),
        }
    }
    if decision.outcome == Outcome::Proxied {
        steps.pass("charge", json!(decision.credits));
    }
    steps.steps
}

/// True for steps that the gateway did not take: a public route asks for no key, and some requests are not forwarded.
fn is_left_out(step: &str, decision: &RequestDecision) -> bool {
    match step {
        "key" | "account" | "scope" | "address" => decision.caller.is_none(),
        "credits" => decision.caller.is_none() || decision.outcome == Outcome::Replayed,
        "job" => true,
        "repeat" => decision.outcome != Outcome::Replayed,
        "limits" | "body" => decision.outcome == Outcome::Answered,
        "upstream" => decision.upstream_status == 0,
        _ => false,
    }
}
