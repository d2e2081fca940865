//! Prices as they are written in the file.

use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use super::values::{Amount, At, Duration, Secret};
use super::{Maybe, Named};

/// Credits, or something else that is a list or a table.
#[derive(Clone, Debug)]
pub enum AmountOr<T> {
    /// Credits.
    Amount(Amount),
    /// Something else.
    Other(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for AmountOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AmountVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for AmountVisitor<T> {
            type Value = AmountOr<T>;
            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("credits, a list or a table")
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
                Ok(AmountOr::Amount(Amount::Whole(value)))
            }
            fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
                Ok(AmountOr::Amount(Amount::Decimal))
            }
            fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
                Ok(AmountOr::Amount(Amount::Text(value.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                T::deserialize(SeqAccessDeserializer::new(list)).map(AmountOr::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(AmountOr::Other)
            }
        }
        deserializer.deserialize_any(AmountVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for AmountOr<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("CreditsOr{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = T::json_schema(generator);
        let object = schema.ensure_object();
        let other = object.remove("type").unwrap_or(Value::Null);
        object.insert("type".to_owned(), json!(["integer", "number", "string", other]));
        schema
    }
    fn inline_schema() -> bool {
        true
    }
}

/// A hold for each item of the request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PerItem {
    /// The credits for each item.
    pub each: At<Amount>,
    /// Where the JSON array of items is in the request: `"/records"`.
    pub of: At<String>,
    /// Most items; a request with more is refused.
    pub max_items: At<u32>,
}

/// One charge of a price.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Charge {
    /// The statuses that it applies to: `"2xx"` (the default) or `"404"`.
    #[serde(default)]
    pub status: Maybe<String>,
    /// What the response must contain too: `{ "json:/qualification" = "found" }`.
    #[serde(default)]
    pub when: Named<Plain>,
    /// A fixed amount, or a list of terms that are added.
    #[serde(default)]
    pub credits: Maybe<AmountOr<Vec<At<AmountOr<Each>>>>>,
    /// Where the upstream's response names the amount: `"header:NAME"`, `"trailer:NAME"`, `"json:/pointer"` or
    /// `"last-event:/pointer"`.
    #[serde(default)]
    pub from: Maybe<String>,
}

/// A term of a price: a number of the response times a factor.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Each {
    /// As in a charge; also `"items"`, `"held"`, `"MiB"` and `"seconds"`.
    pub from: At<String>,
    /// The credits for each; default: 1. May have more than six decimals, and be negative.
    #[serde(default)]
    pub each: Maybe<Amount>,
    /// If the response does not have the number, it counts as 0.
    #[serde(default)]
    pub optional: Maybe<bool>,
}

/// A text, a number or a boolean, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plain {
    /// `"found"`
    Text(String),
    /// `true`
    Bool(bool),
    /// `12` or `0.5`: read from the file's text at its position.
    Number,
    /// One of several.
    List(Vec<At<Plain>>),
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PlainVisitor;
        impl<'de> Visitor<'de> for PlainVisitor {
            type Value = Plain;
            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("a string, a number, a boolean or a list of them")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Plain, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Plain::List)
            }
            fn visit_bool<E: Error>(self, value: bool) -> Result<Plain, E> {
                Ok(Plain::Bool(value))
            }
            fn visit_i64<E: Error>(self, _: i64) -> Result<Plain, E> {
                Ok(Plain::Number)
            }
            fn visit_f64<E: Error>(self, _: f64) -> Result<Plain, E> {
                Ok(Plain::Number)
            }
            fn visit_str<E: Error>(self, value: &str) -> Result<Plain, E> {
                Ok(Plain::Text(value.to_owned()))
            }
        }
        deserializer.deserialize_any(PlainVisitor)
    }
}

impl JsonSchema for Plain {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Plain".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "boolean", "integer", "number", "array"],
            "items": { "type": ["string", "boolean", "integer", "number"] }
        })
    }
    fn inline_schema() -> bool {
        true
    }
}

/// How a request opens a job, whose price is known only later.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Opens {
    /// Where a 2xx response has the id of the job: `"json:/id"` or `"header:NAME"`.
    pub id: At<String>,
    /// Longest time until the job is settled.
    pub deadline: At<Duration>,
    /// `release` (the default) or `charge`: what happens to the hold at the deadline.
    #[serde(default)]
    pub at_deadline: Maybe<String>,
}

/// How a request settles a job that an earlier one opened.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settles {
    /// Where the request has the id of the job: `"path:NAME"` or `"query:NAME"`.
    pub id: At<String>,
    /// The status of a response that tells of a job that is done; default: `"2xx"`.
    #[serde(default)]
    pub status: Maybe<String>,
    /// What such a response contains too: `{ "json:/status" = ["completed", "failed"] }`.
    #[serde(default)]
    pub done: Named<Plain>,
    /// What the job costs: an amount, a place in the response such as `"json:/credits"`, or a list of terms.
    #[serde(default)]
    pub credits: Maybe<AmountOr<Vec<At<AmountOr<Each>>>>>,
    /// Or charges, of which the first that matches counts; without a match the job costs nothing.
    #[serde(default)]
    pub charge: Maybe<Vec<At<Charge>>>,
}

/// A path at which an upstream tells about jobs, in requests that are signed as Standard Webhooks says.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// The path pattern, as of a route.
    pub path: At<String>,
    /// The secret that signs: `whsec_` and base64, or `env:` or `file:`.
    pub secret: At<Secret>,
    /// Where a request has the id of the job: `"path:NAME"`, `"query:NAME"` or `"json:/pointer"`.
    pub id: At<String>,
    /// What a request contains that tells of a job that is done.
    #[serde(default)]
    pub done: Named<Plain>,
    /// What the job costs, as in a route's `settles`.
    #[serde(default)]
    pub credits: Maybe<AmountOr<Vec<At<AmountOr<Each>>>>>,
    /// Or charges, of which the first that matches counts.
    #[serde(default)]
    pub charge: Maybe<Vec<At<Charge>>>,
}
