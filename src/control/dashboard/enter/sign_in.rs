//! Signing in and out.

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::header;
use maud::{Markup, html};

use super::{after, first, own_path};
use crate::control::dashboard::html::enter_page;
use crate::control::dashboard::html::parts::{Field, trouble};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{Failure, Fields, From, Notice, See, Signed, clear};
use crate::control::operations::{Email, OperationError};
use crate::snapshot::dashboard::SignUp;

/// The first page of a person who is signed in: their account, the operator's page, or a choice.
pub(in crate::control::dashboard) async fn first_page(
    State(site): State<Site>,
    Signed(visitor): Signed,
) -> Result<Response, Failure> {
    let Some(visitor) = visitor else { return Ok(See("/sign-in".to_owned()).into_response()) };
    if visitor.operator().is_some() {
        return Ok(See("/operator".to_owned()).into_response());
    }
    if let [(account, _)] = visitor.accounts.as_slice() {
        return Ok(See(format!("/accounts/{account}")).into_response());
    }
    let content = html! {
        h1 { "Your accounts" }
        @if visitor.accounts.is_empty() {
            p { "You have no account yet. Ask the person who invited you, or the operator." }
        }
        ul { @for (account, role) in &visitor.accounts { li { a href={ "/accounts/" (account) } { (account) } " " span.quiet { (role.name()) } } } }
        p { a href="/settings" { "Your settings" } }
    };
    Ok(enter_page(&site, "Your accounts", content))
}

fn form(
    site: &Site,
    email: &str,
    next: Option<&str>,
    error: Option<&OperationError>,
    notice: Option<Notice>,
) -> Response {
    let settings = site.settings().ok();
    let can_sign_up =
        settings.as_ref().is_some_and(|it| matches!(it.sign_up, SignUp::Open | SignUp::Approval));
    let has_mail = settings.is_some_and(|it| it.smtp.is_some());
    let fields: [Markup; 2] = [
        Field {
            name: "email",
            label: "E-mail address",
            kind: "email",
            value: email,
            is_needed: true,
            autocomplete: "username",
            ..Field::default()
        }
        .render(error),
        Field {
            name: "password",
            label: "Password",
            kind: "password",
            is_needed: true,
            autocomplete: "current-password",
            ..Field::default()
        }
        .render(error),
    ];
    let content = html! {
        h1 { "Sign in" }
        @if let Some(Notice(text)) = notice { p { (text) } }
        form.stack method="post" action="/sign-in" {
            (trouble(error, &["email", "password"]))
            @for field in &fields { (field) }
            @if let Some(next) = next { input type="hidden" name="next" value=(next); }
            button.primary type="submit" { "Sign in" }
        }
        p {}
        @if has_mail { p { a href="/sign-in/link" { "Send me a link instead" } } }
        @if can_sign_up { p { "No account yet? " a href="/sign-up" { "Sign up" } } }
    };
    let response = enter_page(site, "Sign in", content);
    Failure::told(response, error)
}

/// The form to sign in.
pub(in crate::control::dashboard) async fn sign_in_page(
    State(site): State<Site>,
    RawQuery(query): RawQuery,
) -> Response {
    let fields = Fields::of(query.as_deref());
    form(&site, "", own_path(fields.get("next")), None, Notice::of(query.as_deref()))
}

/// Signs in by e-mail address and password.
pub(in crate::control::dashboard) async fn sign_in(
    State(site): State<Site>,
    From(origin): From,
    fields: Fields,
) -> Result<Response, Failure> {
    let (text, next) = (fields.get("email"), own_path(fields.get("next")));
    let Ok(email) = text.parse::<Email>() else {
        let message = "this is no e-mail address".to_owned();
        return Ok(form(&site, text, next, Some(&OperationError::Invalid { field: "email", message }), None));
    };
    match site.control.sign_in(email, fields.secret("password"), &origin).await {
        Ok(result) => after(&site, result, next),
        Err(error @ (OperationError::Forbidden(_) | OperationError::Throttled { .. })) => {
            Ok(form(&site, text, next, Some(&error), None))
        }
        Err(error) => Err(error.into()),
    }
}

/// The form for a one-time code.
pub(super) fn code_page(
    site: &Site,
    attempt: &str,
    next: Option<&str>,
    error: Option<&OperationError>,
) -> Response {
    let field = Field {
        name: "code",
        label: "Code",
        hint: "Six digits from your authenticator app, or one of your recovery codes.",
        is_needed: true,
        autocomplete: "one-time-code",
        ..Field::default()
    };
    let content = html! {
        h1 { "One-time code" }
        form.stack method="post" action="/sign-in/code" {
            (trouble(error, &["code"]))
            input type="hidden" name="attempt" value=(attempt);
            @if let Some(next) = next { input type="hidden" name="next" value=(next); }
            (field.render(error))
            button.primary type="submit" { "Sign in" }
        }
    };
    let response = enter_page(site, "One-time code", content);
    Failure::told(response, error)
}

/// Signs in by a one-time code, after the password.
pub(in crate::control::dashboard) async fn code(
    State(site): State<Site>,
    From(origin): From,
    fields: Fields,
) -> Result<Response, Failure> {
    let (attempt, next) = (fields.get("attempt"), own_path(fields.get("next")));
    match site.control.sign_in_with_code(attempt, fields.get("code"), &origin).await {
        Ok(session) => first(&site, &session, next),
        Err(error @ (OperationError::Invalid { .. } | OperationError::Throttled { .. })) => {
            Ok(code_page(&site, attempt, next, Some(&error)))
        }
        Err(error) => Err(error.into()),
    }
}

/// The form that asks for a sign-in link.
pub(in crate::control::dashboard) async fn ask_link(State(site): State<Site>) -> Response {
    link_form(&site, None)
}

fn link_form(site: &Site, error: Option<&OperationError>) -> Response {
    let field = Field {
        name: "email",
        label: "E-mail address",
        kind: "email",
        is_needed: true,
        autocomplete: "username",
        ..Field::default()
    };
    let content = html! {
        h1 { "Sign in by e-mail" }
        form.stack method="post" action="/sign-in/link" {
            (trouble(error, &["email"]))
            (field.render(error))
            button.primary type="submit" { "Send me a link" }
        }
        p {}
        p { a href="/sign-in" { "Sign in with a password" } }
    };
    let response = enter_page(site, "Sign in by e-mail", content);
    Failure::told(response, error)
}

/// Sends a sign-in link, if there is such a user. The page is the same if there is none.
pub(in crate::control::dashboard) async fn send_link(
    State(site): State<Site>,
    From(origin): From,
    fields: Fields,
) -> Result<Response, Failure> {
    let invalid = |message: &str| OperationError::Invalid { field: "email", message: message.to_owned() };
    let sent = match fields.get("email").parse::<Email>() {
        Ok(email) => site.control.mail_sign_in_link(email, &origin),
        Err(message) => Err(invalid(message)),
    };
    match sent {
        Ok(()) => Ok(super::verify_page(&site)),
        Err(error) => Ok(link_form(&site, Some(&error))),
    }
}

/// Signs out.
pub(in crate::control::dashboard) async fn sign_out(
    State(site): State<Site>,
    Signed(visitor): Signed,
) -> Result<Response, Failure> {
    if let Some(visitor) = visitor {
        site.control.sign_out(&visitor).await?;
    }
    let mut response = See("/sign-in?done=signed-out".to_owned()).into_response();
    response.headers_mut().insert(header::SET_COOKIE, clear(site.is_https()?));
    Ok(response)
}
