//! Buying credits.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use maud::{Markup, html};

use crate::control::dashboard::html::format;
use crate::control::dashboard::html::parts::{card, table_card};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{Failure, Fields, InAccount};
use crate::control::operations::{Answer, OperationError, PaymentView, Permission, Result};
use crate::types::WallTime;

/// The packages that can be bought, and what was paid; nothing if nothing is for sale and nothing was paid.
pub(super) async fn cards(site: &Site, of: &InAccount) -> Result<Markup> {
    let packages = site.control.packages();
    let payments = site.control.payments(&of.caller, of.account.clone()).await?.data;
    let may = of.may(Permission::Alerts);
    Ok(html! {
        @if !packages.is_empty() {
            (card("Buy credits", html! {
                form.stack method="post" action=(of.at("credits/buy")) {
                    fieldset {
                        legend.sr { "What to buy" }
                        @for (at, package) in packages.iter().enumerate() {
                            label.choice {
                                input type="radio" name="package" value=(package.name) checked[at == 0] required;
                                span {
                                    (package.title) ": " (format::credits(package.credits)) " credits for " (package.price)
                                    @if let Some(expires) = package.expires { ", good for " (format::counted((expires.as_secs() / 86_400).max(1), "day", "days")) }
                                }
                            }
                        }
                    }
                    @if may { div { button.primary type="submit" { "Go to payment" } } } @else { p.quiet { "Owners and billing can buy credits." } }
                }
            }))
        }
        @if !payments.is_empty() { (table_card("Payments", None, table(&payments, site.now()))) }
    })
}

/// The payments, with what was taken back of them.
pub(in crate::control::dashboard) fn table(payments: &[PaymentView], now: WallTime) -> Markup {
    let is_reversed =
        payments.iter().any(|payment| !payment.taken_back.is_zero() || !payment.missing.is_zero());
    html! {
        table {
            thead { tr { th { "Time" } th { "Package" } th.wide { "Payment" } th.num { "Price" } th.num { "Credits" } @if is_reversed { th.num { "Taken back" } th.num { "Missing" } } } }
            tbody {
                @for payment in payments {
                    tr {
                        td { @match payment.granted { Some(at) => (format::ago(at.0, now)), None => "not granted" } }
                        td { (payment.package) }
                        td.wide { code { (payment.id) } }
                        td.num.nowrap { (payment.price) }
                        td.num { (format::credits(payment.credits)) }
                        @if is_reversed {
                            td.num { (format::credits(payment.taken_back)) }
                            td.num { (format::credits(payment.missing)) }
                        }
                    }
                }
            }
        }
    }
}

/// Opens the payment service's page, and leads there. A redirect would be refused by browsers, since forms are only sent to
/// this site (CSP).
pub(in crate::control::dashboard) async fn buy(
    State(site): State<Site>,
    of: InAccount,
    fields: Fields,
) -> Result<Response, Failure> {
    of.caller.may_in(Permission::Alerts, &of.account)?;
    let email = of.visitor.user().map(|user| user.email.clone());
    let url =
        site.control.buy(&of.caller, of.account.clone(), fields.get("package"), email.as_deref()).await?;
    let frame = of.frame(&site, "credits", "To the payment", "You pay on the page of our payment service.");
    let content = html! {
        meta http-equiv="refresh" content={ "0; url=" (url) };
        (card("Payment", html! {
            p { "The payment page opens. If it does not, follow this link." }
            p { a.button.primary href=(url) rel="noreferrer" { "Go to payment" } }
        }))
    };
    Ok(frame.page(content))
}

/// Takes a message of Stripe. Any status but 200 makes it send the message again.
pub(in crate::control::dashboard) async fn stripe(
    State(site): State<Site>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let signature = headers.get("stripe-signature").and_then(|value| value.to_str().ok());
    match site.control.take_payment_message(signature.unwrap_or_default(), &body).await {
        Ok(Answer::Taken) => (StatusCode::OK, "taken\n").into_response(),
        Ok(Answer::Unsigned) => (StatusCode::BAD_REQUEST, "the signature is wrong or old\n").into_response(),
        Ok(Answer::Malformed) => (StatusCode::BAD_REQUEST, "this is no message of Stripe\n").into_response(),
        Err(OperationError::Missing(_)) => {
            (StatusCode::NOT_FOUND, "payments are not configured\n").into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a message of the payment service could not be taken");
            (StatusCode::SERVICE_UNAVAILABLE, "try again later\n").into_response()
        }
    }
}
