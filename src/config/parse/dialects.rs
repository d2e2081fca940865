//! Parses `[errors]` and `[dialects]`: the error responses for refused requests.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use serde::Deserialize;

use super::context::{Context, named, single};
use crate::config::raw::{self, At};
use crate::policy::reject::{Dialect, PLACEHOLDERS, Reason, Template, placeholder_at};

/// The built-in dialects.
const BUILT_IN: [(&str, &str); 3] = [
    ("problem", include_str!("../../dialects/problem.toml")),
    ("apione", include_str!("../../dialects/apione.toml")),
    ("enrow", include_str!("../../dialects/enrow.toml")),
];
/// Name of the template for all reasons that have no template of their own.
const DEFAULT: &str = "default";

type Templates = BTreeMap<At<String>, At<raw::Template>>;

/// Builds all dialects. Returns them, and the default dialect, which is that of `[errors]`.
pub(super) fn build(
    context: &mut Context,
    files: &[raw::File],
) -> (HashMap<String, Arc<Dialect>>, Arc<Dialect>) {
    let mut dialects: HashMap<String, Arc<Dialect>> = HashMap::new();
    let mut problem = None;
    for (name, text) in BUILT_IN {
        // The built-in dialects are part of the binary, and a test parses each of them.
        let templates: Templates = Templates::deserialize(
            toml::Deserializer::parse(text)
                .unwrap_or_else(|error| unreachable!("the built-in dialect {name} is TOML: {error}")),
        )
        .unwrap_or_default();
        let dialect = Arc::new(dialect(context, &templates, problem.as_deref()));
        problem.get_or_insert_with(|| Arc::clone(&dialect));
        dialects.insert(name.to_owned(), dialect);
    }
    for (name, templates) in named(context, files, "dialect", |file| &file.dialects) {
        context.file = templates.file;
        if dialects.contains_key(&name.value) {
            context.error(&name.span, format!("`{}` is built in; choose another name", name.value));
            continue;
        }
        let dialect = dialect(context, &templates.item.value, problem.as_deref());
        dialects.insert(name.value.clone(), Arc::new(dialect));
    }
    let errors = single(context, files, "errors", |file| file.errors.as_ref());
    let chosen = errors.dialect.and_then(|name| find(context, &dialects, &name));
    let default = chosen.or(problem).unwrap_or_else(|| unreachable!("`problem` is built in"));
    (dialects, default)
}

/// Finds a dialect by its name, or reports that there is none.
pub(super) fn find(
    context: &mut Context,
    dialects: &HashMap<String, Arc<Dialect>>,
    name: &At<String>,
) -> Option<Arc<Dialect>> {
    let found = dialects.get(&name.value).cloned();
    if found.is_none() && !context.is_cut("dialects") {
        context.unknown("dialect", name, dialects.keys().map(String::as_str));
    }
    found
}

/// Builds a dialect. A setting that the template of a reason leaves out is taken from the template
/// `default`; a body that both leave out is taken from `base`.
fn dialect(context: &mut Context, templates: &Templates, base: Option<&Dialect>) -> Dialect {
    for (name, template) in templates {
        if name.value != DEFAULT && Reason::from_code(&name.value).is_none() {
            let known = Reason::ALL.iter().map(|reason| reason.code()).chain([DEFAULT]);
            context.unknown("reason", name, known);
        }
        check(context, &template.value);
    }
    let by_name = |name: &str| templates.iter().find(|(key, _)| key.value == name).map(|(_, t)| &t.value);
    let common = by_name(DEFAULT);
    Dialect::new(|reason| {
        let own = by_name(reason.code());
        let base = base.map(|base| base.template(reason));
        let body = pick(own, common, |template| template.body.as_ref());
        let content_type = pick(own, common, |template| template.content_type.as_ref());
        let status = pick(own, common, |template| template.status.as_ref());
        let status = status.and_then(|status| StatusCode::from_u16(status.value).ok());
        let code = pick(own, common, |template| template.code.as_ref());
        let message = pick(own, common, |template| template.message.as_ref());
        let json = HeaderValue::from_static("application/json");
        let fallback = if body.is_some() { None } else { base };
        Template {
            status: status.unwrap_or_else(|| reason.status()),
            code: code.map_or_else(|| reason.code().to_owned(), |code| code.value.clone()),
            message: message.map(|message| message.value.clone()),
            content_type: content_type
                .and_then(|value| HeaderValue::try_from(&value.value).ok())
                .or_else(|| fallback.map(|base| base.content_type.clone()))
                .unwrap_or(json),
            body: body
                .map(|body| body.value.clone())
                .or_else(|| fallback.map(|base| base.body.clone()))
                .unwrap_or_default(),
        }
    })
}

fn pick<'a, T>(
    own: Option<&'a raw::Template>,
    common: Option<&'a raw::Template>,
    field: impl Fn(&'a raw::Template) -> Option<&'a T>,
) -> Option<&'a T> {
    own.and_then(&field).or_else(|| common.and_then(&field))
}

fn check(context: &mut Context, template: &raw::Template) {
    if let Some(status) = template.status.as_ref().filter(|status| !(400..600).contains(&status.value)) {
        context.error(&status.span, "a refusal's status is from 400 to 599");
    }
    if let Some(content_type) = &template.content_type {
        context.header_value(&content_type.span, &content_type.value);
    }
    for text in template.body.iter().chain(&template.message) {
        let names = (0..text.value.len()).filter_map(|at| placeholder_at(&text.value, at));
        if let Some(unknown) = names.into_iter().find(|name| !PLACEHOLDERS.contains(name)) {
            let help = crate::config::shape::suggest(unknown, PLACEHOLDERS.into_iter());
            let message = format!("there is no placeholder {{{unknown}}}");
            context.add(crate::config::Severity::Error, &text.span, message, help);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_dialects_are_templates() {
        for (name, text) in BUILT_IN {
            let templates: Templates = toml::from_str(text).unwrap();
            assert!(templates.keys().any(|key| key.value == DEFAULT), "{name}");
        }
    }
}
