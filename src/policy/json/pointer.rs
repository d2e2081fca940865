//! Parses JSON pointers (RFC 6901).

use std::fmt;
use std::sync::Arc;

/// A parsed JSON pointer (RFC 6901). Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Pointer(pub(super) Arc<[ReferenceToken]>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReferenceToken {
    /// The name of an object's member.
    pub(super) name: String,
    /// The index of an array's element; `None` if the name is not a valid index.
    pub(super) index: Option<usize>,
}

impl Pointer {
    /// Parses `/a/0/b`; `~1` is decoded to `/`, and `~0` to `~`. `None` if the text does not begin with `/`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let segments = text.strip_prefix('/')?.split('/').map(|token| {
            let name = token.replace("~1", "/").replace("~0", "~");
            let plain = !name.starts_with('+') && (name == "0" || !name.starts_with('0'));
            let index = name.parse().ok().filter(|_| plain);
            ReferenceToken { name, index }
        });
        Some(Self(segments.collect()))
    }

    /// The names on the path, decoded.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|segment| segment.name.as_str())
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = |segment: &ReferenceToken| segment.name.replace('~', "~0").replace('/', "~1");
        self.0.iter().try_for_each(|segment| write!(out, "/{}", escaped(segment)))
    }
}

impl fmt::Debug for Pointer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", self.to_string())
    }
}
