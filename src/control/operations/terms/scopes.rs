//! Describes how scopes are written in JSON, for OpenAPI.

use utoipa::openapi::schema::{AdditionalProperties, SchemaType, Type};
use utoipa::openapi::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema};

/// Most patterns of one key.
const MAX_PATTERNS: usize = 1_000;

fn patterns() -> ArrayBuilder {
    let pattern = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String));
    ArrayBuilder::new().items(pattern).max_items(Some(MAX_PATTERNS))
}

fn forms() -> OneOfBuilder {
    let shadow = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::Boolean))
        .description(Some("True if requests to other routes are not refused, but counted as if they were."));
    let table = ObjectBuilder::new()
        .property("routes", patterns())
        .property("shadow", shadow)
        .required("routes")
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    OneOfBuilder::new().item(patterns()).item(table)
}

/// Scopes: a list of patterns, or a table.
pub(in crate::control) fn scopes_schema() -> Schema {
    Schema::OneOf(forms().build())
}

/// Scopes or null.
pub(in crate::control) fn optional_scopes_schema() -> Schema {
    Schema::OneOf(forms().item(ObjectBuilder::new().schema_type(SchemaType::Type(Type::Null))).build())
}
