//! Parses limits that do not stand in a configuration file: those of keys that were created by command.

use serde::Deserialize;
use serde_json::Value;

use super::parse::limits;
use super::raw::{self, At};
use crate::policy::limit::Limit;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    limits: Vec<At<raw::Limit>>,
}

/// Parses limits in JSON, with the names and rules of the configuration file.
///
/// # Errors
/// What is wrong with them.
pub fn parse_limits(json: &str, routes: &[&str]) -> Result<Vec<Limit>, Vec<String>> {
    let list = read(json).map_err(|error| vec![error])?;
    limits::of_key(&list.limits, Some(routes))
}

/// Parses limits that were accepted before. Routes that no longer exist are no error. `None` if they cannot be read.
#[must_use]
pub fn parse_stored_limits(json: &str) -> Option<Vec<Limit>> {
    limits::of_key(&read(json).ok()?.limits, None).ok()
}

fn read(json: &str) -> Result<List, String> {
    // A TOML document is made of them, since the types that mirror the file are read from TOML.
    let limits: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let table = toml::Table::from_iter([("limits".to_owned(), toml_of(limits))]);
    toml::from_str(&table.to_string()).map_err(|error| error.message().to_owned())
}

/// The same value in TOML. TOML has no null, so fields without a value are left out.
fn toml_of(value: Value) -> toml::Value {
    match value {
        Value::Null => toml::Value::String(String::new()),
        Value::Bool(is_true) => toml::Value::Boolean(is_true),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => toml::Value::Integer(whole),
            None => toml::Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => toml::Value::String(text),
        Value::Array(list) => toml::Value::Array(list.into_iter().map(toml_of).collect()),
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            toml::Value::Table(fields.map(|(name, value)| (name, toml_of(value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_checked_as_in_the_file() {
        let good = r#"[{"name":"m","requests":5,"window":"60s","scope":"account","routes":["a.*"]}]"#;
        let limits = parse_limits(good, &["a.b"]).unwrap();
        assert_eq!((&*limits[0].name, limits[0].requests, limits[0].window.as_secs()), ("m", 5, 60));
        assert!(parse_limits(good, &["b"]).unwrap_err()[0].contains("a.*"));
        assert_eq!(parse_stored_limits(good).unwrap(), limits);
        for bad in [
            "{}",
            "[1]",
            r#"[{"name":"m","requests":0,"window":"60s"}]"#,
            r#"[{"name":"m","requests":5,"window":"forever"}]"#,
            r#"[{"name":"m","requests":5,"window":"60s","colour":"red"}]"#,
            r#"[{"name":"m","requests":5,"window":"60s"},{"name":"m","requests":6,"window":"60s"}]"#,
        ] {
            assert!(!parse_limits(bad, &[]).unwrap_err().is_empty(), "{bad}");
        }
    }
}
