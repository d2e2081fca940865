//! Checks the parsed tree of a file against the schema of [`super::raw`], so that all mismatches are reported
//! together. serde alone would stop at the first.

use std::ops::Range;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeArray, DeInteger, DeString, DeTable, DeValue};

use super::raw;

/// A value or a name that does not match the schema.
#[derive(Debug)]
pub(super) struct Mistake {
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) help: Option<String>,
    /// A name is unknown or missing, which may be the consequence of an earlier syntax error.
    pub(super) is_about_names: bool,
}

/// The schema mismatches of one file.
#[derive(Debug, Default)]
pub(super) struct Mistakes {
    pub(super) list: Vec<Mistake>,
    /// Top-level settings that contain a mismatch.
    pub(super) sections: Vec<String>,
}

/// Removes every value that does not match the schema from a file's tree, so that the rest can be read into
/// [`raw::File`]. Returns the mismatches.
pub(super) fn fit(file: &mut DeTable<'_>) -> Mistakes {
    let schema = raw::schema();
    let mut checker = Checker { root: schema, mistakes: Vec::new() };
    let mut sections = Vec::new();
    let mut unfit = Vec::new();
    for (name, value) in file.iter_mut() {
        let before = checker.mistakes.len();
        if !checker.member(name, value, schema) {
            unfit.push(name.get_ref().to_string());
        }
        if checker.mistakes.len() > before {
            sections.push(name.get_ref().to_string());
        }
    }
    for name in unfit {
        file.remove(name.as_str());
    }
    Mistakes { list: checker.mistakes, sections }
}

struct Checker<'s> {
    root: &'s Value,
    mistakes: Vec<Mistake>,
}

impl<'s> Checker<'s> {
    /// Checks a setting against the schema of its table, and removes the parts of it that do not match. Returns false
    /// if the whole setting must be removed.
    fn member(
        &mut self,
        name: &Spanned<DeString<'_>>,
        value: &mut Spanned<DeValue<'_>>,
        table: &'s Value,
    ) -> bool {
        let known = table["properties"].as_object();
        let own = known.and_then(|known| known.get(name.get_ref().as_ref()));
        let others = Some(&table["additionalProperties"]).filter(|schema| schema.is_object());
        if let Some(schema) = own.or(others) {
            return self.value(value, schema);
        }
        let names = known.into_iter().flat_map(|known| known.keys().map(String::as_str));
        let help = suggest(name.get_ref(), names);
        let message = format!("unknown setting `{}`", name.get_ref());
        self.mistakes.push(Mistake { span: name.span(), message, help, is_about_names: true });
        false
    }

    fn value(&mut self, value: &mut Spanned<DeValue<'_>>, schema: &'s Value) -> bool {
        let schema = self.resolve(schema);
        let span = value.span();
        if schema["not"].is_object() {
            *value.get_mut() = DeValue::Boolean(true); // not supported yet: any value is accepted here
            return true;
        }
        match value.get_mut() {
            DeValue::Table(table) if allows(schema, "object") => self.table(table, &span, schema),
            DeValue::Array(array) if allows(schema, "array") => {
                self.array(array, &schema["items"]);
                true
            }
            value => match scalar(value, schema) {
                Ok(()) => true,
                Err(message) => {
                    self.mistakes.push(Mistake { span, message, help: None, is_about_names: false });
                    false
                }
            },
        }
    }

    fn table(&mut self, table: &mut DeTable<'_>, span: &Range<usize>, schema: &'s Value) -> bool {
        let required = || schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        for name in required().filter(|name| !table.contains_key(*name)) {
            let message = format!("the setting `{name}` is missing");
            self.mistakes.push(Mistake { span: span.clone(), message, help: None, is_about_names: true });
        }
        let mut unfit = Vec::new();
        for (name, value) in table.iter_mut() {
            if !self.member(name, value, schema) {
                unfit.push(name.get_ref().to_string());
            }
        }
        for name in unfit {
            table.remove(name.as_str());
        }
        required().all(|name| table.contains_key(name))
    }

    fn array(&mut self, array: &mut DeArray<'_>, schema: &'s Value) {
        let values = std::mem::replace(array, DeArray::new()).into_iter();
        *array = values.filter_map(|mut value| self.value(&mut value, schema).then_some(value)).collect();
    }

    /// Resolves references (`$ref`) and skips the `null` variant of optional settings, since TOML has no null.
    fn resolve(&self, mut schema: &'s Value) -> &'s Value {
        loop {
            let mut variants = schema["anyOf"].as_array().into_iter().flatten();
            let variant = variants.find(|schema| schema["type"] != "null");
            let target =
                schema["$ref"].as_str().and_then(|target| self.root.pointer(target.strip_prefix('#')?));
            match variant.or(target) {
                Some(next) => schema = next,
                None => return schema,
            }
        }
    }
}

/// The types that a schema allows, without `null`.
fn types(schema: &Value) -> impl Iterator<Item = &str> {
    let one = schema["type"].as_str().into_iter();
    let several = schema["type"].as_array().into_iter().flatten().filter_map(Value::as_str);
    one.chain(several).filter(|name| *name != "null")
}

fn allows(schema: &Value, name: &str) -> bool {
    types(schema).any(|allowed| allowed == name)
}

/// Checks a scalar value, or reports a table or list that the schema does not allow. The message does not quote the
/// value, because it may be a secret.
fn scalar(value: &DeValue<'_>, schema: &Value) -> Result<(), String> {
    let is_time = schema["format"] == "date-time";
    let fits = match value {
        DeValue::Integer(integer) if allows(schema, "integer") => return in_range(integer, schema),
        DeValue::Float(float) if allows(schema, "number") => {
            let finite = float.as_str().parse::<f64>().is_ok_and(f64::is_finite);
            return if finite { Ok(()) } else { Err("this is not a finite number".to_owned()) };
        }
        DeValue::String(_) => allows(schema, "string") && !is_time,
        DeValue::Datetime(_) => is_time,
        DeValue::Boolean(_) => allows(schema, "boolean"),
        _ => false,
    };
    if fits {
        return Ok(());
    }
    let expected: Vec<&str> = match is_time {
        true => vec!["a date-time"],
        false => types(schema)
            .map(|name| match name {
                "integer" => "an integer",
                "number" => "a decimal number",
                "boolean" => "true or false",
                "array" => "a list [ … ]",
                "object" => "a table",
                _ => "a string",
            })
            .collect(),
    };
    let found = match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date-time",
        DeValue::Array(_) => "a list [ … ]",
        DeValue::Table(_) => "a table",
    };
    Err(format!("wrong type: this is {found}, expected {}", expected.join(" or ")))
}

fn in_range(integer: &DeInteger<'_>, schema: &Value) -> Result<(), String> {
    let (least, most) = match schema["format"].as_str() {
        Some("uint16") => (0, u16::MAX.into()),
        Some("uint32") => (0, u32::MAX.into()),
        _ => (i64::MIN, i64::MAX),
    };
    match i64::from_str_radix(integer.as_str(), integer.radix()) {
        Ok(value) if (least..=most).contains(&value) => Ok(()),
        _ => Err(format!("wrong value: expected an integer from {least} to {most}")),
    }
}

/// Suggests the known name closest to a wrong one (edit distance). If no known name is close, lists all of them,
/// unless there are more than 12.
pub(super) fn suggest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let known: Vec<&str> = known.collect();
    let distance = |name: &&&str| strsim::damerau_levenshtein(wrong, name);
    let nearest = known.iter().min_by_key(distance)?;
    if strsim::damerau_levenshtein(wrong, nearest) <= 1 + nearest.len() / 3 {
        return Some(format!("did you mean `{nearest}`?"));
    }
    match known.len() {
        0 => None,
        1..=12 => Some(format!("known here: {}", known.join(", "))),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
