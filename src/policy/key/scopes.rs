//! Defines the scopes of a key: the routes that it may use.

use serde::{Deserialize, Serialize};

use crate::policy::route::glob_matches;

/// The routes that a key may use. As text it is a list of patterns, or `{ routes, shadow }`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Form", into = "Form")]
pub struct Scopes {
    /// Name patterns of the routes; `*` matches any characters.
    pub routes: Box<[String]>,
    /// True if requests to other routes are not refused, but counted as if they were.
    pub shadow: bool,
}

/// The two ways to write scopes.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "scopes are a list of patterns, or { routes, shadow }")]
enum Form {
    List(Box<[String]>),
    Table(Table),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    routes: Box<[String]>,
    #[serde(default)]
    shadow: bool,
}

impl From<Form> for Scopes {
    fn from(form: Form) -> Self {
        match form {
            Form::List(routes) => Self { routes, shadow: false },
            Form::Table(Table { routes, shadow }) => Self { routes, shadow },
        }
    }
}

impl From<Scopes> for Form {
    fn from(Scopes { routes, shadow }: Scopes) -> Self {
        if shadow { Self::Table(Table { routes, shadow }) } else { Self::List(routes) }
    }
}

impl Scopes {
    /// Scopes that refuse requests to other routes.
    #[must_use]
    pub fn of(routes: Vec<String>) -> Self {
        Self { routes: routes.into(), shadow: false }
    }

    /// True if the routes include this one.
    #[must_use]
    pub fn include(&self, route: &str) -> bool {
        self.routes.iter().any(|pattern| glob_matches(pattern, route))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_written_as_a_list_unless_they_are_shadows() {
        for (text, shadow) in [(r#"["a","b.*"]"#, false), (r#"{"routes":["a","b.*"],"shadow":true}"#, true)] {
            let scopes: Scopes = serde_json::from_str(text).unwrap();
            assert_eq!((scopes.shadow, scopes.include("b.c"), scopes.include("c")), (shadow, true, false));
            assert_eq!(serde_json::to_string(&scopes).unwrap(), text);
        }
        assert_eq!(
            serde_json::from_str::<Scopes>(r#"{"routes":["a"]}"#).unwrap(),
            Scopes::of(vec!["a".into()])
        );
        let error = serde_json::from_str::<Scopes>(r#"{"routes":["a"],"x":1}"#).unwrap_err().to_string();
        assert!(error.contains("scopes are a list"), "{error}");
    }
}
