//! Routes: which endpoint a host, path and method name.
//!
//! A tree of segments: a literal wins over `{x}`, which wins over `{*rest}`, with backtracking.
//! The path decides first, the method second, so that a path which a specific route claims never
//! falls through to a wider route by its method.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::Method;
use percent_encoding::percent_decode_str;

/// Most segments of a pattern; also bounds the depth of the search.
pub const MAX_SEGMENTS: usize = 32;

/// A path pattern as it stands in the configuration, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(String),
    One,
    Rest,
}

/// Why a text is not a path pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Does not begin with `/`.
    #[error("a path begins with /")]
    NotAbsolute,
    /// `{` or `}` that do not enclose a whole segment, or an empty name.
    #[error("a placeholder is a whole segment: {{name}}, or {{*rest}} as the last one")]
    BadPlaceholder,
    /// `{*rest}` before the end.
    #[error("{{*rest}} must be the last segment")]
    RestNotLast,
    /// The same name twice.
    #[error("the placeholder {{{0}}} is used twice")]
    Twice(String),
    /// More than [`MAX_SEGMENTS`].
    #[error("a path has at most {MAX_SEGMENTS} segments")]
    TooLong,
    /// A literal that no normal path contains.
    #[error("no request can have this path: {0}")]
    Unreachable(super::path::PathFault),
}

impl Pattern {
    /// Parses `/a/{name}/{*rest}`. Literals may be percent-encoded; they are compared decoded.
    ///
    /// # Errors
    /// Says which rule the pattern breaks.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(PatternError::NotAbsolute);
        };
        let mut names: Vec<&str> = Vec::new();
        let mut segments = Vec::new();
        for part in rest.split('/') {
            if segments.last() == Some(&Segment::Rest) {
                return Err(PatternError::RestNotLast);
            }
            let segment = match part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
                None if part.contains(['{', '}']) => return Err(PatternError::BadPlaceholder),
                None => Segment::Literal(literal(part)?),
                Some(name) => {
                    let bare = name.strip_prefix('*').unwrap_or(name);
                    let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                    if bare.is_empty() || !bare.bytes().all(valid) {
                        return Err(PatternError::BadPlaceholder);
                    }
                    if names.contains(&bare) {
                        return Err(PatternError::Twice(bare.to_owned()));
                    }
                    names.push(bare);
                    if name.starts_with('*') { Segment::Rest } else { Segment::One }
                }
            };
            segments.push(segment);
        }
        if segments.len() > MAX_SEGMENTS {
            return Err(PatternError::TooLong);
        }
        let unreachable = |at: usize| matches!(&segments[at], Segment::Literal(text) if text.is_empty());
        if (0..segments.len() - 1).any(unreachable) {
            return Err(PatternError::Unreachable(super::path::PathFault::EmptySegment));
        }
        Ok(Self(segments))
    }
}

fn literal(part: &str) -> Result<String, PatternError> {
    if part.contains('?') {
        return Err(PatternError::Unreachable(super::path::PathFault::BadCharacter));
    }
    let path = format!("/{part}");
    let normal = super::path::normalise(&path, false).map_err(PatternError::Unreachable)?;
    Ok(decoded(&normal.as_str()[1..]).into_owned())
}

/// A segment of a normal path as it is compared: decoded. Normal paths are valid UTF-8.
fn decoded(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    percent_decode_str(segment).decode_utf8_lossy()
}

/// Methods that a route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Methods {
    /// Every method.
    All,
    /// Only these; GET includes HEAD.
    Only(Vec<Method>),
}

impl Methods {
    /// Whether a request with `method` is taken.
    #[must_use]
    pub fn admit(&self, method: &Method) -> bool {
        match self {
            Self::All => true,
            Self::Only(list) => {
                list.contains(method) || method == Method::HEAD && list.contains(&Method::GET)
            }
        }
    }

    fn overlap(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Only(list), other) | (other, Self::Only(list)) => {
                list.iter().any(|method| other.admit(method))
                    || matches!(other, Self::Only(theirs) if theirs.iter().any(|m| self.admit(m)))
            }
            (Self::All, Self::All) => true,
        }
    }
}

/// What a path led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// The route.
    Route(T),
    /// The path is known, the method is not: the `Allow` header's value.
    OtherMethods(String),
    /// No route has this path.
    Nothing,
}

/// All routes of a snapshot. `T` is what a route is known by.
#[derive(Clone, Debug)]
pub struct RouteTable<T> {
    hosts: BTreeMap<String, Node<T>>,
    any_host: Node<T>,
}

#[derive(Clone, Debug)]
struct Node<T> {
    literals: BTreeMap<String, Node<T>>,
    one: Option<Box<Node<T>>>,
    rest: Vec<(Methods, T)>,
    here: Vec<(Methods, T)>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { literals: BTreeMap::new(), one: None, rest: Vec::new(), here: Vec::new() }
    }
}

impl<T> Default for RouteTable<T> {
    fn default() -> Self {
        Self { hosts: BTreeMap::new(), any_host: Node::default() }
    }
}

impl<T: Copy> RouteTable<T> {
    /// Adds a route. `host` is a name without port; `None` means any.
    ///
    /// # Errors
    /// The route that this one ties with: same host, same shape of path, a method in common.
    pub fn insert(
        &mut self,
        host: Option<&str>,
        pattern: &Pattern,
        methods: Methods,
        route: T,
    ) -> Result<(), T> {
        let mut node = match host {
            Some(host) => self.hosts.entry(host.to_ascii_lowercase()).or_default(),
            None => &mut self.any_host,
        };
        let mut at_rest = false;
        for segment in &pattern.0 {
            match segment {
                Segment::Literal(text) => node = node.literals.entry(text.clone()).or_default(),
                Segment::One => node = node.one.get_or_insert_default(),
                Segment::Rest => at_rest = true,
            }
        }
        let list = if at_rest { &mut node.rest } else { &mut node.here };
        if let Some((_, other)) = list.iter().find(|(known, _)| known.overlap(&methods)) {
            return Err(*other);
        }
        list.push((methods, route));
        Ok(())
    }

    /// Finds the route of a request. `path` is in normal form. A host's own routes are looked at
    /// first, then those of any host.
    pub fn find(&self, host: Option<&str>, path: &str, method: &Method) -> Found<T> {
        let mut segments: [&str; MAX_SEGMENTS] = [""; MAX_SEGMENTS];
        let mut count = 0;
        let mut parts = path.strip_prefix('/').unwrap_or(path).split('/');
        for slot in &mut segments {
            match parts.next() {
                Some(part) => *slot = part,
                None => break,
            }
            count += 1;
        }
        // A path longer than any pattern can only match a {*rest}; the last slot then stands for more.
        let exact = parts.next().is_none();
        let segments = &segments[..count];
        let own = host.filter(|_| !self.hosts.is_empty()).and_then(|host| {
            let name = strip_port(host).to_ascii_lowercase();
            self.hosts.get(&name)?.find(segments, exact)
        });
        match own.or_else(|| self.any_host.find(segments, exact)) {
            None => Found::Nothing,
            Some(list) => match list.iter().find(|(methods, _)| methods.admit(method)) {
                Some((_, route)) => Found::Route(*route),
                None => Found::OtherMethods(allow(list)),
            },
        }
    }
}

impl<T> Node<T> {
    /// The most specific list of routes for these segments.
    fn find(&self, segments: &[&str], exact: bool) -> Option<&[(Methods, T)]> {
        let Some((first, more)) = segments.split_first() else {
            return (exact && !self.here.is_empty()).then_some(&*self.here);
        };
        let literal = if self.literals.is_empty() {
            None
        } else {
            self.literals.get(&*decoded(first)).and_then(|node| node.find(more, exact))
        };
        literal
            .or_else(|| {
                let node = self.one.as_ref().filter(|_| !first.is_empty())?;
                node.find(more, exact)
            })
            .or_else(|| (!self.rest.is_empty()).then_some(&*self.rest))
    }
}

fn allow<T>(list: &[(Methods, T)]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (methods, _) in list {
        if let Methods::Only(methods) = methods {
            for method in methods {
                names.push(method.as_str());
                if method == Method::GET {
                    names.push("HEAD");
                }
            }
        }
    }
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

/// The host without its port; an IPv6 address keeps its brackets.
#[must_use]
pub fn strip_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Whether a scope or filter such as `people.*` covers a route name; `*` matches any characters.
#[must_use]
pub fn glob_matches(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut rest) = name.strip_prefix(head) else {
        return false;
    };
    let Some((middle, last)) = tail.rsplit_once('*') else {
        return rest.ends_with(tail);
    };
    for part in middle.split('*') {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests;
