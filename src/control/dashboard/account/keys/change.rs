//! Changing, rotating, disabling and revoking a key.

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use maud::html;

use super::key::{Ids, found};
use super::secret::show_secret;
use super::terms::{
    Choice, EXPIRIES, chosen_scopes, expiry, group_field, group_name, networks, own_limit, own_limit_fields,
    scopes, spend_limit,
};
use crate::control::dashboard::html::parts::{Field, Question, card, select, trouble};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{Failure, Fields, InAccount, See};
use crate::control::operations::{KeyPatch, KeyView, OperationError, Patch, Permission, Result};
use crate::policy::key::KeyState;
use crate::types::GroupName;

/// How long an old secret works after a rotation, as one chooses it.
const GRACES: [(&str, &str); 6] = [
    ("", "Stop it now"),
    ("1m", "1 minute"),
    ("15m", "15 minutes"),
    ("1h", "1 hour"),
    ("6h", "6 hours"),
    ("24h", "24 hours"),
];

/// The limits of a key as the form shows them.
enum Own {
    /// Limits that only an operator changes.
    Operators,
    /// The number of requests and the window; empty if there is no limit of the key's own.
    Members(String, String),
}

fn own(key: &KeyView) -> Own {
    match key.limits.as_deref() {
        None => Own::Members(String::new(), String::new()),
        Some([limit]) if limit.adds => Own::Members(limit.requests.to_string(), limit.window.clone()),
        Some(_) => Own::Operators,
    }
}

/// The form with the terms of a key, or with what was typed.
async fn edit_form(
    site: &Site,
    of: &InAccount,
    key: &KeyView,
    typed: Option<&Fields>,
    error: Option<&OperationError>,
) -> Result<Response> {
    let groups = site.control.groups(&of.caller, of.account.clone()).await?.data;
    let shown = |name: &str, known: &str| typed.map_or(known, |typed| typed.get(name)).to_owned();
    let page = of.at(&format!("keys/{}", key.id));
    let networks = key
        .allow_from
        .as_deref()
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    let networks = shown("allow_from", &networks);
    let cap = shown("spend_limit", &key.spend_limit.map(|limit| limit.to_string()).unwrap_or_default());
    let label = shown("label", &key.label);
    let fields = [
        Field { name: "label", label: "Name", value: &label, is_needed: true, ..Field::default() },
        Field {
            name: "allow_from",
            label: "Only from these addresses",
            hint: "Networks separated by commas. Left empty: from anywhere.",
            value: &networks,
            ..Field::default()
        },
        Field {
            name: "spend_limit",
            label: "Most credits it may spend",
            hint: "In all such as 100, or in a period such as 100/day. Left empty: as many as the account has.",
            value: &cap,
            ..Field::default()
        },
    ];
    let own = own(key);
    let routes = match typed {
        Some(typed) => typed.choice(),
        None => Choice::of(site, key.scopes.as_ref().map(|scopes| &*scopes.routes)),
    };
    let mut presets = vec![("keep", "As it is")];
    presets.extend(EXPIRIES);
    let (expires, date) = (shown("expires", "keep"), shown("date", ""));
    let date = Field { name: "date", label: "Date", kind: "date", value: &date, ..Field::default() };
    let body = html! {
        form.stack method="post" action={ (page) "/edit" } {
            (trouble(error, &["label", "allow_from", "spend_limit", "limits"]))
            input type="hidden" name="version" value=(shown("version", &key.version.to_string()));
            @for field in &fields { (field.render(error)) }
            (group_field(&groups, &shown("group", key.group.as_ref().map_or("", GroupName::as_str))))
            div.row { (select("expires", "Expires", &presets, &expires)) (date.render(error)) }
            (scopes(site, &routes))
            @match own {
                Own::Operators => p.quiet { "The limits of this key were set by the operator." },
                Own::Members(requests, window) => (own_limit_fields(&shown("limits", &requests), &shown("window", &window), error)),
            }
            div.actions { button.primary type="submit" { "Save" } a.button href=(page) { "Cancel" } }
        }
    };
    let frame = of.frame(site, "keys", "Edit key", "Changes are in force at once.");
    let response = frame.page(card(&key.label, body));
    Ok(Failure::told(response, error))
}

/// The form to change a key.
pub(in crate::control::dashboard) async fn edit_page(
    State(site): State<Site>,
    of: InAccount,
    ids: Ids,
) -> Result<Response, Failure> {
    of.caller.may_in(Permission::Keys, &of.account)?;
    let key = found(&site, &of, &ids).await?;
    Ok(edit_form(&site, &of, &key, None, None).await?)
}

async fn changed(site: &Site, of: &InAccount, key: &KeyView, fields: &Fields) -> Result<KeyView> {
    let patch = KeyPatch {
        label: Some(fields.get("label").to_owned()),
        scopes: Patch::Value(chosen_scopes(site, fields)?),
        expires: match fields.get("expires") {
            "keep" => Patch::Absent,
            _ => expiry(fields).map_or(Patch::Null, Patch::Value),
        },
        allow_from: Patch::Value(networks(fields)?),
        limits: match own(key) {
            Own::Operators => Patch::Absent,
            Own::Members(..) => own_limit(fields)?.map_or(Patch::Null, Patch::Value),
        },
        spend_limit: spend_limit(fields)?.map_or(Patch::Null, Patch::Value),
        group: match fields.all("group").next() {
            Some(_) => group_name(fields)?.map_or(Patch::Null, Patch::Value),
            None => Patch::Absent,
        },
    };
    site.control.change_key(&of.caller, key.id, patch, fields.get("version").parse().ok()).await
}

/// Changes a key.
pub(in crate::control::dashboard) async fn change(
    State(site): State<Site>,
    of: InAccount,
    ids: Ids,
    fields: Fields,
) -> Result<Response, Failure> {
    let key = found(&site, &of, &ids).await?;
    of.caller.may_in(Permission::Keys, &of.account)?;
    match changed(&site, &of, &key, &fields).await {
        Ok(_) => Ok(See(of.at(&format!("keys/{}?done=key-changed", key.id))).into_response()),
        // What somebody else has changed is shown before it is changed again.
        Err(error @ OperationError::Stale(_)) => Ok(edit_form(&site, &of, &key, None, Some(&error)).await?),
        Err(error @ (OperationError::Invalid { .. } | OperationError::Conflict(_))) => {
            Ok(edit_form(&site, &of, &key, Some(&fields), Some(&error)).await?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Asks how to rotate a key.
pub(in crate::control::dashboard) async fn rotate_page(
    State(site): State<Site>,
    of: InAccount,
    ids: Ids,
) -> Result<Response, Failure> {
    let key = found(&site, &of, &ids).await?;
    let page = of.at(&format!("keys/{}", key.id));
    let title = format!("Rotate {}", key.label);
    let question = Question {
        title: &title,
        effect: "The key gets a new secret, which is shown once. Its name, terms and use stay. Credits belong to the account: none are lost.",
        action: &format!("{page}/rotate"),
        verb: "Rotate",
        back: &page,
        fields: select("overlap", "The old secret works for", &GRACES, ""),
    };
    Ok(of.frame(&site, "keys", &title, "").page(question.render(None)))
}

/// Gives a key a new secret, and goes on to the page that shows it once.
pub(in crate::control::dashboard) async fn rotate(
    State(site): State<Site>,
    of: InAccount,
    ids: Ids,
    fields: Fields,
) -> Result<Response, Failure> {
    let key = found(&site, &of, &ids).await?;
    let overlap = fields.some("overlap").map(str::to_owned);
    let view = site.control.rotate_key(&of.caller, key.id, overlap).await?;
    show_secret(&site, &of, &view);
    Ok(See(of.at(&format!("keys/{}/secret", key.id))).into_response())
}

/// Ends the overlap of a rotation.
pub(in crate::control::dashboard) async fn end_overlap(
    State(site): State<Site>,
    of: InAccount,
    ids: Ids,
) -> Result<See, Failure> {
    let key = found(&site, &of, &ids).await?;
    site.control.end_overlap(&of.caller, key.id).await?;
    Ok(See(of.at(&format!("keys/{}?done=key-ended", key.id))))
}

fn revoke_question(site: &Site, of: &InAccount, key: &KeyView, error: Option<&OperationError>) -> Response {
    let page = of.at(&format!("keys/{}", key.id));
    let title = format!("Revoke {}", key.label);
    let hint = format!("Type “{}” to confirm.", key.label);
    let field =
        Field { name: "name", label: "Name of the key", hint: &hint, is_needed: true, ..Field::default() };
    let question = Question {
        title: &title,
        effect: "Requests with this key are refused, within a second and for good. Programs that use it stop working.",
        action: &format!("{page}/revoke"),
        verb: "Revoke",
        back: &page,
        fields: field.render(error),
    };
    let response = of.frame(site, "keys", &title, "").page(question.render(error));
    Failure::told(response, error)
}

/// Asks whether to revoke a key.
pub(in crate::control::dashboard) async fn revoke_page(
    State(site): State<Site>,
    of: InAccount,
    ids: Ids,
) -> Result<Response, Failure> {
    let key = found(&site, &of, &ids).await?;
    Ok(revoke_question(&site, &of, &key, None))
}

/// Revokes a key, if its name was typed.
pub(in crate::control::dashboard) async fn revoke(
    State(site): State<Site>,
    of: InAccount,
    ids: Ids,
    fields: Fields,
) -> Result<Response, Failure> {
    of.caller.may_in(Permission::Keys, &of.account)?;
    let key = found(&site, &of, &ids).await?;
    if fields.get("name") != key.label.trim() {
        let message = "this is not the key's name".to_owned();
        let error = OperationError::Invalid { field: "name", message };
        return Ok(revoke_question(&site, &of, &key, Some(&error)));
    }
    site.control.set_key_state(&of.caller, key.id, KeyState::Revoked).await?;
    Ok(See(of.at(&format!("keys/{}?done=key-revoked", key.id))).into_response())
}

async fn set(site: Site, of: InAccount, ids: Ids, state: KeyState, done: &str) -> Result<See, Failure> {
    let key = found(&site, &of, &ids).await?;
    site.control.set_key_state(&of.caller, key.id, state).await?;
    Ok(See(of.at(&format!("keys/{}?done={done}", key.id))))
}

/// Disables a key.
pub(in crate::control::dashboard) async fn disable(
    State(site): State<Site>,
    of: InAccount,
    ids: Ids,
) -> Result<See, Failure> {
    set(site, of, ids, KeyState::Disabled, "key-disabled").await
}

/// Enables a key.
pub(in crate::control::dashboard) async fn enable(
    State(site): State<Site>,
    of: InAccount,
    ids: Ids,
) -> Result<See, Failure> {
    set(site, of, ids, KeyState::Active, "key-enabled").await
}
