//! Creating a key.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::html;

use super::secret::show_secret;
use super::terms::{
    EXPIRIES, chosen_scopes, expiry, group_field, group_name, networks, own_limit, own_limit_fields, scopes,
    spend_limit,
};
use crate::control::dashboard::html::parts::{Field, card, select, trouble};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{Failure, Fields, InAccount, See};
use crate::control::operations::{KeyInput, KeyView, OperationError, Permission, Result};

/// The names of fields that errors are about.
const FIELDS: [&str; 4] = ["label", "allow_from", "spend_limit", "limits"];

async fn form(
    site: &Site,
    of: &InAccount,
    fields: &Fields,
    error: Option<&OperationError>,
) -> Result<Response> {
    let groups = site.control.groups(&of.caller, of.account.clone()).await?.data;
    let label = Field {
        name: "label",
        label: "Name",
        hint: "What you will recognise it by, such as the program that uses it.",
        value: fields.get("label"),
        is_needed: true,
        ..Field::default()
    };
    let date =
        Field { name: "date", label: "Date", kind: "date", value: fields.get("date"), ..Field::default() };
    let networks = Field {
        name: "allow_from",
        label: "Only from these addresses",
        hint: "Networks such as 203.0.113.0/24, separated by commas. Left empty: from anywhere.",
        value: fields.get("allow_from"),
        ..Field::default()
    };
    let cap = Field {
        name: "spend_limit",
        label: "Most credits it may spend",
        hint: "In all such as 100, or in a period such as 100/day. Left empty: as many as the account has.",
        value: fields.get("spend_limit"),
        ..Field::default()
    };
    let body = html! {
        form.stack method="post" action=(of.at("keys")) {
            (trouble(error, &FIELDS))
            (label.render(error))
            (select("environment", "Environment", &[("live", "Live"), ("test", "Test")], fields.get("environment")))
            div.row {
                (select("expires", "Expires", &EXPIRIES, fields.get("expires")))
                (date.render(error))
            }
            (scopes(site, &fields.choice()))
            (networks.render(error))
            (own_limit_fields(fields.get("limits"), fields.get("window"), error))
            (cap.render(error))
            (group_field(&groups, fields.get("group")))
            div.actions {
                button.primary type="submit" { "Create key" }
                a.button href=(of.at("keys")) { "Cancel" }
            }
        }
    };
    let frame = of.frame(site, "keys", "Create key", "The key is shown once, right after this.");
    let response = frame.page(card("New key", body));
    Ok(Failure::told(response, error))
}

/// The form for a new key.
pub(in crate::control::dashboard) async fn create_page(
    State(site): State<Site>,
    of: InAccount,
) -> Result<Response, Failure> {
    of.caller.may_in(Permission::Keys, &of.account)?;
    Ok(form(&site, &of, &Fields::parse(b""), None).await?)
}

async fn made(site: &Site, of: &InAccount, fields: &Fields) -> Result<KeyView> {
    let input = KeyInput {
        label: fields.get("label").to_owned(),
        environment: fields.some("environment").unwrap_or("live").to_owned(),
        scopes: chosen_scopes(site, fields)?,
        expires: expiry(fields),
        allow_from: networks(fields)?,
        limits: own_limit(fields)?,
        spend_limit: spend_limit(fields)?,
        group: group_name(fields)?,
        sha256: None,
    };
    site.control.create_key(&of.caller, of.account.clone(), input).await
}

/// Creates a key, and goes on to the page that shows it once.
pub(in crate::control::dashboard) async fn create(
    State(site): State<Site>,
    of: InAccount,
    fields: Fields,
) -> Result<Response, Failure> {
    of.caller.may_in(Permission::Keys, &of.account)?;
    match made(&site, &of, &fields).await {
        Ok(view) => {
            show_secret(&site, &of, &view);
            Ok(See(of.at(&format!("keys/{}/secret", view.id))).into_response())
        }
        Err(error @ (OperationError::Invalid { .. } | OperationError::Conflict(_))) => {
            Ok(form(&site, &of, &fields, Some(&error)).await?)
        }
        Err(error) => Err(error.into()),
    }
}
