//! Rehearses a configuration: what it would have decided about the requests of the last hour.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::world::{KnownKey, Refused, World};
use crate::config::{self, LoadedConfig};
use crate::control::Control;
use crate::control::operations::blocking;
use crate::control::operations::caller::{Caller, Permission};
use crate::control::operations::error::{OperationError, Result};
use crate::control::operations::terms::Time;
use crate::directory::Key;
use crate::policy::key::KeyRules;
use crate::telemetry::decisions::{KEPT, RequestDecision};
use crate::types::{Credits, KeyId, NameId, RouteNum, WallTime};

/// A configuration to rehearse.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RehearsalInput {
    /// Its file, as an absolute path. The gateway reads it.
    pub config: PathBuf,
    /// How long ago the first request may have ended, such as `1h`.
    pub against: String,
}

/// How often a rule would have decided otherwise.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct RuleChange {
    /// Requests that were admitted, and would be refused by this rule.
    pub refused: u64,
    /// Requests that this rule refused, and that would be admitted.
    pub admitted: u64,
    /// Requests that were refused, and would be refused by this rule for another reason.
    pub other_reason: u64,
}

/// What a configuration would have decided.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Rehearsal {
    /// When the first of the requests ended.
    pub from: Option<Time>,
    /// True if more requests ended in that time than are kept.
    pub incomplete: bool,
    /// Number of requests.
    pub requests: u64,
    /// Number of requests with another decision.
    pub changed: u64,
    /// Those, by rule.
    pub rules: BTreeMap<String, RuleChange>,
    /// Charges of routes, now and with the new configuration, where they differ.
    pub charges: BTreeMap<String, [Credits; 2]>,
}

impl Control {
    /// Compares what the configuration in force and a new one decide about the requests of the last hour. Neither knows
    /// the paths of those requests, what limits had counted before them, nor balances.
    ///
    /// # Errors
    /// If the span is not a duration of at most an hour, or the new configuration has mistakes.
    pub async fn rehearse(&self, caller: &Caller, input: RehearsalInput) -> Result<Rehearsal> {
        caller.may(Permission::ReadAll)?;
        let against = config::parse_duration(&input.against).ok().filter(|against| *against <= KEPT);
        let Some(against) = against else {
            return OperationError::invalid("against", "a duration of at most 1h, such as 30m");
        };
        let loaded = blocking(move || {
            config::load(&input.config).map_err(|report| OperationError::Config(Box::new(report)))
        });
        let loaded = loaded.await?;
        let since =
            self.clock.wall().0.saturating_sub(i64::try_from(against.as_millis()).unwrap_or(i64::MAX));
        let stats = self.stats();
        let requests = blocking(move || Ok(stats.decisions.since(WallTime(since)))).await?;
        let incomplete = self.stats.decisions.complete_since().iter().flatten().any(|time| time.0 > since);
        let (before, after) = self.worlds(loaded, &requests).await?;
        let names = self.snapshot().routes.iter().map(|route| (route.num, route.name.to_string())).collect();
        blocking(move || Ok(Rehearsal { incomplete, ..compare(&requests, before, after, &names) })).await
    }

    /// The configuration in force and the new one, with the keys of these requests.
    async fn worlds(&self, loaded: LoadedConfig, requests: &[RequestDecision]) -> Result<(World, World)> {
        let view = self.snapshot();
        let numbers: HashMap<String, RouteNum> =
            view.routes.iter().map(|route| (route.name.to_string(), route.num)).collect();
        let LoadedConfig { snapshot, accounts, keys, .. } = loaded;
        let plan_of = |plan: &Option<String>| plan.as_deref().map(NameId::of);
        let accounts: HashMap<_, _> =
            accounts.iter().map(|account| (account.id.clone(), plan_of(&account.plan))).collect();
        let in_file: HashMap<KeyId, _> =
            keys.into_iter().map(|key| (KeyId::of_hash(&key.hash), key)).collect();
        let (mut old, mut new) = (HashMap::new(), HashMap::new());
        let ids: HashSet<KeyId> = requests.iter().filter_map(|request| Some(request.caller?.1)).collect();
        for id in ids {
            let Some(key) = self.secrets_of(id).await?.into_iter().next() else { continue };
            let now = known(
                &key,
                view.listed.get(key.account.num.0 as usize).copied().flatten().map(|listed| listed.plan),
            );
            let stored = key.account.stored_plan();
            let plan = accounts.get(&key.account.id).copied().or(stored);
            let later = match in_file.get(&id) {
                Some(listed) => Some(KnownKey {
                    rules: KeyRules {
                        expires: listed.expires,
                        scopes: listed.scopes.clone(),
                        allow_from: listed.allow_from.clone().map(Vec::into_boxed_slice),
                        ..KeyRules::default()
                    },
                    limits: listed.limits.clone(),
                    plan,
                }),
                None if self.in_force.load().keys.contains_key(&id) => None,
                None => Some(KnownKey { plan, ..now.clone() }),
            };
            old.insert(id, now);
            new.extend(later.map(|later| (id, later)));
        }
        Ok((World::new(view, &numbers, old), World::new(Arc::new(snapshot), &numbers, new)))
    }
}

/// A key as the configuration in force knows it. `listed`: the plan of its account, if the file defines that.
fn known(key: &Key, listed: Option<Option<NameId>>) -> KnownKey {
    let plan = listed.or(key.account.stored_plan());
    KnownKey { rules: key.rules().clone(), limits: key.limits().cloned(), plan }
}

fn compare(
    requests: &[RequestDecision],
    mut before: World,
    mut after: World,
    names: &HashMap<RouteNum, String>,
) -> Rehearsal {
    let mut told = Rehearsal {
        from: requests.first().map(|first| Time(first.at)),
        requests: requests.len() as u64,
        ..Rehearsal::default()
    };
    for request in requests {
        let (old, new) = (before.judge(request), after.judge(request));
        let name = names.get(&request.route).cloned().unwrap_or_default();
        told.charge(name, old.as_ref().ok(), new.as_ref().ok());
        told.count(old.err(), new.err());
    }
    told.charges.retain(|_, [old, new]| old != new);
    told
}

impl Rehearsal {
    fn count(&mut self, old: Option<Refused>, new: Option<Refused>) {
        let rules = &mut self.rules;
        match (old, new) {
            (None, None) => return,
            (None, Some((name, _))) => rules.entry(name).or_default().refused += 1,
            (Some((name, _)), None) => rules.entry(name).or_default().admitted += 1,
            (Some((_, old)), Some((_, new))) if old == new => return,
            (Some(_), Some((name, _))) => rules.entry(name).or_default().other_reason += 1,
        }
        self.changed += 1;
    }

    fn charge(&mut self, route: String, old: Option<&Credits>, new: Option<&Credits>) {
        let sums = self.charges.entry(route).or_default();
        for (sum, credits) in sums.iter_mut().zip([old, new]) {
            *sum = sum.checked_add(credits.copied().unwrap_or_default()).unwrap_or(*sum);
        }
    }
}
