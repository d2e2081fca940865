//! Masks secrets in quoted lines of a file: values of settings that the schema marks as secret, and any
//! text that looks like a key, a hash or a password.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::LazyLock;

use toml::de::{DeTable, DeValue};

use super::raw;

/// Shortest run of word characters that is treated as a key, if it contains both letters and digits.
const MIN_KEY: usize = 20;
const HIDDEN: &str = "***";

/// Settings that the schema marks as secret (`writeOnly`), such as `sha256` and `set_headers`.
static SECRET_SETTINGS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let (schema, mut names) = (raw::schema(), BTreeSet::new());
    let definitions = schema["$defs"].as_object().into_iter().flat_map(|definitions| definitions.values());
    for (name, setting) in definitions.filter_map(|definition| definition["properties"].as_object()).flatten()
    {
        // The mark may be on the setting itself, on the items of a list or on the values of a table.
        if setting.to_string().contains("\"writeOnly\":true") {
            names.insert(name.clone());
        }
    }
    names
});

/// Finds the byte ranges of secret settings' values in a file, in any notation of TOML. If the file has
/// syntax errors, every value below a heading that names a secret table counts as secret too.
pub(super) fn secret_places(text: &str) -> Vec<Range<usize>> {
    fn walk(table: &DeTable<'_>, within: bool, found: &mut Vec<Range<usize>>) {
        for (key, value) in table {
            let secret = within || SECRET_SETTINGS.contains(key.get_ref().as_ref());
            take(value.get_ref(), value.span(), secret, found);
        }
    }
    fn take(value: &DeValue<'_>, place: Range<usize>, secret: bool, found: &mut Vec<Range<usize>>) {
        match value {
            DeValue::Table(table) => walk(table, secret, found),
            DeValue::Array(array) => {
                array.iter().for_each(|item| take(item.get_ref(), item.span(), secret, found));
            }
            _ if secret => found.push(place),
            _ => {}
        }
    }
    let (tree, mistakes) = DeTable::parse_recoverable(text);
    let mut found = Vec::new();
    walk(tree.get_ref(), false, &mut found);
    if !mistakes.is_empty() {
        found.extend(below_secret_headings(text));
    }
    found
}

/// Finds the byte ranges of values below headings of secret tables, such as `[….set_headers]`: everything
/// after the equals sign of each line.
fn below_secret_headings(text: &str) -> Vec<Range<usize>> {
    let (mut found, mut at, mut secret) = (Vec::new(), 0, false);
    for line in text.split_inclusive('\n') {
        if let Some(heading) = line.trim().strip_prefix('[') {
            let name = heading.split(']').next().unwrap_or_default().rsplit('.').next().unwrap_or_default();
            secret = SECRET_SETTINGS.contains(name.trim().trim_matches(['"', '\'']));
        } else if secret {
            let value = line.find('=').map_or(0, |equals| equals + 1);
            found.push(at + value..at + line.trim_end().len().max(value));
        }
        at += line.len();
    }
    found
}

/// Masks everything in a text that looks like a key, a hash or a password.
#[must_use]
pub fn mask(text: &str) -> String {
    mask_line(text, 0..0, &[]).0
}

/// Masks a line, including the given secret ranges, and adjusts a span to the masked text. A span that
/// overlaps a masked range covers the whole mask.
pub(super) fn mask_line(line: &str, span: Range<usize>, places: &[Range<usize>]) -> (String, Range<usize>) {
    let ranges = merged(hidden_ranges(line), places.iter().map(|place| within_quotes(line, place)));
    let mut text = String::with_capacity(line.len());
    let (mut start, mut end) = (None, None);
    let mut at = 0;
    for hidden in &ranges {
        let before = text.len();
        text.push_str(&line[at..hidden.start]);
        let moved = |place: usize| (place <= hidden.start).then(|| before + place - at);
        start = start.or_else(|| moved(span.start));
        end = end.or_else(|| moved(span.end));
        let masked = text.len();
        text.push_str(HIDDEN);
        if span.start < hidden.end {
            start = start.or(Some(masked));
        }
        if span.end < hidden.end {
            end = end.or(Some(text.len()));
        }
        at = hidden.end;
    }
    let before = text.len();
    text.push_str(&line[at..]);
    let last = |place: usize| (before + place.saturating_sub(at)).min(text.len());
    let start = start.unwrap_or_else(|| last(span.start));
    let end = end.unwrap_or_else(|| last(span.end));
    (text, start..end.max(start))
}

/// Sorts ranges, and merges those that overlap or touch.
fn merged(mut ranges: Vec<Range<usize>>, more: impl Iterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    ranges.extend(more.filter(|range| !range.is_empty()));
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// The range of a value without the quotes around it.
fn within_quotes(line: &str, place: &Range<usize>) -> Range<usize> {
    let value = line.get(place.clone()).unwrap_or_default();
    let quoted = |quote: char| value.len() > 2 && value.starts_with(quote) && value.ends_with(quote);
    let inner = usize::from(quoted('"') || quoted('\''));
    place.start + inner..place.end - inner
}

/// Finds secret values and runs of characters that look like a key; in order, without overlap.
fn hidden_ranges(line: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    loop {
        let rest = &line[at..];
        let first = match (secret_value(rest), key_run(rest)) {
            (Some(hash), Some(run)) if run.start < hash.start => run,
            (Some(range), _) | (None, Some(range)) => range,
            (None, None) => return ranges,
        };
        ranges.push(at + first.start..at + first.end);
        at += first.end;
    }
}

/// Finds the first secret value of a line: that of `sha256`, `authorization` or `set_headers`, or a password in a URL.
fn secret_value(line: &str) -> Option<Range<usize>> {
    let settings = ["sha256", "authorization", "set_headers"];
    let value = settings.iter().filter_map(|name| value_of(line, name)).min_by_key(|range| range.start);
    match (value, password(line)) {
        (Some(value), Some(password)) if password.start < value.start => Some(password),
        (value, password) => value.or(password),
    }
}

/// Finds the value after `name =`: the text within its quotes, the text within its braces, or a bare word.
fn value_of(line: &str, name: &str) -> Option<Range<usize>> {
    let after = line.find(name)? + name.len();
    let equals = after + line[after..].find('=')?;
    if !line[after..equals].trim_matches(['"', '\'', ' ', '\t']).is_empty() {
        return None;
    }
    let value = line[equals + 1..].trim_start();
    let start = line.len() - value.len();
    let (start, end) = match value.chars().next()? {
        quote @ ('"' | '\'') => (start + 1, line[start + 1..].find(quote).map(|length| start + 1 + length)),
        '{' => (start + 1, line[start..].find('}').map(|length| start + length)),
        _ => (start, line[start..].find([',', '}', ' ', '\t', '#']).map(|length| start + length)),
    };
    let end = end.unwrap_or(line.len());
    (start < end && &line[start..end] != HIDDEN).then_some(start..end)
}

/// Finds `user:password` in a URL, between `://` and `@`.
fn password(line: &str) -> Option<Range<usize>> {
    let start = line.find("://")? + 3;
    let end = start + line[start..].find(['/', '"', '\'', ' ']).unwrap_or(line.len() - start);
    let at = start + line[start..end].rfind('@')?;
    (start < at && &line[start..at] != HIDDEN).then_some(start..at)
}

fn key_run(line: &str) -> Option<Range<usize>> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let mut at = 0;
    while let Some(start) = line[at..].find(is_word).map(|found| at + found) {
        let end = line[start..].find(|c| !is_word(c)).map_or(line.len(), |found| start + found);
        let run = &line[start..end];
        let has = |test: fn(&u8) -> bool| run.bytes().any(|byte| test(&byte));
        let shaped = run.len() >= MIN_KEY && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic);
        let prefixed = run.starts_with("ak_") && run.len() > 8;
        if (shaped || prefixed) && !run.starts_with("key_") && !run.starts_with("req_") {
            return Some(start..end);
        }
        at = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_and_keys_are_hidden() {
        let table = [
            (r#"sha256 = "abc""#, r#"sha256 = "***""#),
            (
                r#"{ label = "x", sha256 = 'my key', scopes = [] }"#,
                r#"{ label = "x", sha256 = '***', scopes = [] }"#,
            ),
            (r#"token_sha256="00""#, r#"token_sha256="***""#),
            ("sha256=hunter2secret", "sha256=***"),
            ("{ sha256 = raw key, label = 1 }", "{ sha256 = *** key, label = 1 }"),
            (r#"set_headers = { authorization = "Bearer pw", x = 3 }"#, "set_headers = {***}"),
            (r#"authorization = "Bearer pw""#, r#"authorization = "***""#),
            (r#"url = "postgres://u:pw@h/db""#, r#"url = "postgres://***@h/db""#),
            (r#"header = "ak_live_0123456789""#, r#"header = "***""#),
            ("x = AbCdEf0123456789AbCdEf y = AbCdEf0123456789AbCdEf", "x = *** y = ***"),
            (r#"label = "production-crm-enrichment""#, r#"label = "production-crm-enrichment""#),
            ("key_0123456789abcdef stays", "key_0123456789abcdef stays"),
        ];
        for (line, masked) in table {
            assert_eq!(mask(line), masked);
        }
    }

    /// Secrets are masked in every notation of TOML, in files with and without syntax errors.
    #[test]
    fn secrets_are_found_by_structure() {
        let forms = [
            "[upstreams.a]\nset_headers = { x-internal = \"canary\" }\n",
            "[upstreams.a.set_headers]\nx-internal = \"canary\"\n",
            "[upstreams.a.set_headers]\nx-internal = 'canary' # why\n",
            "[upstreams.a]\nset_headers.x-internal = \"canary\"\n",
            "[upstreams.a]\n\"set_headers\".\"x-internal\" = \"\"\"one\ncanary\"\"\"\n",
            "upstreams = { a = { set_headers = { x-internal = \"canary\" } } }\n",
            "[[routes]]\nname = \"a\"\n[routes.set_headers]\nx-internal = \"canary\"\n",
            "[[accounts.a.keys]]\nsha256 = [\"canary\"]\n",
            "[upstreams.a.set_headers]\nx-internal = canary\n",
            "[upstreams.a.set_headers]\nx-internal = \"canary\n",
            "[upstreams.a.\"set_headers\"]\nx-internal: canary\n",
        ];
        for form in forms {
            for rest in ["", "[server]\nthreads = = 1\n"] {
                let text = format!("{form}{rest}");
                let places = secret_places(&text);
                let mut at = 0;
                for line in text.split_inclusive('\n') {
                    let within = |place: &Range<usize>| {
                        let clamp = |end: usize| end.clamp(at, at + line.trim_end().len()) - at;
                        clamp(place.start)..clamp(place.end)
                    };
                    let places: Vec<Range<usize>> = places.iter().map(within).collect();
                    let masked = mask_line(line.trim_end(), 0..0, &places).0;
                    assert!(!masked.contains("canary"), "{masked} of {text}");
                    at += line.len();
                }
            }
        }
    }

    #[test]
    fn a_span_moves_along() {
        let line = r#"sha256 = "raw key", scope = 1"#;
        let at = line.find("scope").unwrap();
        let (text, span) = mask_line(line, at..at + 5, &[]);
        assert_eq!(&text[span], "scope");
        let at = line.find("\"raw").unwrap();
        let (text, span) = mask_line(line, at..at + 9, &[]);
        assert_eq!(&text[span], "\"***\"");
        let (text, span) = mask_line(line, 10..17, &[]);
        assert_eq!(&text[span], "***");
    }
}
