//! Keys: made, listed, rotated, switched.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::command::NewKey;
use super::publish::state_name;
use super::{Control, Failure, Rows, refused};
use crate::config::{FileKey, parse_duration};
use crate::directory::Key;
use crate::ledger::store::{KeyChange, KeyRow, SecretRow, Source};
use crate::policy::key::KeyState;
use crate::policy::route::glob_matches;
use crate::policy::secret;
use crate::types::{AccountId, AccountNum, KeyHash, KeyId, KeyNum, Secret, WallTime};

/// Longest label, in characters.
const MAX_LABEL: usize = 100;
/// Longest environment, in characters.
const MAX_ENVIRONMENT: usize = 16;
/// Random bytes drawn for a key: 32 are needed, and 3 % are drawn again.
const RANDOM: usize = 128;

/// Random bytes from the operating system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => refused(format!("the operating system gives no random numbers: {error}")),
    }
}

impl Control {
    fn new_secret(&self, environment: &str) -> Result<Secret<String>, Failure> {
        let prefix = self.snapshot().settings.key_prefix.clone();
        let made = secret::make(&prefix, environment, random::<RANDOM>()?.into_iter());
        made.ok_or_else(|| Failure::Message("too little randomness; try again".to_owned()))
    }

    pub(super) async fn create_key(&self, new: NewKey) -> Result<Value, Failure> {
        let _alone = self.state.lock().await; // books and directory change together, one command at a time
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
            hint: secret::hint(key.reveal()),
            scopes: Some(new.scopes).filter(|scopes| !scopes.is_empty()),
            allow_from: None,
            expires,
            created: now,
            secrets: vec![SecretRow { hash, until: None }],
        };
        row.num = self.bookkeeper.create_key(row.clone()).await?;
        self.put_store_key(&row, &account.id);
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

    async fn rows(
        &self,
        account: Option<&AccountId>,
    ) -> Result<(Vec<KeyRow>, HashMap<AccountNum, AccountId>), Failure> {
        let mut reader = self.bookkeeper.reader().await?;
        let accounts = reader.accounts(None)?.into_iter().map(|row| (row.num, row.id)).collect();
        Ok((reader.keys(account)?, accounts))
    }

    pub(super) async fn list_keys(&self, account: Option<AccountId>, rows: &Rows) -> Result<Value, Failure> {
        if let Some(id) = account.as_ref().filter(|id| self.directory.account(id).is_none()) {
            return refused(format!("there is no account {id}"));
        }
        let (keys, names) = self.rows(account.as_ref()).await?;
        let state = self.state.lock().await;
        let shown: Vec<Value> = keys
            .iter()
            .filter_map(|row| Some(describe(row, names.get(&row.account)?, state.labels.get(&row.id))))
            .collect();
        drop(state);
        let count = shown.len();
        for row in shown {
            let _ = rows.send(row).await; // whoever asked may be gone
        }
        Ok(json!({ "keys": count }))
    }

    pub(super) async fn show_key(&self, id: KeyId) -> Result<Value, Failure> {
        let (keys, names) = self.rows(None).await?;
        let state = self.state.lock().await;
        let found = keys.iter().find(|row| row.id == id);
        let shown =
            found.and_then(|row| Some(describe(row, names.get(&row.account)?, state.labels.get(&id))));
        shown.ok_or_else(|| Failure::Message(format!("there is no key {id}")))
    }

    pub(super) async fn rotate_key(&self, id: KeyId, overlap: Option<String>) -> Result<Value, Failure> {
        let _alone = self.state.lock().await;
        let (keys, names) = self.rows(None).await?;
        let Some(row) = keys.into_iter().find(|row| row.id == id) else {
            return refused(format!("there is no key {id}"));
        };
        let now = self.clock.wall();
        let overlap_until = overlap.as_deref().map(|text| moment(text, now)).transpose()?;
        let key = self.new_secret(&row.environment)?;
        let (hash, hint) = (KeyHash::of(key.reveal().as_bytes()), secret::hint(key.reveal()));
        self.bookkeeper.change_key(id, KeyChange::Rotate { hash, hint, overlap_until }).await?;
        let old = row.secrets.iter().find(|secret| secret.until.is_none()).map(|secret| secret.hash);
        let mut secrets = vec![SecretRow { hash, until: None }];
        if let (Some(hash), Some(until)) = (old, overlap_until) {
            secrets.push(SecretRow { hash, until: Some(until) });
        }
        if let Some(account) = names.get(&row.account) {
            self.put_store_key(&KeyRow { secrets: secrets.clone(), ..row.clone() }, account);
        }
        for gone in row.secrets.iter().filter(|secret| secrets.iter().all(|kept| kept.hash != secret.hash)) {
            self.directory.remove(&gone.hash);
        }
        Ok(json!({ "id": id, "key": key.reveal() }))
    }

    pub(super) async fn set_key_state(&self, id: KeyId, state: KeyState) -> Result<Value, Failure> {
        let _alone = self.state.lock().await;
        self.bookkeeper.change_key(id, KeyChange::State(state)).await?;
        for (hash, key) in self.directory.secrets_of(id) {
            if state == KeyState::Revoked {
                self.directory.remove(&hash);
            } else {
                self.directory.put_key(with_state(&key, hash, state));
            }
        }
        Ok(json!({ "id": id, "state": state_name(state) }))
    }
}

fn with_state(key: &Key, hash: KeyHash, state: KeyState) -> crate::directory::KeySpec {
    let mut rules = key.rules().clone();
    rules.state = state;
    let (id, num, limits, source) = (key.id, key.num, key.limits().cloned(), key.source);
    crate::directory::KeySpec { hash, id, num, account: key.account.id.clone(), rules, limits, source }
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

/// A duration from now, or a moment in RFC 3339.
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

/// Wall time for people: RFC 3339 in UTC.
pub(super) fn shown(at: WallTime) -> Value {
    jiff::Timestamp::from_millisecond(at.0).map_or(Value::Null, |at| Value::String(at.to_string()))
}

/// A key as lists show it.
fn describe(row: &KeyRow, account: &AccountId, file: Option<&FileKey>) -> Value {
    let of_file = row.source == Source::File;
    let dropped = of_file && file.is_none();
    let (scopes, expires) = match (of_file, file) {
        (true, Some(key)) => (key.scopes.clone(), key.expires),
        _ => (row.scopes.clone(), row.expires),
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
