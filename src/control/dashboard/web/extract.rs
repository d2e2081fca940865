//! Who sends a request, and what they may see.

use axum::extract::{FromRequestParts, RawPathParams};
use http::Method;
use http::request::Parts;

use super::{Failure, cookies};
use crate::control::dashboard::site::Site;
use crate::control::listener::Peer;
use crate::control::operations::{Caller, OperationError, Origin, Visitor};
use crate::policy::client_address::client_address;
use crate::types::AccountId;

/// Where the request came from.
pub(in crate::control::dashboard) struct From(pub(in crate::control::dashboard) Origin);

/// A person who is signed in; `None` if nobody is.
pub(in crate::control::dashboard) struct Signed(pub(in crate::control::dashboard) Option<Visitor>);

/// A person who is signed in and may see the account in the path.
pub(in crate::control::dashboard) struct InAccount {
    pub(in crate::control::dashboard) visitor: Visitor,
    pub(in crate::control::dashboard) caller: Caller,
    pub(in crate::control::dashboard) account: AccountId,
}

/// An operator who is signed in.
pub(in crate::control::dashboard) struct AsOperator {
    pub(in crate::control::dashboard) visitor: Visitor,
    pub(in crate::control::dashboard) caller: Caller,
}

fn origin(parts: &Parts, site: &Site) -> Result<Origin, Failure> {
    let peer = parts.extensions.get::<Peer>().map_or(std::net::IpAddr::from([0; 4]), |peer| peer.0);
    let trusted = &site.control.snapshot().settings.trusted_proxies;
    let address = client_address((peer, 0).into(), &parts.headers, trusted);
    let malformed = |_| OperationError::Invalid {
        field: "X-Forwarded-For",
        message: "an entry is not an address".to_owned(),
    };
    let agent = parts.headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok());
    let agent = agent.unwrap_or_default().to_owned();
    Ok(Origin { address: address.map_err(malformed)?.to_string(), agent })
}

async fn visitor(parts: &Parts, site: &Site) -> Result<Option<Visitor>, Failure> {
    let Some(secret) = cookies::session(&parts.headers, site.is_https()?) else { return Ok(None) };
    Ok(site.control.visitor(&secret, origin(parts, site)?).await?)
}

/// The person who is signed in. Others are sent to sign in, and come back if they only wanted to read.
async fn signed(parts: &Parts, site: &Site) -> Result<Visitor, Failure> {
    let next = match parts.method {
        Method::GET => parts.uri.path(),
        _ => "/",
    };
    visitor(parts, site).await?.ok_or_else(|| Failure::SignIn(next.to_owned()))
}

impl FromRequestParts<Site> for From {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Failure> {
        origin(parts, site).map(Self)
    }
}

impl FromRequestParts<Site> for Signed {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Failure> {
        visitor(parts, site).await.map(Self)
    }
}

impl FromRequestParts<Site> for InAccount {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Failure> {
        let visitor = signed(parts, site).await?;
        let nothing = || OperationError::Missing("there is nothing here".to_owned());
        let params = RawPathParams::from_request_parts(parts, site).await.map_err(|_| nothing())?;
        let text = params.iter().find(|(name, _)| *name == "account").map(|(_, value)| value);
        let account: AccountId = text.and_then(|text| text.parse().ok()).ok_or_else(nothing)?;
        let caller = visitor.caller_in(&account)?;
        Ok(Self { visitor, caller, account })
    }
}

impl FromRequestParts<Site> for AsOperator {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Failure> {
        let visitor = signed(parts, site).await?;
        let caller = visitor.caller()?;
        Ok(Self { visitor, caller })
    }
}
