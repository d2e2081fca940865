//! Spending limits of operations' inputs and outputs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};

use crate::control::operations::error::{OperationError, Result};
use crate::policy::credit::refill::Every;
use crate::policy::credit::{MAX_BALANCE, SpendLimit};
use crate::types::Credits;

/// A spending limit: credits, or credits in each period as `{"credits": 100, "every": "day"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpendTerms(pub SpendLimit);

/// The longer form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WithPeriod {
    credits: Credits,
    #[serde(default)]
    every: Option<String>,
}

impl Serialize for SpendTerms {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let SpendLimit { credits, every } = self.0;
        match every {
            None => credits.serialize(serializer),
            Some(every) => json!({ "credits": credits, "every": every.name() }).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for SpendTerms {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        use serde::de::Error;
        let value = serde_json::Value::deserialize(deserializer)?;
        let WithPeriod { credits, every } = match value.is_object() {
            true => serde_json::from_value(value).map_err(D::Error::custom)?,
            false => {
                let credits = serde_json::from_value(value).map_err(D::Error::custom)?;
                WithPeriod { credits, every: None }
            }
        };
        let named = |name: String| {
            let found = Every::ALL.into_iter().find(|every| every.name() == name);
            found.ok_or_else(|| D::Error::custom("`every` is hour, day, week, month or year"))
        };
        Ok(Self(SpendLimit { credits, every: every.map(named).transpose()? }))
    }
}

impl fmt::Display for SpendTerms {
    /// Writes `100`, or `100/day`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SpendLimit { credits, every } = self.0;
        match every {
            None => write!(out, "{credits}"),
            Some(every) => write!(out, "{credits}/{}", every.name()),
        }
    }
}

impl FromStr for SpendTerms {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (credits, every) = match text.split_once('/') {
            Some((credits, every)) => (credits, Some(every.trim())),
            None => (text, None),
        };
        let named = |name: &str| Every::ALL.into_iter().find(|every| every.name() == name);
        let credits = credits.trim().replace(',', "").parse().ok();
        match (credits, every.map(named)) {
            (Some(credits), None) => Ok(Self(SpendLimit { credits, every: None })),
            (Some(credits), Some(Some(every))) => Ok(Self(SpendLimit { credits, every: Some(every) })),
            _ => Err("a spending limit looks like 100, or 100/day (hour, day, week, month, year)".to_owned()),
        }
    }
}

impl SpendTerms {
    /// The limit, if it is not negative.
    pub(in crate::control::operations) fn checked(self) -> Result<SpendLimit> {
        if self.0.credits.is_negative() {
            return OperationError::invalid("spend_limit", "a spending limit is not negative");
        }
        if self.0.credits > MAX_BALANCE {
            let message = format!("a spending limit is at most {MAX_BALANCE} credits");
            return OperationError::invalid("spend_limit", message);
        }
        Ok(self.0)
    }
}

fn forms() -> OneOfBuilder {
    let number = || ObjectBuilder::new().schema_type(SchemaType::Type(Type::Number)).minimum(Some(0));
    let every = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .enum_values(Some(Every::ALL.map(Every::name)));
    let table = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::Object))
        .property("credits", number())
        .property("every", every)
        .required("credits")
        .additional_properties(Some(utoipa::openapi::schema::AdditionalProperties::<Schema>::FreeForm(
            false,
        )));
    OneOfBuilder::new().item(number()).item(table)
}

/// A spending limit.
pub(in crate::control) fn spending_schema() -> Schema {
    Schema::OneOf(forms().build())
}

/// A spending limit or null.
pub(in crate::control) fn optional_spending_schema() -> Schema {
    Schema::OneOf(forms().item(ObjectBuilder::new().schema_type(SchemaType::Type(Type::Null))).build())
}
