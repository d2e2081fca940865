//! Reads the API key of a request, and checks the key's state, expiry, scopes and allowed networks.

pub mod generate;
mod scopes;
pub mod signature;

use std::net::IpAddr;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName};
use ipnet::IpNet;
use percent_encoding::percent_decode_str;

pub use self::scopes::Scopes;
use super::reject::Reason;
use crate::types::WallTime;

/// Longest key that is looked up, in bytes. A longer key is refused as invalid without being hashed.
pub const MAX_KEY: usize = 512;

/// The header fields that keys are read from, and the query parameters that are refused.
#[derive(Clone, Debug)]
pub struct KeySource {
    /// The header that carries the key.
    pub header: HeaderName,
    /// True if `Authorization: Bearer <key>` is accepted too.
    pub bearer: bool,
    /// Names of query parameters, in lower case. A request with one of these parameters is refused.
    pub refuse_query: Vec<String>,
}

impl KeySource {
    /// Reads the key of a request (step 3 of the contract's section 4).
    ///
    /// # Errors
    /// [`Reason::KeyInQuery`]; [`Reason::MissingKey`]; [`Reason::InvalidKey`] if a key field is repeated, if
    /// both fields have different keys, or if the key is empty or longer than [`MAX_KEY`].
    pub fn read<'a>(&self, headers: &'a HeaderMap, query: Option<&str>) -> Result<&'a [u8], Reason> {
        self.refuse(query)?;
        let own = one_value(headers, &self.header)?;
        let bearer = if self.bearer { bearer_token(headers)? } else { None };
        let key = match (own, bearer) {
            (Some(own), Some(bearer)) if own != bearer => return Err(Reason::InvalidKey),
            (own, bearer) => own.or(bearer).ok_or(Reason::MissingKey)?,
        };
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(Reason::InvalidKey);
        }
        Ok(key)
    }

    /// Refuses a request if its query has a parameter named in `refuse_query`. Applies to public routes too.
    ///
    /// # Errors
    /// [`Reason::KeyInQuery`].
    pub fn refuse(&self, query: Option<&str>) -> Result<(), Reason> {
        match query {
            Some(query) if self.stands_in(query) => Err(Reason::KeyInQuery),
            _ => Ok(()),
        }
    }

    /// True if the query has a parameter named in `refuse_query`. Names are percent-decoded and compared without case.
    fn stands_in(&self, query: &str) -> bool {
        query.split(['&', ';']).any(|pair| {
            let name = pair.split('=').next().unwrap_or_default();
            if name.len() > 3 * MAX_KEY {
                return false;
            }
            if !name.bytes().any(|byte| matches!(byte, b'%' | b'+') || byte.is_ascii_whitespace()) {
                return self.is_refused(name);
            }
            let name = name.replace('+', " ");
            let name = percent_decode_str(&name).decode_utf8_lossy();
            self.is_refused(name.trim())
        })
    }

    fn is_refused(&self, name: &str) -> bool {
        self.refuse_query.iter().any(|refused| refused.eq_ignore_ascii_case(name))
    }
}

fn one_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Reason> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(|value| trim(value.as_bytes()));
    match values.next() {
        Some(_) => Err(Reason::InvalidKey),
        None => Ok(first),
    }
}

/// The token of `Authorization: Bearer …`; `None` for other authentication schemes.
fn bearer_token(headers: &HeaderMap) -> Result<Option<&[u8]>, Reason> {
    const SCHEME: &[u8] = b"bearer ";
    let value = one_value(headers, &AUTHORIZATION)?;
    Ok(value.and_then(|value| {
        let (scheme, token) = value.split_at_checked(SCHEME.len())?;
        scheme.eq_ignore_ascii_case(SCHEME).then(|| trim(token))
    }))
}

/// Removes only spaces and tabs around a field value (RFC 9110, section 5.5).
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The state of a key, as operators set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// The key is accepted.
    Active,
    /// The key is refused until an operator enables it again.
    Disabled,
    /// The key is refused permanently.
    Revoked,
}

/// The rules of a key: state, expiry, scopes and allowed networks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRules {
    /// The state of the key.
    pub state: KeyState,
    /// The time from which the key is refused; `None` if it does not expire.
    pub expires: Option<WallTime>,
    /// The routes that the key may use; `None` for every route.
    pub scopes: Option<Scopes>,
    /// Networks from which clients may use the key; `None` for any.
    pub allow_from: Option<Box<[IpNet]>>,
}

impl Default for KeyRules {
    fn default() -> Self {
        Self { state: KeyState::Active, expires: None, scopes: None, allow_from: None }
    }
}

impl KeyRules {
    /// True if the key is active and not expired (step 4 of the contract's section 4).
    #[must_use]
    pub fn is_usable(&self, now: WallTime) -> bool {
        self.state == KeyState::Active && self.expires.is_none_or(|expires| now < expires)
    }

    /// True if the key's scopes include this route.
    #[must_use]
    pub fn opens(&self, route: &str) -> bool {
        self.scopes.as_ref().is_none_or(|scopes| scopes.include(route))
    }

    /// True if a client at this address may use the key.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allow_from.as_ref().is_none_or(|nets| nets.iter().any(|net| net.contains(&address)))
    }

    /// Checks the scopes and the allowed networks of the key (part of step 5 of the contract's section 4). False if
    /// only shadow scopes forbid the route.
    ///
    /// # Errors
    /// [`Reason::RouteForbidden`] or [`Reason::AddressForbidden`].
    pub fn permit(&self, route: &str, address: IpAddr) -> Result<bool, Reason> {
        let opens = self.opens(route);
        if !opens && !self.scopes.as_ref().is_some_and(|scopes| scopes.shadow) {
            return Err(Reason::RouteForbidden);
        }
        if !self.admits(address) {
            return Err(Reason::AddressForbidden);
        }
        Ok(opens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(bearer: bool) -> KeySource {
        KeySource {
            header: HeaderName::from_static("x-api-key"),
            bearer,
            refuse_query: vec!["api_key".to_owned(), "x-api-key".to_owned()],
        }
    }

    fn read(bearer: bool, headers: &[(&'static str, &str)], query: Option<&str>) -> Result<String, Reason> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        source(bearer).read(&map, query).map(|key| String::from_utf8(key.to_vec()).unwrap())
    }

    #[test]
    fn a_key_is_read_from_its_header_only() {
        use Reason::{InvalidKey, KeyInQuery, MissingKey};
        let ok = |key: &str| Ok(key.to_owned());
        type Row<'a> = (bool, &'a [(&'static str, &'a str)], Option<&'a str>, Result<String, Reason>);
        let table: [Row<'_>; 18] = [
            (false, &[("x-api-key", "k")], None, ok("k")),
            (false, &[("x-api-key", " \tk\t ")], None, ok("k")),
            (false, &[("x-api-key", "a,b")], None, ok("a,b")),
            (false, &[], None, Err(MissingKey)),
            (false, &[("x_api_key", "k")], None, Err(MissingKey)),
            (false, &[("authorization", "Bearer k")], None, Err(MissingKey)),
            (false, &[("x-api-key", "")], None, Err(InvalidKey)),
            (false, &[("x-api-key", " ")], None, Err(InvalidKey)),
            (false, &[("x-api-key", "k"), ("x-api-key", "k")], None, Err(InvalidKey)),
            (true, &[("authorization", "bearer  k")], None, ok("k")),
            (true, &[("authorization", "Basic k")], None, Err(MissingKey)),
            (true, &[("authorization", "Bearer k"), ("x-api-key", "k")], None, ok("k")),
            (true, &[("authorization", "Bearer j"), ("x-api-key", "k")], None, Err(InvalidKey)),
            (false, &[("x-api-key", "k")], Some("q=1&api_key"), Err(KeyInQuery)),
            (false, &[("x-api-key", "k")], Some("API%5FKEY=x"), Err(KeyInQuery)),
            (false, &[("x-api-key", "k")], Some("X-Api-Key=x"), Err(KeyInQuery)),
            (false, &[("x-api-key", "k")], Some("q=api_key"), ok("k")),
            (false, &[], Some("api_key=k"), Err(KeyInQuery)),
        ];
        for (bearer, headers, query, expected) in table {
            assert_eq!(read(bearer, headers, query), expected, "{headers:?} {query:?}");
        }
        let long = "k".repeat(MAX_KEY + 1);
        assert_eq!(read(false, &[("x-api-key", &long)], None), Err(InvalidKey));
    }

    #[test]
    fn rules_are_judged_in_order() {
        let rules = KeyRules {
            state: KeyState::Active,
            expires: Some(WallTime(1_000)),
            scopes: Some(Scopes::of(vec!["people.*".to_owned()])),
            allow_from: Some(["203.0.113.0/24".parse().unwrap()].into()),
        };
        let inside = "203.0.113.9".parse().unwrap();
        assert!(rules.is_usable(WallTime(999)));
        assert!(!rules.is_usable(WallTime(1_000)));
        assert_eq!(rules.permit("people.enrich", inside), Ok(true));
        assert_eq!(rules.permit("people.enrich", "::ffff:203.0.113.9".parse().unwrap()), Ok(true));
        assert_eq!(rules.permit("phone", inside), Err(Reason::RouteForbidden));
        let shadow = rules.scopes.clone().map(|scopes| Scopes { shadow: true, ..scopes });
        assert_eq!(KeyRules { scopes: shadow, ..rules.clone() }.permit("phone", inside), Ok(false));
        let outside = "198.51.100.1".parse().unwrap();
        assert_eq!(rules.permit("people.enrich", outside), Err(Reason::AddressForbidden));
        for state in [KeyState::Disabled, KeyState::Revoked] {
            assert!(!KeyRules { state, ..KeyRules::default() }.is_usable(WallTime(0)));
        }
    }
}
