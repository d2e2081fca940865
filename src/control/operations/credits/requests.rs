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
    /// When it was charged.
    pub at: Time,
    /// The account.
    pub account: AccountId,
    /// The key.
    pub key: Option<KeyId>,
    /// The route.
    pub route: String,
    /// The credits charged, less those that were given back.
    pub charged: Credits,
    /// True if it is among the requests that the query asks for.
    pub is_selected: bool,
}

impl Control {
    /// Calls `each` for every listed request, in the order of their times, on another thread. Those that the query does not
    /// ask for are marked. Returns the time of the first one that may be listed.
    ///
    /// # Errors
    /// If requests are not listed, or the query names an upstream or a route that does not exist.
    pub async fn each_charge(
        &self,
        caller: &Caller,
        query: ChargesQuery,
        mut each: impl FnMut(ChargedView) -> ControlFlow<()> + Send + 'static,
    ) -> Result<()> {
        caller.may(Permission::ReadAccounts)?;
        let (now, view) = (self.clock.wall(), self.snapshot());
        if view.settings.requests_kept.is_none() {
            let message = "requests are not listed; say how long, such as `requests = \"35d\"` in `[ledger]`, and wait for new ones";
            return Err(OperationError::Conflict(message.to_owned()));
        }
        let ChargesQuery { from, to, upstream, route } = query;
        let from = from.map(|text| past("from", &text, now)).transpose()?.unwrap_or(WallTime(i64::MIN));
        let to = to.map(|text| past("to", &text, now)).transpose()?.unwrap_or(WallTime(i64::MAX));
        let wanted = |name: &Option<String>, known: &dyn Fn(&str) -> bool, what: &'static str| match name {
            Some(name) if !known(name) => {
                OperationError::invalid(what, format!("there is no {what} {name:?}"))
            }
            _ => Ok(()),
        };
        wanted(&upstream, &|name| view.routes.iter().any(|route| *route.upstream.name == *name), "upstream")?;
        wanted(&route, &|name| view.routes.iter().any(|route| route.name.as_str() == name), "route")?;
        let is_selected = move |row: &RequestRow| {
            let of_upstream = |upstream: &String| {
                let route = view.routes.iter().find(|route| route.name.as_str() == row.route);
                route.is_some_and(|route| *route.upstream.name == **upstream)
            };
            (from..to).contains(&row.at)
                && upstream.as_ref().is_none_or(of_upstream)
                && route.as_ref().is_none_or(|route| *route == row.route)
        };
        self.read_folded(move |reader| {
            each_row(reader, |row| {
                let is_selected = is_selected(&row);
                let RequestRow { id: request, account, key, route, charge: charged, at } = row;
                each(ChargedView { request, at: Time(at), account, key, route, charged, is_selected })
            })
        })
        .await
    }
}

fn each_row(reader: &mut dyn BooksReader, mut each: impl FnMut(RequestRow) -> ControlFlow<()>) -> Result<()> {
    let mut after = (WallTime(i64::MIN), RequestId(0));
    loop {
        let page = reader.requests(after, WallTime(i64::MAX), PAGE)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = (last.at, last.id);
        for row in page {
            if each(row).is_break() {
                return Ok(());
            }
        }
    }
}
