//! Links that can be used once. They are used by a button, because programs open links in e-mail before people do.

use axum::extract::{Path, State};
use axum::response::Response;
use maud::html;

use super::after;
use crate::control::dashboard::html::enter_page;
use crate::control::dashboard::html::parts::{Field, trouble};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{Failure, Fields, From, Signed};
use crate::control::operations::{LinkUse, OpenLink, OperationError};
use crate::ledger::store::LinkPurpose;

fn page(
    site: &Site,
    secret: &str,
    link: &OpenLink,
    is_own: bool,
    error: Option<&OperationError>,
) -> Response {
    let is_new = match link.purpose {
        LinkPurpose::Invitation => !link.is_known,
        LinkPurpose::Verify => true,
        LinkPurpose::SignIn | LinkPurpose::Portal | LinkPurpose::Code => false,
    };
    let must_sign_in = link.purpose == LinkPurpose::Invitation && link.is_known && !is_own;
    let (name, _) = site.brand();
    let title = match link.purpose {
        LinkPurpose::Invitation => "You are invited",
        LinkPurpose::Verify => "Confirm your e-mail address",
        LinkPurpose::SignIn | LinkPurpose::Portal | LinkPurpose::Code => "Sign in",
    };
    let verb = match link.purpose {
        LinkPurpose::Invitation => "Join",
        LinkPurpose::Verify => "Confirm",
        LinkPurpose::SignIn | LinkPurpose::Portal | LinkPurpose::Code => "Sign in",
    };
    let fields = [
        Field { name: "name", label: "Your name", autocomplete: "name", ..Field::default() },
        Field {
            name: "password",
            label: "Choose a password",
            kind: "password",
            hint: "At least 10 characters.",
            is_needed: true,
            autocomplete: "new-password",
            ..Field::default()
        },
    ];
    let content = html! {
        h1 { (title) }
        @match (link.purpose, &link.account, link.role) {
            (LinkPurpose::Invitation, Some(account), Some(role)) => p { "Join the account " strong { (account) } " of " (name) " as " (role) ", with " (link.email) "." },
            (LinkPurpose::Invitation, None, Some(role)) => p { "Become an operator of " (name) " with the role " (role) ", with " (link.email) "." },
            (LinkPurpose::Invitation, _, _) => p { "Open an account of " (name) ", with " (link.email) "." },
            (LinkPurpose::Portal, _, _) => p { "Go on to your account of " (name) "." },
            _ => p { "Go on as " (link.email) "." },
        }
        @if must_sign_in {
            p { "You have a user already: " a href={ "/sign-in?next=/link/" (secret) } { "sign in" } " as " (link.email) ", then join." }
        } @else {
            form.stack method="post" action={ "/link/" (secret) } {
                (trouble(error, &["name", "password"]))
                @if is_new { @for field in fields.iter().filter(|field| field.name == "password" || !link.is_known) { (field.render(error)) } }
                button.primary type="submit" { (verb) }
            }
        }
    };
    let response = enter_page(site, title, content);
    Failure::told(response, error)
}

/// Shows what a link is for.
pub(in crate::control::dashboard) async fn open_link(
    State(site): State<Site>,
    Signed(visitor): Signed,
    Path(secret): Path<String>,
) -> Result<Response, Failure> {
    let link = site.control.open_link(&secret).await?;
    let is_own =
        visitor.as_ref().and_then(|visitor| visitor.user()).is_some_and(|user| user.email == link.email);
    Ok(page(&site, &secret, &link, is_own, None))
}

/// Uses a link.
pub(in crate::control::dashboard) async fn use_link(
    State(site): State<Site>,
    Signed(visitor): Signed,
    From(origin): From,
    Path(secret): Path<String>,
    fields: Fields,
) -> Result<Response, Failure> {
    let password = fields.is_checked("password").then(|| fields.secret("password"));
    let input = LinkUse { name: fields.get("name").to_owned(), password };
    match site.control.use_link(&secret, input, visitor.as_ref(), &origin).await {
        Ok(result) => after(&site, result, None),
        Err(error @ OperationError::Invalid { .. }) => {
            let link = site.control.open_link(&secret).await?;
            Ok(page(&site, &secret, &link, false, Some(&error)))
        }
        Err(error) => Err(error.into()),
    }
}
