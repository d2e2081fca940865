//! Setting up one-time codes.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::{PreEscaped, html};

use super::settings::{again, user};
use crate::control::dashboard::enter::begin;
use crate::control::dashboard::html::parts::{Field, card, copyable, trouble};
use crate::control::dashboard::html::{Frame, Place};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{Failure, Fields, See, Signed};
use crate::control::operations::{OperationError, Visitor};
use crate::types::KeyHash;

/// What recovery codes are kept under until they are shown.
const RECOVERY: &str = "recovery codes";

fn frame<'a>(site: &'a Site, visitor: &'a Visitor, title: &'a str, about: &'a str) -> Frame<'a> {
    Frame { site, visitor, place: Place::Own, title, about, action: None, notice: None }
}

fn page(
    site: &Site,
    visitor: &Visitor,
    known: Option<&str>,
    error: Option<&OperationError>,
) -> Result<Response, Failure> {
    let setup = site.control.set_up_codes(visitor, known)?;
    // The renderer of the picture begins with a declaration, which belongs to a file.
    let picture = setup.picture.find("<svg").map_or("", |at| &setup.picture[at..]);
    let code = Field {
        name: "code",
        label: "Code",
        hint: "The six digits that the app shows now.",
        is_needed: true,
        autocomplete: "one-time-code",
        ..Field::default()
    };
    let response = frame(site, visitor, "Set up one-time codes", "Scan the picture with an authenticator app, then type the code it shows.").page(card("Authenticator app", html! {
        div.columns {
            div.qr role="img" aria-label="QR code of the secret below" { (PreEscaped(picture)) }
            div {
                p { "Or type this secret into the app:" }
                (copyable("otp-secret", setup.secret.reveal()))
                p {}
                form.stack method="post" action="/settings/codes" {
                    (trouble(error, &["code"]))
                    input type="hidden" name="secret" value=(setup.secret.reveal());
                    (code.render(error))
                    div.actions { button.primary type="submit" { "Turn on" } a.button href="/settings" { "Cancel" } }
                }
            }
        }
    }));
    Ok(Failure::told(response, error))
}

/// A new secret for an authenticator app.
pub(in crate::control::dashboard) async fn codes_page(
    State(site): State<Site>,
    Signed(visitor): Signed,
) -> Result<Response, Failure> {
    page(&site, &user(visitor)?, None, None)
}

/// Turns one-time codes on, and goes on to the recovery codes.
pub(in crate::control::dashboard) async fn codes_on(
    State(site): State<Site>,
    Signed(visitor): Signed,
    fields: Fields,
) -> Result<Response, Failure> {
    let (visitor, secret) = (user(visitor)?, fields.get("secret"));
    match site.control.turn_codes_on(&visitor, secret, fields.get("code")).await {
        Ok(made) => {
            let session = KeyHash::of(made.session.reveal().as_bytes());
            site.reveals.put(session, RECOVERY, made.codes, site.control.now());
            begin(&site, &made.session, "/settings/codes/recovery".to_owned())
        }
        Err(error @ (OperationError::Invalid { .. } | OperationError::Throttled { .. })) => {
            page(&site, &visitor, Some(secret), Some(&error))
        }
        Err(error) => Err(error.into()),
    }
}

/// Shows the recovery codes once.
pub(in crate::control::dashboard) async fn recovery(
    State(site): State<Site>,
    Signed(visitor): Signed,
) -> Result<Response, Failure> {
    let visitor = user(visitor)?;
    let Some(codes) = site.reveals.take(visitor.session, RECOVERY, site.control.now()) else {
        return Ok(See("/settings".to_owned()).into_response());
    };
    let text: Vec<&str> = codes.iter().map(|code| code.reveal().as_str()).collect();
    let frame =
        frame(&site, &visitor, "Recovery codes", "One-time codes are on. These codes are shown only now.");
    Ok(frame.page(html! {
        section.card data-unsaved="" {
            div.body {
                p { "Each of them signs you in once if you lose your phone. Keep them where you keep passwords." }
                (copyable("recovery", &text.join("\n")))
                p {}
                a.button.primary href="/settings" data-saved="" { "I have saved them" }
            }
        }
    }))
}

/// Turns one-time codes off.
pub(in crate::control::dashboard) async fn codes_off(
    State(site): State<Site>,
    Signed(visitor): Signed,
    fields: Fields,
) -> Result<Response, Failure> {
    let visitor = user(visitor)?;
    match site.control.turn_codes_off(&visitor, fields.get("code")).await {
        Ok(secret) => begin(&site, &secret, "/settings?done=codes-off".to_owned()),
        Err(error) => again(&site, &visitor, error).await,
    }
}
