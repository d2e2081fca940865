//! Groups of an account's keys, which have a spending limit together.

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::terms::{group_name, spend_limit};
use crate::control::dashboard::html::format;
use crate::control::dashboard::html::parts::{Field, button_with, card, empty, table_card, trouble};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{Failure, Fields, InAccount, See};
use crate::control::operations::{GroupInput, GroupView, OperationError, Permission, Result};

/// The names of fields that errors are about.
const FIELDS: [&str; 2] = ["group", "spend_limit"];

fn row(of: &InAccount, group: &GroupView) -> Markup {
    html! {
        tr {
            td { (group.name) }
            td.num { (format::count(group.keys as u64)) }
            td.num { (format::credits(group.spent_in_period)) }
            td.num.nowrap { @if let Some(limit) = &group.spend_limit { (limit) } }
            td.num {
                @if of.may(Permission::Keys) && group.keys == 0 {
                    (button_with(&of.at("groups/delete"), &[("group", group.name.as_str())], "Delete", "tight"))
                }
            }
        }
    }
}

fn groups_page(
    site: &Site,
    of: &InAccount,
    groups: &[GroupView],
    typed: &Fields,
    error: Option<&OperationError>,
    query: Option<&str>,
) -> Response {
    let name = Field {
        name: "group",
        label: "Group",
        hint: "A team or an environment. The name of a group that exists changes its limit.",
        value: typed.get("group"),
        is_needed: true,
        ..Field::default()
    };
    let limit = Field {
        name: "spend_limit",
        label: "Most credits its keys may spend together",
        hint: "In all such as 100, or in a period such as 100/day.",
        value: typed.get("spend_limit"),
        is_needed: true,
        ..Field::default()
    };
    let table = html! {
        @if groups.is_empty() { (empty("There is no group yet.", None)) } @else {
            table {
                thead { tr { th { "Group" } th.num { "Keys" } th.num { "Spent" } th.num { "At most" } th { span.sr { "Actions" } } } }
                tbody { @for group in groups { (row(of, group)) } }
            }
        }
    };
    let content = html! {
        (table_card("Groups", None, table))
        @if of.may(Permission::Keys) {
            (card("Add or change a group", html! {
                form.stack method="post" action=(of.at("groups")) {
                    (trouble(error, &FIELDS))
                    (name.render(error))
                    (limit.render(error))
                    div.actions { button.primary type="submit" { "Save" } a.button href=(of.at("keys")) { "Back to keys" } }
                }
            }))
        }
    };
    let lead = "Keys in a group spend from one limit. A key is put in a group on its own page.";
    let frame = of.frame(site, "keys", "Groups of keys", lead);
    Failure::told(frame.with_notice(query).page(content), error)
}

/// The groups of an account's keys.
pub(in crate::control::dashboard) async fn groups(
    State(site): State<Site>,
    of: InAccount,
    RawQuery(raw): RawQuery,
) -> Result<Response, Failure> {
    let groups = site.control.groups(&of.caller, of.account.clone()).await?.data;
    Ok(groups_page(&site, &of, &groups, &Fields::parse(b""), None, raw.as_deref()))
}

async fn put(site: &Site, of: &InAccount, fields: &Fields) -> Result<GroupView> {
    let missing = |field| OperationError::Invalid { field, message: "this is needed".to_owned() };
    let name = group_name(fields)?.ok_or_else(|| missing("group"))?;
    let spend_limit = spend_limit(fields)?.ok_or_else(|| missing("spend_limit"))?;
    site.control.put_group(&of.caller, of.account.clone(), name, GroupInput { spend_limit }).await
}

/// Answers with the page of groups, and what went wrong.
async fn answered(
    site: &Site,
    of: &InAccount,
    fields: &Fields,
    result: Result<GroupView>,
    done: &str,
) -> Result<Response, Failure> {
    match result {
        Ok(_) => Ok(See(of.at(&format!("groups?done={done}"))).into_response()),
        Err(error @ (OperationError::Invalid { .. } | OperationError::Conflict(_))) => {
            let groups = site.control.groups(&of.caller, of.account.clone()).await?.data;
            Ok(groups_page(site, of, &groups, fields, Some(&error), None))
        }
        Err(error) => Err(error.into()),
    }
}

/// Creates a group, or changes its limit.
pub(in crate::control::dashboard) async fn put_group(
    State(site): State<Site>,
    of: InAccount,
    fields: Fields,
) -> Result<Response, Failure> {
    of.caller.may_in(Permission::Keys, &of.account)?;
    let result = put(&site, &of, &fields).await;
    answered(&site, &of, &fields, result, "group-saved").await
}

/// Deletes a group that no key is in.
pub(in crate::control::dashboard) async fn delete_group(
    State(site): State<Site>,
    of: InAccount,
    fields: Fields,
) -> Result<Response, Failure> {
    of.caller.may_in(Permission::Keys, &of.account)?;
    let result = match group_name(&fields)? {
        Some(name) => site.control.delete_group(&of.caller, of.account.clone(), name).await,
        None => OperationError::invalid("group", "this is needed"),
    };
    answered(&site, &of, &fields, result, "group-deleted").await
}
