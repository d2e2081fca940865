//! Inputs and outputs of operations on keys.

use ipnet::IpNet;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::control::operations::terms::{
    LimitTerms, Patch, SpendTerms, Time, optional_scopes_schema, optional_spending_schema, scopes_schema,
};
use crate::ledger::store::Source;
use crate::policy::key::Scopes;
use crate::types::{AccountId, Credits, GroupName, KeyId, Secret};

fn live() -> String {
    "live".to_owned()
}

/// A key to create.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewKey)]
pub struct KeyInput {
    /// A label for people.
    #[schema(min_length = 1, max_length = 100, example = "production")]
    pub label: String,
    /// The environment in the key's prefix.
    #[serde(default = "live")]
    #[schema(min_length = 1, max_length = 16, pattern = "^[a-z0-9]+$", default = "live")]
    pub environment: String,
    /// Name patterns of the routes that the key may use, `*` for any characters; every route if it is empty.
    #[serde(default)]
    #[schema(schema_with = scopes_schema)]
    pub scopes: Scopes,
    /// When the key expires: a duration from now such as `90d`, or a time; never if it is left out.
    #[serde(default)]
    #[schema(example = "90d")]
    pub expires: Option<String>,
    /// Networks from which the key may be used; any if it is empty.
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 1000, example = json!(["203.0.113.0/24"]))]
    pub allow_from: Vec<IpNet>,
    /// Limits that replace those of the account's plan.
    #[serde(default)]
    #[schema(max_items = 16)]
    pub limits: Option<Vec<LimitTerms>>,
    /// The most credits that the key may spend: in all, or in each period as `{"credits": 100, "every": "day"}`; no limit if
    /// it is left out.
    #[serde(default)]
    #[schema(schema_with = optional_spending_schema)]
    pub spend_limit: Option<SpendTerms>,
    /// The group of the account's keys that the key is in, whose spending limit counts too; in none if it is left out.
    #[serde(default)]
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9._-]{1,64}$")]
    pub group: Option<GroupName>,
    /// SHA-256 of a key that exists already, as 64 hexadecimal digits. Without it, a key is generated.
    #[serde(default)]
    #[schema(pattern = "^[0-9a-fA-F]{64}$")]
    pub sha256: Option<String>,
}

impl KeyInput {
    /// A key with this label and without rules.
    #[must_use]
    pub fn labelled(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            environment: live(),
            scopes: Scopes::default(),
            expires: None,
            allow_from: Vec::new(),
            limits: None,
            spend_limit: None,
            group: None,
            sha256: None,
        }
    }
}

/// Changes of a key. What is left out stays as it is.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyPatch {
    /// A new label.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 100)]
    pub label: Option<String>,
    /// New scopes; null or an empty list for every route.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(schema_with = optional_scopes_schema)]
    pub scopes: Patch<Scopes>,
    /// A new expiry; null for never.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>)]
    pub expires: Patch<String>,
    /// New networks; null or an empty list for any.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<Vec<String>>, max_items = 1000)]
    pub allow_from: Patch<Vec<IpNet>>,
    /// New limits; null for those of the account's plan.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<Vec<LimitTerms>>, max_items = 16)]
    pub limits: Patch<Vec<LimitTerms>>,
    /// A new spending limit; null for none. What the key has spent counts, in the period or in all;
    /// but a limit with another period, or the first one with a period, begins to count now.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(schema_with = optional_spending_schema)]
    pub spend_limit: Patch<SpendTerms>,
    /// Another group, in which the key's charges count from now on; null for none.
    #[serde(default, skip_serializing_if = "Patch::is_absent")]
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9._-]{1,64}$")]
    pub group: Patch<GroupName>,
}

/// The key as it is shown: whole when it was generated just now, otherwise its first and last characters.
#[derive(Clone, Debug)]
pub enum ShownKey {
    /// First and last characters.
    Hint(String),
    /// The whole key.
    Whole(Secret<String>),
}

impl Serialize for ShownKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Hint(text) => serializer.serialize_str(text),
            Self::Whole(key) => serializer.serialize_str(key.reveal()),
        }
    }
}

/// A key.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Key)]
pub struct KeyView {
    /// The key's id.
    #[schema(value_type = String)]
    pub id: KeyId,
    /// The whole key if it was generated by this request, otherwise its first and last characters.
    #[schema(value_type = String)]
    pub key: ShownKey,
    /// The account that the key belongs to.
    #[schema(value_type = String)]
    pub account: AccountId,
    /// A label for people.
    pub label: String,
    /// The environment in the key's prefix; empty for a key of the configuration file.
    pub environment: String,
    /// `active`, `disabled`, `revoked`, or `dropped by the file` if the configuration file no longer defines it.
    pub state: &'static str,
    /// Name patterns of the routes that the key may use; null for every route.
    #[schema(schema_with = optional_scopes_schema)]
    pub scopes: Option<Scopes>,
    /// Networks from which the key may be used; null for any.
    #[schema(value_type = Option<Vec<String>>)]
    pub allow_from: Option<Vec<IpNet>>,
    /// Limits that replace those of the account's plan; null if those apply.
    pub limits: Option<Vec<LimitTerms>>,
    /// The most credits that the key may spend, in all or in each period; null for no limit.
    #[schema(schema_with = optional_spending_schema)]
    pub spend_limit: Option<SpendTerms>,
    /// The group that the key is in; null for none.
    #[schema(value_type = Option<String>)]
    pub group: Option<GroupName>,
    /// The credits that the key has spent in all, as of some seconds ago.
    #[schema(value_type = f64)]
    pub spent: Credits,
    /// The part of them that counts against its spending limit.
    #[schema(value_type = f64)]
    pub spent_in_period: Credits,
    /// When the key expires; null for never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Time>,
    /// When the key was created.
    #[schema(value_type = String, format = DateTime)]
    pub created: Time,
    /// Until when the key's previous secret is accepted too; null if it is not.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub old_secret_until: Option<Time>,
    /// When the key was last used, at most a minute ago; null if never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used: Option<Time>,
    /// `file` if the configuration file defines the key, otherwise `store`.
    #[schema(value_type = String)]
    pub source: Source,
    /// Grows with each change.
    #[serde(skip)]
    pub version: u64,
}

impl KeyView {
    /// What the audit log keeps of the key.
    pub(super) fn terms(&self) -> Value {
        json!({
            "account": self.account,
            "label": self.label,
            "state": self.state,
            "scopes": self.scopes,
            "allow_from": self.allow_from,
            "limits": self.limits,
            "spend_limit": self.spend_limit,
            "group": self.group,
            "expires": self.expires,
            "old_secret_until": self.old_secret_until,
        })
    }
}
