//! Tests that the schema and the types of [`raw`] accept the same files.

use proptest::prelude::*;
use serde::Deserialize;
use toml::de::Deserializer;

use super::*;

/// A configuration that contains every kind of section and value.
const EXAMPLE: &str = include_str!("example.toml");

/// Values of every type, some of them out of range.
const VALUES: [&str; 16] = [
    "0",
    "-1",
    "70000",
    "5000000000",
    "99999999999999999999",
    "0xff",
    "0.25",
    "1e999",
    "nan",
    "inf",
    "true",
    "\"text\"",
    "2026-01-01",
    "[]",
    "[\"a\"]",
    "{ a = 1 }",
];

/// Replaces, removes or renames one value of the file. `path` selects the value, `with` selects the replacement.
fn change(value: &mut Spanned<DeValue<'static>>, path: &mut impl Iterator<Item = usize>, with: usize) {
    let at = path.next().unwrap_or(0);
    match value.get_mut() {
        DeValue::Table(table) if at > 0 && !table.is_empty() => {
            let index = at % table.len();
            if at.is_multiple_of(7) {
                let name = table.keys().nth(index).map(|name| name.get_ref().to_string());
                let removed = table.remove(name.as_deref().unwrap_or_default());
                let renamed = Spanned::new(0..0, format!("x{with}").into());
                if let (true, Some(removed)) = (with.is_multiple_of(2), removed) {
                    table.insert(renamed, removed);
                }
            } else if let Some((_, value)) = table.iter_mut().nth(index) {
                change(value, path, with);
            }
        }
        DeValue::Array(array) if at > 0 && !array.is_empty() => {
            let index = at % array.len();
            if let Some(value) = array.get_mut(index) {
                change(value, path, with);
            }
        }
        value => *value = other(with),
    }
}

fn other(with: usize) -> DeValue<'static> {
    let mut value = DeValue::parse(VALUES[with % VALUES.len()]).expect("a value").into_inner();
    value.make_owned();
    value
}

fn is_read(tree: &DeTable<'_>) -> bool {
    raw::File::deserialize(Deserializer::from(Spanned::new(0..0, tree.clone()))).is_ok()
}

#[test]
fn the_example_fits() {
    let mut tree = DeTable::parse(EXAMPLE).expect("valid TOML").into_inner();
    assert!(is_read(&tree));
    assert!(fit(&mut tree).list.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    /// `fit` reports a mismatch if and only if serde refuses the file, and serde can read what `fit` leaves. The one
    /// exception: serde accepts a list in place of a table, by position.
    #[test]
    fn what_fits_is_what_can_be_read(
        changes in prop::collection::vec((1_usize..60, prop::collection::vec(0_usize..60, 8), 0_usize..100), 1..4)
    ) {
        let tree = DeTable::parse(EXAMPLE).expect("valid TOML");
        let mut root = Spanned::new(0..0, DeValue::Table(tree.into_inner()));
        for (first, path, with) in changes {
            change(&mut root, &mut std::iter::once(first).chain(path), with);
        }
        let DeValue::Table(mut tree) = root.into_inner() else { return Ok(()) };
        let can_be_read = is_read(&tree);
        let mut mistakes = fit(&mut tree).list;
        prop_assert!(is_read(&tree));
        prop_assert!(can_be_read || !mistakes.is_empty());
        let is_stricter = |message: &str| {
            message.ends_with("this is a list [ … ], expected a table") || message == "this is not a finite number"
        };
        mistakes.retain(|mistake| !is_stricter(&mistake.message));
        prop_assert!(!can_be_read || mistakes.is_empty(), "{:?}", mistakes);
    }
}
