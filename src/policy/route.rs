//! Finds the route of a request by its host, path and method.
//!
//! Routes are in a tree of path segments. A literal segment wins over `{x}`, which wins over `{*rest}`, with
//! backtracking. The path is matched before the method: if the most specific pattern for a path does not
//! accept the method, less specific patterns are not tried.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::Method;
use percent_encoding::percent_decode_str;

/// Largest number of segments in a pattern. Also bounds the recursion of a route lookup.
pub const MAX_SEGMENTS: usize = 32;

/// A parsed path pattern of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<PatternSegment>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PatternSegment {
    Literal(String),
    One,
    Rest,
}

/// Why a text is not a path pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The pattern does not begin with `/`.
    #[error("a path begins with /")]
    NotAbsolute,
    /// A placeholder is not a whole segment, or its name is empty or has an invalid character.
    #[error("a placeholder is a whole segment: {{name}}, or {{*rest}} as the last one")]
    BadPlaceholder,
    /// `{*rest}` is not the last segment.
    #[error("{{*rest}} must be the last segment")]
    RestNotLast,
    /// Two placeholders have the same name.
    #[error("the placeholder {{{0}}} is used twice")]
    Twice(String),
    /// The pattern has more than [`MAX_SEGMENTS`] segments.
    #[error("a path has at most {MAX_SEGMENTS} segments")]
    TooLong,
    /// A literal segment that no normalised path can contain.
    #[error("no request can have this path: {0}")]
    Unreachable(super::path::PathFault),
}

impl Pattern {
    /// Parses `/a/{name}/{*rest}`. Literals may be percent-encoded; they are compared decoded.
    ///
    /// # Errors
    /// The rule that the pattern breaks.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(PatternError::NotAbsolute);
        };
        let mut names: Vec<&str> = Vec::new();
        let mut segments = Vec::new();
        for part in rest.split('/') {
            if segments.last() == Some(&PatternSegment::Rest) {
                return Err(PatternError::RestNotLast);
            }
            let segment = match part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
                None if part.contains(['{', '}']) => return Err(PatternError::BadPlaceholder),
                None => PatternSegment::Literal(literal(part)?),
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
                    if name.starts_with('*') { PatternSegment::Rest } else { PatternSegment::One }
                }
            };
            segments.push(segment);
        }
        if segments.len() > MAX_SEGMENTS {
            return Err(PatternError::TooLong);
        }
        let unreachable =
            |at: usize| matches!(&segments[at], PatternSegment::Literal(text) if text.is_empty());
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

/// Percent-decodes a segment of a normalised path for comparison. Normalised paths are valid UTF-8.
fn decoded(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    percent_decode_str(segment).decode_utf8_lossy()
}

/// The methods that a route accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Methods {
    /// Every method.
    All,
    /// Only these; GET includes HEAD.
    Only(Vec<Method>),
}

impl Methods {
    /// True if requests with `method` are accepted.
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

/// The result of a route lookup.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    /// The route of the request.
    Route(T),
    /// Routes match the path but not the method. Contains the value of the `Allow` header.
    OtherMethods(String),
    /// No route matches the path.
    Nothing,
}

/// The lookup table for all routes of a snapshot. `T` identifies a route.
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
    /// Adds a route. `host` is a name without port; `None` for any host.
    ///
    /// # Errors
    /// The existing route that conflicts with the new one: same host, a pattern that matches the same paths,
    /// and a method in common.
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
                PatternSegment::Literal(text) => node = node.literals.entry(text.clone()).or_default(),
                PatternSegment::One => node = node.one.get_or_insert_default(),
                PatternSegment::Rest => at_rest = true,
            }
        }
        let list = if at_rest { &mut node.rest } else { &mut node.here };
        if let Some((_, other)) = list.iter().find(|(known, _)| known.overlap(&methods)) {
            return Err(*other);
        }
        list.push((methods, route));
        Ok(())
    }

    /// Finds the route of a request. `path` must be in normal form. The routes of the request's host are
    /// searched first, then the routes for any host.
    pub fn find(&self, host: Option<&str>, path: &str, method: &Method) -> Lookup<T> {
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
        // A path with more segments than any pattern can match only {*rest}; its other segments are not stored.
        let exact = parts.next().is_none();
        let segments = &segments[..count];
        let own = host.filter(|_| !self.hosts.is_empty()).and_then(|host| {
            let name = strip_port(host).to_ascii_lowercase();
            self.hosts.get(&name)?.find(segments, exact)
        });
        match own.or_else(|| self.any_host.find(segments, exact)) {
            None => Lookup::Nothing,
            Some(list) => match list.iter().find(|(methods, _)| methods.admit(method)) {
                Some((_, route)) => Lookup::Route(*route),
                None => Lookup::OtherMethods(allow(list)),
            },
        }
    }
}

impl<T> Node<T> {
    /// Finds the routes of the most specific pattern that matches these segments. `exact`: no segment was left out.
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

/// True if a pattern of route names, such as `people.*`, matches a route name; `*` matches any characters.
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
