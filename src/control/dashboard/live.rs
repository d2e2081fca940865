//! Numbers of an account as they change: by server-sent events, or once for pages that ask.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use super::html::format;
use super::site::Site;
use super::web::{Failure, Fields, InAccount, session};
use crate::control::operations::{Caller, Result};
use crate::types::AccountId;

/// How often the numbers are looked at.
const EVERY: Duration = Duration::from_secs(2);
/// How long one stream lasts; browsers connect again.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(PartialEq, Eq, Serialize)]
struct Numbers {
    balance: String,
    requests: String,
    credits: String,
    success: String,
    used: bool,
}

async fn numbers(site: &Site, caller: &Caller, account: &AccountId) -> Result<Numbers> {
    let summary = site.control.summary(caller, account.clone(), 0).await?;
    Ok(Numbers {
        balance: format::credits(summary.account.available),
        requests: format::count(summary.day.requests()),
        credits: format::credits(summary.day.credits()),
        success: format::percent(summary.day.success()),
        used: summary.days.iter().any(|(_, day)| day.requests() > 0),
    })
}

/// The numbers of an account, whenever they change.
pub(super) async fn live(
    State(site): State<Site>,
    InAccount { visitor, caller, account }: InAccount,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    if Fields::of(query.as_deref()).is_checked("once") {
        return Ok(Json(numbers(&site, &caller, &account).await?).into_response());
    }
    let Ok(place) = std::sync::Arc::clone(&site.live).try_acquire_owned() else {
        return Ok((StatusCode::NO_CONTENT, ()).into_response()); // the browser asks now and then
    };
    let end = site.control.now().plus(LONGEST);
    let secret = session(&headers, site.is_https()?).unwrap_or_default();
    let reader = (secret, visitor.origin);
    let first = (site, reader, account, None::<Numbers>, place);
    let events = stream::unfold(first, move |(site, reader, account, mut last, place)| async move {
        loop {
            if last.is_some() {
                tokio::time::sleep(EVERY).await;
            }
            if site.control.now() >= end {
                return None;
            }
            // Who was signed out, or lost access, sees no more.
            let visitor = site.control.visitor(&reader.0, reader.1.clone()).await.ok()??;
            let now = numbers(&site, &visitor.caller_in(&account).ok()?, &account).await.ok()?;
            if last.as_ref() != Some(&now) {
                let event = Event::default().json_data(&now).ok()?;
                last = Some(now);
                return Some((Ok::<_, Infallible>(event), (site, reader, account, last, place)));
            }
        }
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}
