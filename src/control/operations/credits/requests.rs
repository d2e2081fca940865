//! Lists what single requests were charged.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::control::Control;
use crate::control::operations::caller::{Caller, Permission};
use crate::control::operations::error::{OperationError, Result};
use crate::control::operations::terms::{Time, past};
use crate::ledger::store::{BooksReader, RequestRow};
use crate::types::{AccountId, Credits, KeyId, RequestId, WallTime};

/// Requests that are read at a time.
const PAGE: usize = 1_000;

/// Which requests.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ChargesQuery {
    /// From here on: a time, or how long ago; all that are listed if it is left out.
    pub from: Option<String>,
    /// Until here: a time, or how long ago; now if it is left out.
    pub to: Option<String>,
    /// Only those of routes to this upstream.
    pub upstream: Option<String>,
    /// Only those of this route.
    pub route: Option<String>,
}

/// What a request was charged.
#[derive(Clone, Debug, Serialize)]
pub struct ChargedView {
    /// The request's id.
    pub request: RequestId,
    /// When it was made.
    pub at: Time,
    /// The account.
    pub account: AccountId,
    /// The key.
    pub key: Option<KeyId>,
    /// The route.
    pub route: String,
    /// The credits charged, less those that were given back.
    pub charged: Credits,
    /// True if it went to the upstream and the route of the query.
    pub is_named: bool,
    /// True if it is also of the time of the query.
    pub is_selected: bool,
}

/// How far an upstream's time of a request may be from the gateway's, in milliseconds.
const MARGIN: i64 = 3_600_000;

impl Control {
    /// Calls `each` for every request of a time that is listed, and those of an hour before and after it, in the order of
    /// their times, on another thread. Those that the query asks for are marked. Returns since when requests are listed.
    ///
    /// # Errors
    /// If requests are not listed, or not yet listed at the start, or the query names an upstream or a route that does not
    /// exist.
    pub async fn each_charge(
        &self,
        caller: &Caller,
        query: ChargesQuery,
        mut each: impl FnMut(ChargedView) -> ControlFlow<()> + Send + 'static,
    ) -> Result<Time> {
        caller.may(Permission::ReadAccounts)?;
        let (now, view) = (self.clock.wall(), self.snapshot());
        let ChargesQuery { from, to, upstream, route } = query;
        let wanted = |name: &Option<String>, known: &dyn Fn(&str) -> bool, what: &'static str| match name {
            Some(name) if !known(name) => {
                OperationError::invalid(what, format!("there is no {what} {name:?}"))
            }
            _ => Ok(()),
        };
        wanted(&upstream, &|name| view.routes.iter().any(|route| *route.upstream.name == *name), "upstream")?;
        wanted(&route, &|name| view.routes.iter().any(|route| route.name.as_str() == name), "route")?;
        let since = self.listed_since(now).await?;
        let from = from.map(|text| past("from", &text, now)).transpose()?.unwrap_or(since);
        let to = to.map(|text| past("to", &text, now)).transpose()?.unwrap_or(WallTime(i64::MAX));
        if from < since {
            return OperationError::invalid("from", format!("requests are listed since {since}"));
        }
        if from >= to {
            return OperationError::invalid("from", "the start must be before the end");
        }
        let is_selected = move |row: &RequestRow| {
            let of_upstream = |upstream: &String| {
                let route = view.routes.iter().find(|route| route.name.as_str() == row.route);
                route.is_some_and(|route| *route.upstream.name == **upstream)
            };
            let is_named = upstream.as_ref().is_none_or(of_upstream)
                && route.as_ref().is_none_or(|route| *route == row.route);
            (is_named, is_named && (from..to).contains(&row.at))
        };
        let around = (from.0.saturating_sub(MARGIN), to.0.saturating_add(MARGIN));
        self.read_folded(move |reader| {
            each_row(reader, around, |row| {
                let (is_named, is_selected) = is_selected(&row);
                let RequestRow { id: request, account, key, route, charge: charged, at } = row;
                each(ChargedView {
                    request,
                    at: Time(at),
                    account,
                    key,
                    route,
                    charged,
                    is_named,
                    is_selected,
                })
            })
        })
        .await?;
        Ok(Time(since))
    }

    /// Since when requests are listed.
    async fn listed_since(&self, now: WallTime) -> Result<WallTime> {
        let since = self.read(|reader| Ok(reader.listed_since()?)).await?;
        let (Some(since), Some(kept)) = (since, self.snapshot().settings.requests_kept) else {
            let message = "requests are not listed; say how long, such as `requests = \"35d\"` in `[ledger]`, and wait for new ones";
            return Err(OperationError::Conflict(message.to_owned()));
        };
        let kept = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
        Ok(since.max(WallTime(now.0.saturating_sub(kept))))
    }
}

fn each_row(
    reader: &mut dyn BooksReader,
    (from, until): (i64, i64),
    mut each: impl FnMut(RequestRow) -> ControlFlow<()>,
) -> Result<()> {
    let mut after = (WallTime(from), RequestId(0));
    loop {
        let page = reader.requests(after, WallTime(until), PAGE)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = (last.at, last.id);
        for row in page {
            if each(row).is_break() {
                return Ok(());
            }
        }
    }
}
