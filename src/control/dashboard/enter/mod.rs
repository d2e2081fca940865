//! Pages for people who are not signed in: sign in, sign up, links.

mod link;
mod sign_in;
mod sign_up;

pub(super) use link::{open_link, use_link};
pub(super) use sign_in::{ask_link, code, first_page, send_link, sign_in, sign_in_page, sign_out};
pub(super) use sign_up::{sign_up, sign_up_page};

use axum::response::{IntoResponse, Response};
use http::header;
use maud::html;

use super::html::enter_page;
use super::web::{Failure, See, keep};
use crate::control::dashboard::site::Site;
use crate::control::operations::{NewSession, SignIn};
use crate::types::Secret;

/// Sends the browser on with its session's cookie.
pub(super) fn begin(site: &Site, secret: &Secret<String>, to: String) -> Result<Response, Failure> {
    let mut response = See(to).into_response();
    if let Some(cookie) = keep(secret, site.is_https()?) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

fn first(site: &Site, session: &NewSession, next: Option<&str>) -> Result<Response, Failure> {
    let to = match (&session.account, next) {
        (Some(account), _) => format!("/accounts/{account}"),
        (None, Some(next)) => next.to_owned(),
        (None, None) => "/".to_owned(),
    };
    begin(site, &session.secret, to)
}

/// The response to the first step of a sign-in.
fn after(site: &Site, result: SignIn, next: Option<&str>) -> Result<Response, Failure> {
    match result {
        SignIn::Done(session) => first(site, &session, next),
        SignIn::CodeNeeded(attempt) => Ok(sign_in::code_page(site, attempt.reveal(), next, None)),
        SignIn::Verify => Ok(verify_page(site)),
    }
}

fn verify_page(site: &Site) -> Response {
    let content = html! {
        h1 { "Look into your e-mail" }
        p { "We sent you a link. Open it to go on; it works once. If nothing arrives within a few minutes, look into the folder for junk, or try again." }
        p { a href="/sign-in" { "Back to sign in" } }
    };
    enter_page(site, "Look into your e-mail", content)
}

/// Where to go after signing in: only to a path of this site.
fn own_path(next: &str) -> Option<&str> {
    let is_own = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains('\\')
        && !next.contains(char::is_control);
    Some(next).filter(|_| is_own && next.is_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_another_site() {
        for (next, expected) in [
            ("/accounts/a", true),
            ("//evil.example", false),
            ("https://evil.example", false),
            ("/\\evil", false),
            ("/\t/evil.example", false),
            ("", false),
        ] {
            assert_eq!(own_path(next).is_some(), expected, "{next}");
        }
    }
}
