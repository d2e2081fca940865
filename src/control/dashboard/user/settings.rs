//! A user's name, password, sessions and one-time codes.

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use crate::control::dashboard::enter::begin;
use crate::control::dashboard::html::format;
use crate::control::dashboard::html::parts::{Field, badge, button, card, table_card, trouble};
use crate::control::dashboard::html::{Frame, Place};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{Failure, Fields, Notice, See, Signed};
use crate::control::operations::{OperationError, SessionView, Visitor};
use crate::types::WallTime;

/// The user who is signed in.
pub(super) fn user(visitor: Option<Visitor>) -> Result<Visitor, Failure> {
    let visitor = visitor.ok_or_else(|| Failure::SignIn("/settings".to_owned()))?;
    match visitor.user() {
        Some(_) => Ok(visitor),
        None => {
            Err(OperationError::Forbidden("you sign in on another site: change it there".to_owned()).into())
        }
    }
}

fn sessions(list: &[SessionView], now: WallTime) -> Markup {
    let all = html! { (button("/settings/sessions/end", "Sign out everywhere else", "tight")) };
    table_card(
        "Where you are signed in",
        (list.len() > 1).then_some(all),
        html! {
            table {
                thead { tr { th { "Browser" } th { "Address" } th { "Since" } th { "Last used" } th { span.sr { "Actions" } } } }
                tbody {
                    @for session in list {
                        tr {
                            td { (session.agent) @if session.is_own { " " (badge("this one")) } }
                            td { (session.from) }
                            td { (format::ago(session.created.0, now)) }
                            td { (format::ago(session.seen.0, now)) }
                            td.num { @if !session.is_own { (button(&format!("/settings/sessions/{}/end", session.id), "Sign out", "tight")) } }
                        }
                    }
                }
            }
        },
    )
}

async fn page(
    site: &Site,
    visitor: &Visitor,
    notice: Option<Notice>,
    error: Option<&OperationError>,
) -> Result<Response, Failure> {
    let list = site.control.sessions(visitor).await?;
    let Some(user) = visitor.user() else { return Err(Failure::SignIn("/settings".to_owned())) };
    let name =
        Field { name: "name", label: "Name", value: &user.name, autocomplete: "name", ..Field::default() };
    let current = Field {
        name: "current",
        label: "Current password",
        kind: "password",
        autocomplete: "current-password",
        ..Field::default()
    };
    let new = Field {
        name: "password",
        label: "New password",
        kind: "password",
        hint: "At least 10 characters.",
        is_needed: true,
        autocomplete: "new-password",
        ..Field::default()
    };
    let frame = Frame {
        site,
        visitor,
        place: Place::Own,
        title: "Settings",
        about: "How you sign in, and where.",
        action: None,
        notice,
    };
    let response = frame.page(html! {
        (trouble(error, &["name", "current", "password"]))
        div.columns {
            (card("Profile", html! {
                form.stack method="post" action="/settings/name" {
                    div.field { span { strong { "E-mail address" } } span { (user.email) } }
                    (name.render(error))
                    div { button type="submit" { "Save" } }
                }
            }))
            (card("Password", html! {
                form.stack method="post" action="/settings/password" {
                    @if user.password.is_some() { (current.render(error)) }
                    (new.render(error))
                    div { button type="submit" { "Change password" } }
                }
            }))
            (card("One-time codes", html! {
                @match &user.codes {
                    Some(codes) => {
                        p { (badge("active")) " An authenticator app is asked for at each sign-in. " (format::counted(codes.recovery.len() as u64, "recovery code", "recovery codes")) " left." }
                        form.stack method="post" action="/settings/codes/off" {
                            (Field { name: "code", label: "Code", hint: "A current code turns them off.", is_needed: true, autocomplete: "one-time-code", ..Field::default() }.render(error))
                            div { button.danger type="submit" { "Turn off" } }
                        }
                    }
                    None => {
                        p { "A second step at sign-in: six digits from an app on your phone." }
                        a.button href="/settings/codes" { "Set up" }
                    }
                }
            }))
        }
        (sessions(&list, site.now()))
    });
    Ok(Failure::told(response, error))
}

/// The settings of a user.
pub(in crate::control::dashboard) async fn settings(
    State(site): State<Site>,
    Signed(visitor): Signed,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let visitor = user(visitor)?;
    page(&site, &visitor, Notice::of(query.as_deref()), None).await
}

/// The page again, with what was wrong.
pub(super) async fn again(
    site: &Site,
    visitor: &Visitor,
    error: OperationError,
) -> Result<Response, Failure> {
    match error {
        OperationError::Invalid { .. } | OperationError::Throttled { .. } | OperationError::Conflict(_) => {
            page(site, visitor, None, Some(&error)).await
        }
        error => Err(error.into()),
    }
}

/// Changes the user's name.
pub(in crate::control::dashboard) async fn rename(
    State(site): State<Site>,
    Signed(visitor): Signed,
    fields: Fields,
) -> Result<Response, Failure> {
    let visitor = user(visitor)?;
    match site.control.rename_self(&visitor, fields.get("name")).await {
        Ok(()) => Ok(See("/settings?done=name-saved".to_owned()).into_response()),
        Err(error) => again(&site, &visitor, error).await,
    }
}

/// Changes the user's password.
pub(in crate::control::dashboard) async fn password(
    State(site): State<Site>,
    Signed(visitor): Signed,
    fields: Fields,
) -> Result<Response, Failure> {
    let visitor = user(visitor)?;
    match site.control.change_password(&visitor, fields.secret("current"), fields.secret("password")).await {
        Ok(secret) => begin(&site, &secret, "/settings?done=password-saved".to_owned()),
        Err(error) => again(&site, &visitor, error).await,
    }
}

/// Ends one of the user's sessions.
pub(in crate::control::dashboard) async fn end_session(
    State(site): State<Site>,
    Signed(visitor): Signed,
    Path(id): Path<String>,
) -> Result<See, Failure> {
    site.control.end_sessions(&user(visitor)?, Some(&id)).await?;
    Ok(See("/settings?done=sessions-ended".to_owned()))
}

/// Ends all sessions of the user but this one.
pub(in crate::control::dashboard) async fn end_sessions(
    State(site): State<Site>,
    Signed(visitor): Signed,
) -> Result<See, Failure> {
    site.control.end_sessions(&user(visitor)?, None).await?;
    Ok(See("/settings?done=sessions-ended".to_owned()))
}
