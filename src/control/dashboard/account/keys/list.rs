//! The keys of an account.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use maud::{Markup, html};

use super::key::may_change;
use crate::control::dashboard::html::parts::{badge, empty, next_of, select};
use crate::control::dashboard::html::{chart, format};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{Failure, Fields, InAccount};
use crate::control::operations::{DaySums, KeyView, Permission, ShownKey};
use crate::types::{KeyNum, WallTime};

/// Keys that are looked through at a time, the newest first: they are searched and sorted together.
const BLOCK: usize = 2_000;
/// Keys on one page.
const PAGE: usize = 25;
/// A key that was not used for this long is told to be unused, in milliseconds.
const UNUSED: i64 = 30 * 24 * 3600 * 1000;

/// The state that people see: also whether a key has expired or expires soon.
pub(super) fn state(key: &KeyView, now: WallTime) -> &'static str {
    let soon = 7 * 24 * 3600 * 1000;
    match key.expires {
        Some(at) if key.state == "active" && at.0 <= now => "expired",
        Some(at) if key.state == "active" && at.0.0 - now.0 < soon => "expiring",
        _ => key.state,
    }
}

fn is_shown(key: &KeyView, now: WallTime, search: &str, status: &str) -> bool {
    let state = state(key, now);
    let fits = match status {
        "active" => matches!(state, "active" | "expiring"),
        "unused" => key.last_used.is_none_or(|at| now.0 - at.0.0 > UNUSED) && state == "active",
        "" => state != "revoked",
        "all" => true,
        other => state == other,
    };
    let hint = match &key.key {
        ShownKey::Hint(hint) => hint.as_str(),
        ShownKey::Whole(_) => "",
    };
    let search = search.to_lowercase();
    fits && (search.is_empty()
        || key.label.to_lowercase().contains(&search)
        || hint.to_lowercase().contains(&search))
}

fn sorted(keys: &mut [KeyView], by: &str) {
    match by {
        "name" => keys.sort_by_key(|key| key.label.to_lowercase()),
        "used" => keys.sort_by_key(|key| std::cmp::Reverse(key.last_used.map(|at| at.0))),
        "old" => keys.sort_by_key(|key| key.created.0),
        _ => keys.sort_by_key(|key| std::cmp::Reverse(key.created.0)),
    }
}

fn last_used(key: &KeyView, now: WallTime) -> Markup {
    html! {
        @match key.last_used {
            None => span.quiet { "never" },
            Some(at) if now.0 - at.0.0 > UNUSED => { span.quiet { (format::ago(at.0, now)) " · unused" } }
            Some(at) => (format::ago(at.0, now)),
        }
    }
}

fn row(of: &InAccount, key: &KeyView, days: &[DaySums], now: WallTime) -> Markup {
    let page = of.at(&format!("keys/{}", key.id));
    html! {
        tr {
            td { a href=(page) { (key.label) } }
            td.nowrap { @if let ShownKey::Hint(hint) = &key.key { code { (hint) } } }
            td { (badge(state(key, now))) }
            td.wide { (chart::spark(&key.label, days)) }
            td { (last_used(key, now)) }
            td.wide { @match &key.limits { Some(limits) => { @for limit in limits { div.nowrap { (limit.requests) " per " (limit.window) } } }, None => span.quiet { "of the plan" } } }
            td { @match key.expires { Some(at) => (format::ago(at.0, now)), None => span.quiet { "never" } } }
            td.num {
                details.menu {
                    summary aria-label={ "Actions for " (key.label) } { "⋯" }
                    div {
                        a href=(page) { "Open" }
                        @if may_change(of, key) {
                            a href={ (page) "/edit" } { "Edit" }
                            @if state(key, now) != "expired" { a href={ (page) "/rotate" } data-dialog="" { "Rotate" } }
                            a href={ (page) "/revoke" } data-dialog="" { "Revoke" }
                        }
                    }
                }
            }
        }
    }
}

fn filters(fields: &Fields) -> Markup {
    let states = [
        ("", "All but revoked"),
        ("active", "Active"),
        ("unused", "Unused for 30 days"),
        ("disabled", "Disabled"),
        ("expired", "Expired"),
        ("revoked", "Revoked"),
        ("all", "All"),
    ];
    let orders = [("", "Newest first"), ("old", "Oldest first"), ("name", "Name"), ("used", "Last used")];
    html! {
        form.filters method="get" data-auto="" role="search" {
            div.field { label for="q" { "Search" } input #q name="q" type="search" value=(fields.get("q")) autocomplete="off"; }
            (select("status", "Status", &states, fields.get("status")))
            (select("sort", "Order", &orders, fields.get("sort")))
            button type="submit" { "Show" }
        }
    }
}

/// Where a page of the list is: among the keys before a number, so many pages on.
#[derive(Clone, Copy)]
struct Place {
    before: Option<KeyNum>,
    page: usize,
}

impl Place {
    fn of(fields: &Fields) -> Self {
        let before = fields.get("before").parse().ok().map(KeyNum);
        Self { before, page: fields.get("page").parse().unwrap_or(0) }
    }

    /// The address of this place, with the filters that are set.
    fn query(self, fields: &Fields) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for name in ["q", "status", "sort"] {
            fields.some(name).map(|value| query.append_pair(name, value));
        }
        self.before.map(|before| query.append_pair("before", &before.0.to_string()));
        query.append_pair("page", &self.page.to_string());
        format!("?{}", query.finish())
    }
}

/// The keys of an account.
pub(in crate::control::dashboard) async fn keys(
    State(site): State<Site>,
    of: InAccount,
    RawQuery(raw): RawQuery,
) -> Result<Response, Failure> {
    let (fields, now) = (Fields::of(raw.as_deref()), site.now());
    let place = Place::of(&fields);
    let block = site.control.newest_keys(&of.caller, of.account.clone(), place.before, BLOCK).await?;
    let older = block.next_cursor.as_ref().and_then(|cursor| cursor.parse().ok()).map(KeyNum);
    let is_new = place.before.is_none() && block.data.is_empty();
    let mut found = block.data;
    found.retain(|key| is_shown(key, now, fields.get("q"), fields.get("status")));
    sorted(&mut found, fields.get("sort"));
    let start = place.page.saturating_mul(PAGE);
    let shown: Vec<&KeyView> = found.iter().skip(start).take(PAGE).collect();
    let days =
        site.control.key_days(&of.caller, of.account.clone(), shown.iter().map(|key| key.id).collect());
    let days = days.await?;
    let next_page = match (found.len() > start.saturating_add(PAGE), older) {
        (true, _) => Some(Place { page: place.page + 1, ..place }.query(&fields)),
        (false, Some(before)) => Some(Place { before: Some(before), page: 0 }.query(&fields)),
        (false, None) => None,
    };
    let create = html! { a.button.primary href=(of.at("keys/new")) data-create="" { "Create key" } };
    let action = of.may(Permission::Keys).then(|| create.clone());
    let mut frame = of.frame(&site, "keys", "Keys", "Your programs send a key with each request.");
    frame.action = action.clone();
    let is_all = older.is_none() && place.before.is_none();
    let content = html! {
        (filters(&fields))
        section.card {
            div.scroll tabindex="0" role="region" aria-label="Keys" {
                @if shown.is_empty() {
                    @if is_new { (empty("There is no key yet. Create one to send your first request.", action)) }
                    @else { (empty("No key here fits what you look for.", None)) }
                } @else {
                    table {
                        thead { tr { th { "Name" } th { "Key" } th { "Status" } th.wide { "Usage, 30 days" } th { "Last used" } th.wide { "Limits" } th { "Expires" } th { span.sr { "Actions" } } } }
                        tbody { @for key in &shown { (row(&of, key, days.get(&key.id).map_or(&[][..], Vec::as_slice), now)) } }
                    }
                }
            }
            (next_of(start, shown.len(), is_all.then_some(found.len()), next_page))
        }
        p.quiet.small {
            "Last use is at most a minute old. Keys that spend from one limit are in " a href=(of.at("groups")) { "groups" } "."
            @if !is_all { " There are many keys: each " (format::count(BLOCK as u64)) " of them, newest first, are searched and sorted together." }
        }
    };
    Ok(frame.with_notice(raw.as_deref()).page(content))
}
