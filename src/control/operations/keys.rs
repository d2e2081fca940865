//! Creates, reads, changes, rotates and revokes keys.

mod events;
mod groups;
mod import;
mod leaked;
mod list;
mod types;

use ipnet::IpNet;

pub use groups::{GroupInput, GroupView, GroupsView};
pub use import::KeyLine;
pub use leaked::{KeyPattern, LeakInput};
pub use types::{KeyInput, KeyPatch, KeyView, ShownKey};

use super::caller::{Caller, Noted, Permission};
use super::error::{OperationError, Result};
use super::terms::{LimitTerms, Patch, SpendTerms, moment, restored, stored};
use crate::control::{Control, random};
use crate::ledger::store::{Changed, KeyChange, KeyEdit, KeyRow, KeyTerms, OwnedKey, SecretRow, Source};
use crate::policy::credit::Spending;
use crate::policy::key::{KeyState, Scopes, generate};
use crate::policy::route::glob_matches;
use crate::types::{AccountId, KeyHash, KeyId, KeyNum, Secret, WallTime};

/// Longest label, in characters.
const MAX_LABEL: usize = 100;
/// Longest environment, in characters.
const MAX_ENVIRONMENT: usize = generate::MAX_ENVIRONMENT;
/// Most scopes, and most networks, of one key.
const MAX_RULES: usize = 1_000;
/// Most keys of an account that are not revoked, if a customer creates one. Operators may create more.
const MAX_OF_CUSTOMER: u64 = 1_000;
/// Random bytes drawn for a key: 32 are needed, and 3 % of the drawn bytes are discarded.
const RANDOM: usize = 128;

impl Control {
    fn new_secret(&self, environment: &str) -> Result<Secret<String>> {
        let prefix = self.snapshot().settings.key_prefix.clone();
        let made = generate::make(&prefix, environment, random::<RANDOM>()?.into_iter());
        made.ok_or_else(|| OperationError::Unavailable("too little randomness; try again".to_owned()))
    }

    /// Creates a key, or imports one by its hash. The key works when this returns.
    ///
    /// # Errors
    /// If there is no such account, the terms are not accepted, or the hash is known already.
    pub async fn create_key(&self, caller: &Caller, owner: AccountId, input: KeyInput) -> Result<KeyView> {
        caller.may_in(Permission::Keys, &owner)?;
        refuse_of_member(
            caller,
            input.limits.as_deref().is_some_and(are_in_place) || input.sha256.is_some(),
        )?;
        let _alone = self.changes.lock().await; // ledger and directory change together, one operation at a time
        let known = self.directory.account(&owner);
        let Some(account) = known.filter(|account| self.serves(account)) else { return Err(owner.into()) };
        self.refuse_closed_account(&account.id).await?;
        self.refuse_many_keys(caller, &account.id).await?;
        let (row, key) = self.key_row(account.num, input)?;
        let describe = self.describer();
        let (made, owner) = (row.clone(), account.id.clone());
        let (notes, output) = caller.noted("key.create", move |_: &Vec<KeyNum>| {
            let mut view = describe.key(&made, &owner);
            let after = Some(view.terms());
            if let Some(key) = &key {
                view.key = ShownKey::Whole(key.clone());
            }
            Noted { object: format!("key/{}", view.id), before: None, after, output: view }
        });
        let mut row = row;
        let notes = events::telling_of_new(notes, &row, &account.id);
        let numbers = self.bookkeeper.create_keys(vec![row.clone()], notes).await?;
        let unstored = || OperationError::Unavailable("the ledger did not store the key".to_owned());
        row.num = *numbers.first().ok_or_else(unstored)?;
        self.put_store_key(&row, &account, &[]);
        output.take()
    }

    /// Customers have only so many keys.
    async fn refuse_many_keys(&self, caller: &Caller, account: &AccountId) -> Result<()> {
        if !caller.is_customer() {
            return Ok(());
        }
        let id = account.clone();
        if self.read(move |reader| Ok(reader.count_keys(&id)?)).await? < MAX_OF_CUSTOMER {
            return Ok(());
        }
        let message = format!(
            "this account has {MAX_OF_CUSTOMER} keys that are not revoked: revoke some, or ask the operator"
        );
        Err(OperationError::Conflict(message))
    }

    /// The row of a new key, and the key itself if it was generated.
    fn key_row(
        &self,
        account: crate::types::AccountNum,
        input: KeyInput,
    ) -> Result<(KeyRow, Option<Secret<String>>)> {
        let now = self.clock.wall();
        let expires = input.expires.as_deref().map(|text| moment("expires", text, now)).transpose()?;
        let limits = input.limits.as_deref();
        let terms = self.check_terms(input.label, input.scopes, input.allow_from, expires, limits)?;
        check_environment(&input.environment)?;
        let (hash, hint, key) = match &input.sha256 {
            Some(text) => (self.imported(text)?, "(imported)".to_owned(), None),
            None => {
                let key = self.new_secret(&input.environment)?;
                (KeyHash::of(key.reveal().as_bytes()), generate::hint(key.reveal()), Some(key))
            }
        };
        let mut spending = Spending::default();
        spending.set_limit(input.spend_limit.map(SpendTerms::checked).transpose()?, self.clock.wall());
        let KeyTerms { label, scopes, allow_from, expires, limits, .. } = terms;
        let row = KeyRow {
            id: KeyId(u64::from_be_bytes(random()?)),
            num: KeyNum(0),
            account,
            source: Source::Store,
            state: KeyState::Active,
            label,
            environment: input.environment,
            hint,
            scopes,
            allow_from,
            expires,
            limits,
            created: now,
            version: 1,
            last_used: None,
            spending,
            group: input.group,
            secrets: vec![SecretRow { hash, until: None }],
        };
        Ok((row, key))
    }

    fn imported(&self, text: &str) -> Result<KeyHash> {
        let Ok(hash) = text.parse::<KeyHash>() else {
            return OperationError::invalid("sha256", "a hash is 64 hexadecimal digits");
        };
        if self.directory.find(&hash).is_some() {
            return Err(OperationError::Conflict("a key with this hash exists already".to_owned()));
        }
        Ok(hash)
    }

    fn check_terms(
        &self,
        label: String,
        scopes: Scopes,
        allow_from: Vec<IpNet>,
        expires: Option<WallTime>,
        limits: Option<&[LimitTerms]>,
    ) -> Result<KeyTerms> {
        if label.is_empty() || label.chars().count() > MAX_LABEL || label.chars().any(char::is_control) {
            let message = format!("a label is 1 to {MAX_LABEL} characters on one line");
            return OperationError::invalid("label", message);
        }
        let view = self.snapshot();
        let routes: Vec<&str> = view.routes.iter().map(|route| route.name.as_str()).collect();
        let is_unknown = |scope: &&String| !routes.iter().any(|route| glob_matches(scope, route));
        if let Some(scope) = scopes.routes.iter().find(is_unknown) {
            return OperationError::invalid("scopes", format!("scope `{scope}` matches no route"));
        }
        if scopes.routes.len().max(allow_from.len()) > MAX_RULES {
            let field = if scopes.routes.len() > MAX_RULES { "scopes" } else { "allow_from" };
            return OperationError::invalid(field, format!("a list has at most {MAX_RULES} items"));
        }
        if expires.is_some_and(|expires| expires <= self.clock.wall()) {
            return OperationError::invalid("expires", "this key would have expired already");
        }
        Ok(KeyTerms {
            label,
            scopes: Some(scopes).filter(|scopes| !scopes.routes.is_empty()),
            allow_from: Some(allow_from).filter(|networks| !networks.is_empty()),
            expires,
            limits: limits.map(|limits| stored(limits, &routes)).transpose()?,
            spend_limit: None,
            group: None,
        })
    }

    /// Reads a key.
    ///
    /// # Errors
    /// If there is no such key.
    pub async fn key(&self, caller: &Caller, id: KeyId) -> Result<KeyView> {
        let (row, owner) = self.key_of(caller, Permission::ReadAccounts, id).await?;
        Ok(self.describer().key(&row, &owner))
    }

    /// Reads a key that the caller wants to use so.
    pub(super) async fn key_of(
        &self,
        caller: &Caller,
        permission: Permission,
        id: KeyId,
    ) -> Result<OwnedKey> {
        let missing = || OperationError::Missing(format!("there is no key {id}"));
        let found = self.read(move |reader| Ok(reader.key(id)?)).await?;
        caller.may_touch(permission, found.as_ref().map(|(_, owner)| owner), missing)?;
        found.ok_or_else(missing)
    }

    /// Gives a key a new secret. The old one is refused at once, or after `overlap`: a duration or a time.
    ///
    /// # Errors
    /// If there is no such key, it is revoked, or the file defines it.
    pub async fn rotate_key(&self, caller: &Caller, id: KeyId, overlap: Option<String>) -> Result<KeyView> {
        let _alone = self.changes.lock().await;
        let (row, _) = self.key_of(caller, Permission::Keys, id).await?;
        self.refuse_file_key(&row).await?;
        let now = self.clock.wall();
        let overlap_until = overlap.as_deref().map(|text| moment("overlap", text, now)).transpose()?;
        let key = self.new_secret(&row.environment)?;
        let (hash, hint) = (KeyHash::of(key.reveal().as_bytes()), generate::hint(key.reveal()));
        let change = KeyChange::Rotate { hash, hint, overlap_until };
        self.apply_to_key(caller, "key.rotate", id, KeyEdit { version: None, change }, Some(key)).await
    }

    /// Ends the overlap of a rotation: the old secret is refused from now on.
    ///
    /// # Errors
    /// If there is no such key, it is revoked, or the file defines it.
    pub async fn end_overlap(&self, caller: &Caller, id: KeyId) -> Result<KeyView> {
        let _alone = self.changes.lock().await;
        let (row, _) = self.key_of(caller, Permission::Keys, id).await?;
        self.refuse_file_key(&row).await?;
        let edit = KeyEdit { version: None, change: KeyChange::EndOverlap };
        self.apply_to_key(caller, "key.end_overlap", id, edit, None).await
    }

    /// Disables, enables or revokes a key. A key that is not active stops working within a second.
    ///
    /// # Errors
    /// If there is no such key, or it is revoked already.
    pub async fn set_key_state(&self, caller: &Caller, id: KeyId, state: KeyState) -> Result<KeyView> {
        let action = match state {
            KeyState::Active => "key.enable",
            KeyState::Disabled => "key.disable",
            KeyState::Revoked => "key.revoke",
        };
        let _alone = self.changes.lock().await;
        let (row, _) = self.key_of(caller, Permission::Keys, id).await?;
        if state == KeyState::Revoked {
            self.refuse_file_key(&row).await?;
        }
        let edit = KeyEdit { version: None, change: KeyChange::State(state) };
        self.apply_to_key(caller, action, id, edit, None).await
    }

    /// Changes the terms of a key. `version`: the version that the change is based on; `None` for any.
    ///
    /// # Errors
    /// If there is no such key, it was changed since, it is revoked, the terms are not accepted, or the file defines
    /// it.
    pub async fn change_key(
        &self,
        caller: &Caller,
        id: KeyId,
        patch: KeyPatch,
        version: Option<u64>,
    ) -> Result<KeyView> {
        let _alone = self.changes.lock().await;
        let (row, _) = self.key_of(caller, Permission::Keys, id).await?;
        let known = row.limits.as_deref().and_then(restored);
        let replaces = |limits: &Patch<Vec<LimitTerms>>| match limits {
            Patch::Absent => false,
            Patch::Null => known.as_ref().is_some_and(|known| known.iter().any(|limit| !limit.adds)),
            Patch::Value(new) => {
                are_in_place(new) || known.as_ref().is_some_and(|known| known.iter().any(|limit| !limit.adds))
            }
        };
        refuse_of_member(caller, replaces(&patch.limits))?;
        self.refuse_file_key(&row).await?;
        let terms = self.patched_terms(&row, patch)?;
        let edit = KeyEdit { version, change: KeyChange::Terms(terms) };
        self.apply_to_key(caller, "key.change", id, edit, None).await
    }

    /// The terms of a key after a partial change. Only what is changed is checked.
    fn patched_terms(&self, row: &KeyRow, patch: KeyPatch) -> Result<KeyTerms> {
        let KeyPatch { label, scopes, expires, allow_from, limits, spend_limit, group } = patch;
        let spend_limit = match spend_limit.into_option() {
            Some(limit) => limit.map(SpendTerms::checked).transpose()?,
            None => row.spending.limit,
        };
        let now = self.clock.wall();
        let expires = match expires {
            Patch::Value(text) => Patch::Value(moment("expires", &text, now)?),
            Patch::Null => Patch::Null,
            Patch::Absent => Patch::Absent,
        };
        let new = self.check_terms(
            label.unwrap_or_else(|| row.label.clone()),
            scopes.clone().into_value().unwrap_or_default(),
            allow_from.clone().into_value().unwrap_or_default(),
            expires.clone().into_value(),
            limits.clone().into_value().as_deref(),
        )?;
        Ok(KeyTerms {
            label: new.label,
            scopes: if scopes.is_absent() { row.scopes.clone() } else { new.scopes },
            allow_from: if allow_from.is_absent() { row.allow_from.clone() } else { new.allow_from },
            expires: if expires.is_absent() { row.expires } else { new.expires },
            limits: if limits.is_absent() { row.limits.clone() } else { new.limits },
            spend_limit,
            group: group.into_option().unwrap_or_else(|| row.group.clone()),
        })
    }

    /// Changes a key in the ledger, then in the directory. `key`: the new secret of a rotation.
    async fn apply_to_key(
        &self,
        caller: &Caller,
        action: &'static str,
        id: KeyId,
        edit: KeyEdit,
        key: Option<Secret<String>>,
    ) -> Result<KeyView> {
        let describe = self.describer();
        let (notes, output) = caller.noted(action, move |changed: &Changed<OwnedKey>| {
            let view = |(row, owner): &OwnedKey| describe.key(row, owner);
            let mut after = view(&changed.after);
            let (before, terms) = (Some(view(&changed.before).terms()), Some(after.terms()));
            if let Some(key) = &key {
                after.key = ShownKey::Whole(key.clone());
            }
            Noted { object: format!("key/{}", after.id), before, after: terms, output: after }
        });
        let notes = events::telling_of_change(notes, action);
        let Changed { before, after } = self.bookkeeper.change_key(id, edit, notes).await?;
        let (row, owner) = after;
        if row.source == Source::File {
            self.set_file_key_state(row.id, row.state);
        } else if let Some(account) = self.directory.account(&owner) {
            self.put_store_key(&row, &account, &before.0.secrets);
        }
        output.take()
    }
}

/// True if limits replace those of the plan: only an operator sets such limits, since they may be higher.
fn are_in_place(limits: &[LimitTerms]) -> bool {
    limits.is_empty() || limits.iter().any(|limit| !limit.adds)
}

/// Refuses terms that only an operator may set: limits in place of the plan's, and keys that were made elsewhere.
fn refuse_of_member(caller: &Caller, has_such: bool) -> Result<()> {
    if caller.is_customer() && has_such {
        let message = "only an operator sets limits in place of the plan's, or imports a key";
        return Err(OperationError::Forbidden(message.to_owned()));
    }
    Ok(())
}

fn check_environment(environment: &str) -> Result<()> {
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if environment.is_empty() || environment.len() > MAX_ENVIRONMENT || !environment.bytes().all(valid) {
        let message = format!("an environment is 1 to {MAX_ENVIRONMENT} of a-z 0-9, such as live");
        return OperationError::invalid("environment", message);
    }
    Ok(())
}
