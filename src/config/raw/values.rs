//! Values of settings as they are written, each with its position in the file.

use std::ops::Range;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use toml::Spanned;

/// A value and its position in the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Its range of bytes in the file.
    pub span: Place,
}

/// A range of bytes in the file. All ranges compare as equal, so that values are compared without their position.
#[derive(Clone, Debug, Default)]
pub struct Place(pub Range<usize>);

impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Place {}
impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Place {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<T>::deserialize(deserializer)?;
        let span = Place(spanned.span());
        Ok(Self { value: spanned.into_inner(), span })
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
    fn inline_schema() -> bool {
        T::inline_schema()
    }
}

/// Defines the type of a setting that is a string with its own syntax.
macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $schema:tt) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
            fn inline_schema() -> bool {
                true
            }
        }
    };
}

text_type!(
    /// A length of time: `"250ms"`, `"10s"`, `"5m"`, `"24h"`, `"90d"`.
    Duration,
    { "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$", "examples": ["10s", "24h"] }
);
text_type!(
    /// A number of bytes: `"512B"`, `"32KiB"`, `"100MiB"`, `"1GiB"`.
    Size,
    { "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$", "examples": ["32KiB"] }
);
text_type!(
    /// A share: `"50%"`.
    Percent,
    { "type": "string", "pattern": "^[0-9]+%$", "examples": ["50%"] }
);
text_type!(
    /// A share of requests, with at most four decimals: `"0.1%"`.
    Sample,
    { "type": "string", "pattern": "^[0-9]+(\\.[0-9]{1,4})?%$", "examples": ["1%"] }
);
text_type!(
    /// A SHA-256 as 64 hexadecimal digits; also `"env:NAME"` or `"file:PATH"`.
    Sha256,
    { "type": "string", "pattern": "^([0-9a-fA-F]{64}|env:.+|file:.+)$", "writeOnly": true }
);
text_type!(
    /// A value that may be secret, so messages never quote it; also `"env:NAME"` or `"file:PATH"`.
    Secret,
    { "type": "string", "writeOnly": true }
);

/// Credits: an integer, a decimal or a string, with at most six decimals. A decimal is parsed from
/// the file's text, not from a float, so that it is exact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Amount {
    /// `8500`
    Whole(i64),
    /// `0.25`: parsed from the file's text at the value's position.
    Decimal,
    /// `"0.25"`
    Text(String),
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AmountVisitor;
        impl Visitor<'_> for AmountVisitor {
            type Value = Amount;
            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("credits (a number or a string)")
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Amount, E> {
                Ok(Amount::Whole(value))
            }
            fn visit_f64<E: Error>(self, _: f64) -> Result<Amount, E> {
                Ok(Amount::Decimal)
            }
            fn visit_str<E: Error>(self, value: &str) -> Result<Amount, E> {
                Ok(Amount::Text(value.to_owned()))
            }
        }
        deserializer.deserialize_any(AmountVisitor)
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Credits".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "number", "string"], "examples": [8500, 0.25, "0.25"] })
    }
    fn inline_schema() -> bool {
        true
    }
}
