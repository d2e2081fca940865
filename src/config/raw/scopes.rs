//! The scopes of a key as they are written in the file.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::values::At;

/// The scopes of a key: a list of patterns, or a table.
#[derive(Clone, Debug)]
pub struct Scopes {
    /// Patterns of routes.
    pub routes: Vec<At<String>>,
    /// Refuse nothing, but count what they would refuse.
    pub shadow: bool,
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            routes: Vec<At<String>>,
            #[serde(default)]
            shadow: bool,
        }
        struct ScopesVisitor;
        impl<'de> Visitor<'de> for ScopesVisitor {
            type Value = Scopes;
            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("a list of patterns or a table { routes, shadow }")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Scopes, A::Error> {
                let routes = Vec::deserialize(SeqAccessDeserializer::new(list))?;
                Ok(Scopes { routes, shadow: false })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Scopes, A::Error> {
                let Table { routes, shadow } = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Scopes { routes, shadow })
            }
        }
        deserializer.deserialize_any(ScopesVisitor)
    }
}

impl JsonSchema for Scopes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Scopes".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["array", "object"],
            "items": { "type": "string" },
            "properties": {
                "routes": { "type": "array", "items": { "type": "string" }, "description": "Patterns of routes." },
                "shadow": {
                    "type": "boolean",
                    "description": "Refuse nothing, but count what they would refuse."
                }
            },
            "required": ["routes"],
            "additionalProperties": false,
            "examples": [["people.*"], { "routes": ["people.*"], "shadow": true }]
        })
    }
    fn inline_schema() -> bool {
        true
    }
}
