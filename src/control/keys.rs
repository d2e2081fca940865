//! Implements the key commands: create, list, rotate, disable, enable, revoke.

use std::sync::Arc;

use serde_json::{Value, json};

use super::books::{aside, send};
use super::command::NewKey;
use super::publish::state_name;
use super::{Control, Failure, InForce, Rows, refused};
use crate::config::parse_duration;
use crate::directory::{Key, KeySpec};
use crate::ledger::store::{KeyChange, KeyRow, SecretRow, Source, each_key};
use crate::policy::key::generate;
use crate::policy::key::{KeyRules, KeyState};
use crate::policy::route::glob_matches;
use crate::types::{AccountId, KeyHash, KeyId, KeyNum, Secret, WallTime};

/// Longest label, in characters.
const MAX_LABEL: usize = 100;
/// Longest environment, in characters.
const MAX_ENVIRONMENT: usize = 16;
/// Random bytes drawn for a key: 32 are needed, and 3 % of the drawn bytes are discarded.
const RANDOM: usize = 128;

/// Random bytes from the operating system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => refused(format!("the operating system failed to generate random numbers: {error}")),
    }
}

impl Control {
    fn new_secret(&self, environment: &str) -> Result<Secret<String>, Failure> {
        let prefix = self.snapshot().settings.key_prefix.clone();
        let made = generate::make(&prefix, environment, random::<RANDOM>()?.into_iter());
        made.ok_or_else(|| Failure::Message("too little randomness; try again".to_owned()))
    }

    pub(super) async fn create_key(&self, new: NewKey) -> Result<Value, Failure> {
        let _alone = self.state.lock().await; // ledger and directory change together, one command at a time
        let known = self.directory.account(&new.account);
        let Some(account) = known.filter(|account| self.serves(account)) else {
            return refused(format!("there is no account {}", new.account));
        };
        check_text(&new.label, &new.environment)?;
        self.check_scopes(&new.scopes)?;
        let now = self.clock.wall();
        let expires = new.expires.as_deref().map(|text| moment(text, now)).transpose()?;
        if expires.is_some_and(|expires| expires <= now) {
            return refused("this key would have expired already");
        }
        let key = self.new_secret(&new.environment)?;
        let hash = KeyHash::of(key.reveal().as_bytes());
        let mut row = KeyRow {
            id: KeyId(u64::from_be_bytes(random()?)),
            num: KeyNum(0),
            account: account.num,
            source: Source::Store,
            state: KeyState::Active,
            label: new.label,
            environment: new.environment,
            hint: generate::hint(key.reveal()),
            scopes: Some(new.scopes).filter(|scopes| !scopes.is_empty()),
            allow_from: None,
            expires,
            created: now,
            secrets: vec![SecretRow { hash, until: None }],
        };
        let made = self.bookkeeper.create_keys(vec![row.clone()]).await?;
        let Some(num) = made.first() else { return refused("the ledger did not store the key") };
        row.num = *num;
        self.put_store_key(&row, &account, &[]);
        Ok(json!({ "id": row.id, "key": key.reveal() }))
    }

    fn check_scopes(&self, scopes: &[String]) -> Result<(), Failure> {
        let view = self.snapshot();
        let matches =
            |scope: &&String| view.routes.iter().any(|route| glob_matches(scope, route.name.as_str()));
        match scopes.iter().find(|scope| !matches(scope)) {
            Some(scope) => refused(format!("scope `{scope}` matches no route")),
            None => Ok(()),
        }
    }

    pub(super) async fn list_keys(
        self: &Arc<Self>,
        account: Option<AccountId>,
        rows: Rows,
    ) -> Result<Value, Failure> {
        if let Some(id) = account.as_ref().filter(|id| self.directory.account(id).is_none()) {
            return refused(format!("there is no account {id}"));
        }
        let (reader, control) = (self.bookkeeper.view().await?, Arc::clone(self));
        let count = aside(reader, move |mut reader| {
            let mut count = 0_u64;
            each_key(&mut *reader, account.as_ref(), |row, owner| {
                count += 1;
                let in_file = control.in_file(&control.state.blocking_lock(), &row);
                send(&rows, describe(&row, &owner, in_file.as_deref()))
            })?;
            Ok(count)
        });
        Ok(json!({ "keys": count.await? }))
    }

    /// Finds a key in the directory, if the current configuration file defines it.
    fn in_file(&self, state: &InForce, row: &KeyRow) -> Option<Arc<Key>> {
        let listed = state.keys.get(&row.id).filter(|_| row.source == Source::File)?;
        self.directory.find(&listed.hash)
    }

    /// Reads a key and the id of its account from the ledger.
    async fn row(&self, id: KeyId) -> Result<(KeyRow, AccountId), Failure> {
        let found = self.bookkeeper.view().await?.key(id)?;
        found.ok_or_else(|| Failure::Message(format!("there is no key {id}")))
    }

    pub(super) async fn show_key(&self, id: KeyId) -> Result<Value, Failure> {
        let (row, owner) = self.row(id).await?;
        let in_file = self.in_file(&*self.state.lock().await, &row);
        Ok(describe(&row, &owner, in_file.as_deref()))
    }

    pub(super) async fn rotate_key(&self, id: KeyId, overlap: Option<String>) -> Result<Value, Failure> {
        let _alone = self.state.lock().await;
        let (mut row, owner) = self.row(id).await?;
        let now = self.clock.wall();
        let overlap_until = overlap.as_deref().map(|text| moment(text, now)).transpose()?;
        let key = self.new_secret(&row.environment)?;
        let (hash, hint) = (KeyHash::of(key.reveal().as_bytes()), generate::hint(key.reveal()));
        self.bookkeeper.change_key(id, KeyChange::Rotate { hash, hint, overlap_until }).await?;
        let before = std::mem::replace(&mut row.secrets, vec![SecretRow { hash, until: None }]);
        let old = before.iter().find(|secret| secret.until.is_none()).map(|secret| secret.hash);
        if let (Some(hash), Some(until)) = (old, overlap_until) {
            row.secrets.push(SecretRow { hash, until: Some(until) });
        }
        if let Some(account) = self.directory.account(&owner) {
            self.put_store_key(&row, &account, &before);
        }
        Ok(json!({ "id": id, "key": key.reveal() }))
    }

    /// The secrets of a key that are in the directory, which is what requests are checked against.
    pub(super) async fn secrets_of(&self, id: KeyId, state: &InForce) -> Result<Vec<Arc<Key>>, Failure> {
        if let Some(listed) = state.keys.get(&id) {
            return Ok(self.directory.find(&listed.hash).into_iter().collect());
        }
        let row = self.bookkeeper.view().await?.key(id)?;
        let secrets = row.map_or_else(Vec::new, |(row, _)| row.secrets);
        Ok(secrets.iter().filter_map(|secret| self.directory.find(&secret.hash)).collect())
    }

    pub(super) async fn set_key_state(&self, id: KeyId, new: KeyState) -> Result<Value, Failure> {
        let state = self.state.lock().await;
        let secrets = self.secrets_of(id, &state).await?; // first, because revoking deletes them
        self.bookkeeper.change_key(id, KeyChange::State(new)).await?;
        for key in secrets {
            if new == KeyState::Revoked {
                self.directory.remove(&key.hash);
            } else {
                self.directory.put_key(with_state(&key, new));
            }
        }
        Ok(json!({ "id": id, "state": state_name(new) }))
    }
}

fn with_state(key: &Key, state: KeyState) -> KeySpec {
    let rules = KeyRules { state, ..key.rules().clone() };
    let (account, limits) = (Arc::clone(&key.account), key.limits().cloned());
    KeySpec { hash: key.hash, id: key.id, num: key.num, account, rules, limits, source: key.source }
}

fn check_text(label: &str, environment: &str) -> Result<(), Failure> {
    if label.is_empty() || label.chars().count() > MAX_LABEL || label.chars().any(char::is_control) {
        return refused(format!("a label is 1 to {MAX_LABEL} characters on one line"));
    }
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if environment.is_empty() || environment.len() > MAX_ENVIRONMENT || !environment.bytes().all(valid) {
        return refused(format!("an environment is 1 to {MAX_ENVIRONMENT} of a-z 0-9, such as live"));
    }
    Ok(())
}

/// Parses a duration from now, or a time in RFC 3339.
fn moment(text: &str, now: WallTime) -> Result<WallTime, Failure> {
    if let Ok(duration) = parse_duration(text) {
        let millis = i64::try_from(duration.as_millis()).ok().and_then(|millis| now.0.checked_add(millis));
        return millis.map(WallTime).ok_or_else(|| Failure::Message(format!("{text} is too far away")));
    }
    match text.parse::<jiff::Timestamp>() {
        Ok(moment) => Ok(WallTime(moment.as_millisecond())),
        Err(_) => refused(format!(
            "{text} is neither a duration such as 90d nor a time such as 2027-01-01T00:00:00Z"
        )),
    }
}

/// Formats a time for command results.
pub(super) fn shown(at: WallTime) -> Value {
    Value::String(at.to_string())
}

/// Formats a key for command results. `file`: the key in the directory, if the current file defines it.
fn describe(row: &KeyRow, account: &AccountId, file: Option<&Key>) -> Value {
    let of_file = row.source == Source::File;
    let dropped = of_file && file.is_none();
    let (scopes, expires) = match (of_file, file) {
        (true, Some(key)) => (key.rules().scopes.as_deref(), key.rules().expires),
        _ => (row.scopes.as_deref(), row.expires),
    };
    let overlap = row.secrets.iter().find_map(|secret| secret.until);
    json!({
        "id": row.id,
        "account": account,
        "label": row.label,
        "key": if of_file { "(in the file)".to_owned() } else { row.hint.clone() },
        "state": if dropped { "dropped by the file" } else { state_name(row.state) },
        "scopes": scopes,
        "expires": expires.map(shown),
        "created": shown(row.created),
        "old_secret_until": overlap.map(shown),
        "source": row.source,
    })
}
