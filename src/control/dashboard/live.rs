//! Numbers of a page as they change: by server-sent events, or once for pages that ask.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::html::format;
use super::operator;
use super::site::Site;
use super::web::{AsOperator, Failure, Fields, InAccount, session};
use crate::control::operations::{Caller, Result, Visitor};
use crate::types::AccountId;

/// How often the numbers are looked at.
const EVERY: Duration = Duration::from_secs(2);
/// How long one stream lasts; browsers connect again.
const LONGEST: Duration = Duration::from_secs(60);

/// The numbers of a page by their names.
#[derive(PartialEq, Eq, Serialize)]
#[serde(transparent)]
struct Numbers(BTreeMap<&'static str, Value>);

/// Whose numbers are watched.
#[derive(Clone)]
enum Watched {
    Account(AccountId),
    All,
}

impl Watched {
    /// The caller who reads for a person. `None` if they may not see it any more.
    fn caller(&self, visitor: &Visitor) -> Option<Caller> {
        match self {
            Self::Account(account) => visitor.caller_in(account).ok(),
            Self::All => visitor.caller().ok(),
        }
    }

    async fn numbers(&self, site: &Site, caller: &Caller) -> Result<Numbers> {
        let numbers = match self {
            Self::Account(account) => {
                let summary = site.control.summary(caller, account.clone(), 0).await?;
                let used = summary.days.iter().any(|(_, day)| day.requests() > 0);
                BTreeMap::from([
                    ("balance", format::credits(summary.account.available).into()),
                    ("requests", format::count(summary.day.requests()).into()),
                    ("credits", format::credits(summary.day.credits()).into()),
                    ("success", format::percent(summary.day.success()).into()),
                    ("used", used.into()),
                ])
            }
            Self::All => {
                let total = operator::total(site, caller).await?;
                BTreeMap::from([
                    ("requests", format::count(total.requests()).into()),
                    ("success", format::percent(total.success()).into()),
                    ("refused", format::count(total.limited + total.denied).into()),
                    ("failed", format::count(total.failed).into()),
                    ("credits", format::credits(total.credits()).into()),
                ])
            }
        };
        Ok(Numbers(numbers))
    }
}

/// The numbers of an account, whenever they change.
pub(super) async fn live(
    State(site): State<Site>,
    InAccount { visitor, caller, account }: InAccount,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    watch(site, visitor, caller, Watched::Account(account), query.as_deref(), &headers).await
}

/// The numbers of all accounts, whenever they change.
pub(super) async fn of_all(
    State(site): State<Site>,
    AsOperator { visitor, caller }: AsOperator,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    watch(site, visitor, caller, Watched::All, query.as_deref(), &headers).await
}

async fn watch(
    site: Site,
    visitor: Visitor,
    caller: Caller,
    watched: Watched,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    if Fields::of(query).is_checked("once") {
        return Ok(Json(watched.numbers(&site, &caller).await?).into_response());
    }
    let Ok(place) = std::sync::Arc::clone(&site.live).try_acquire_owned() else {
        return Ok((StatusCode::NO_CONTENT, ()).into_response()); // the browser asks now and then
    };
    let end = site.control.now().plus(LONGEST);
    let secret = session(headers, site.is_https()?).unwrap_or_default();
    let reader = (secret, visitor.origin);
    let first = (site, reader, watched, None::<Numbers>, place);
    let events = stream::unfold(first, move |(site, reader, watched, mut last, place)| async move {
        loop {
            if last.is_some() {
                tokio::time::sleep(EVERY).await;
            }
            if site.control.now() >= end {
                return None;
            }
            // Who was signed out, or lost access, sees no more.
            let visitor = site.control.visitor(&reader.0, reader.1.clone()).await.ok()??;
            let now = watched.numbers(&site, &watched.caller(&visitor)?).await.ok()?;
            if last.as_ref() != Some(&now) {
                let event = Event::default().json_data(&now).ok()?;
                last = Some(now);
                return Some((Ok::<_, Infallible>(event), (site, reader, watched, last, place)));
            }
        }
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}
