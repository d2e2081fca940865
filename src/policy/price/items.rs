//! Counts the items of a JSON array in a request.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::policy::json::Pointer;

/// Why items cannot be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemsFault {
    /// The body is not JSON, or has no array at the pointer, or two members of a name on the way to it.
    #[error("not JSON with an array at the pointer")]
    NoArray,
    /// The array has more items.
    #[error("too many items")]
    TooMany,
}

/// Counts the items of the array at a pointer, of which there may be `max`.
///
/// # Errors
/// If there is no such array, or if two readers could take different ones; and if it has more items.
pub fn count_items(body: &[u8], of: &Pointer, max: u32) -> Result<u32, ItemsFault> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let names: Vec<&str> = of.names().collect();
    let counted = Path { names: &names }.deserialize(&mut deserializer);
    let counted =
        counted.and_then(|count| deserializer.end().map(|()| count)).map_err(|_| ItemsFault::NoArray)?;
    match u32::try_from(counted) {
        Ok(count) if count <= max => Ok(count),
        _ => Err(ItemsFault::TooMany),
    }
}

/// Counts the items of the array at the end of a path.
struct Path<'a> {
    names: &'a [&'a str],
}

impl<'de> DeserializeSeed<'de> for Path<'_> {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Path<'_> {
    type Value = u64;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an array at the pointer")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<u64, A::Error> {
        let Some((name, rest)) = self.names.split_first() else {
            let mut count = 0;
            while list.next_element::<IgnoredAny>()?.is_some() {
                count += 1;
            }
            return Ok(count);
        };
        let index: usize = name.parse().map_err(A::Error::custom)?;
        for _ in 0..index {
            list.next_element::<IgnoredAny>()?;
        }
        let found = list.next_element_seed(Path { names: rest })?;
        while list.next_element::<IgnoredAny>()?.is_some() {}
        found.ok_or_else(|| A::Error::custom("no such element"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<u64, A::Error> {
        let Some((wanted, rest)) = self.names.split_first() else {
            return Err(A::Error::custom("an object"));
        };
        let mut found = None;
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if name != *wanted && folded(&name) == folded(wanted) {
                return Err(A::Error::custom("a name that some readers take for the wanted one"));
            } else if name != *wanted {
                map.next_value::<IgnoredAny>()?;
            } else if found.replace(map.next_value_seed(Path { names: rest })?).is_some() {
                return Err(A::Error::custom("two members of this name"));
            }
        }
        found.ok_or_else(|| A::Error::custom("no such member"))
    }
}

/// A name as readers compare it that ignore case, such as Go's.
fn folded(name: &str) -> String {
    name.to_uppercase().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_counted_where_no_reader_could_see_others() {
        let table = [
            (r#"{"records":[1,{"a":[]},"x"]}"#, "/records", Ok(3)),
            (r#"{"records":[]}"#, "/records", Ok(0)),
            (r#" {"a":{"b":[[1],[2,3]]},"c":1} "#, "/a/b/1", Ok(2)),
            (r#"{"\u0072ecords":[1]}"#, "/records", Ok(1)),
            (r#"{"records":[1],"records":[1,2]}"#, "/records", Err(ItemsFault::NoArray)),
            (r#"{"records":[1],"\u0072ecords":[1,2]}"#, "/records", Err(ItemsFault::NoArray)),
            (r#"{"records":[1],"Records":[1,2]}"#, "/records", Err(ItemsFault::NoArray)),
            ("{\"records\":[1],\"recordſ\":[1,2]}", "/records", Err(ItemsFault::NoArray)),
            (r#"{"records":{"0":1}}"#, "/records", Err(ItemsFault::NoArray)),
            (r#"{"records":5}"#, "/records", Err(ItemsFault::NoArray)),
            (r#"{"other":[1]}"#, "/records", Err(ItemsFault::NoArray)),
            (r#"{"records":[1]"#, "/records", Err(ItemsFault::NoArray)),
            (r#"{"records":[1]}{"records":[1,2]}"#, "/records", Err(ItemsFault::NoArray)),
            ("", "/records", Err(ItemsFault::NoArray)),
            ("[[1,2],[3]]", "/0", Ok(2)),
            (r#"{"records":[1,2,3,4,5,6]}"#, "/records", Err(ItemsFault::TooMany)),
        ];
        for (body, pointer, expected) in table {
            let pointer = Pointer::parse(pointer).unwrap();
            assert_eq!(count_items(body.as_bytes(), &pointer, 5), expected, "{body}");
        }
    }

    #[test]
    fn deep_documents_need_no_deep_stack() {
        let body = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(count_items(body.as_bytes(), &Pointer::parse("/0").unwrap(), 5), Ok(1));
    }
}
