//! Buying credits.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use maud::{Markup, html};

use super::keys::amount;
use crate::control::dashboard::html::format;
use crate::control::dashboard::html::parts::{Field, card, select, table_card, trouble};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{Failure, Fields, InAccount, See};
use crate::control::operations::{Answer, OperationError, PaymentView, Permission, Result, money};
use crate::ledger::store::{AutoTopUp, Payer};
use crate::snapshot::payments::Package;
use crate::types::{Money, WallTime};

/// The names of fields that errors are about.
const FIELDS: [&str; 2] = ["below", "most"];

/// What can be bought, when it is bought automatically, and what was paid; nothing if nothing is for sale and nothing was
/// paid.
pub(super) async fn cards(
    site: &Site,
    of: &InAccount,
    typed: Option<&Fields>,
    error: Option<&OperationError>,
) -> Result<Markup> {
    let packages = site.control.packages();
    let payments = site.control.payments(&of.caller, of.account.clone()).await?.data;
    let payer = site.control.payer(&of.caller, of.account.clone()).await?;
    Ok(html! {
        @if !packages.is_empty() {
            div.columns {
                (sale(of, &packages, &payer))
                (top_up(of, &packages, &payer, typed, error))
            }
        }
        @if !payments.is_empty() { (table_card("Payments", None, table(&payments, site.now()))) }
    })
}

fn sale(of: &InAccount, packages: &[Package], payer: &Payer) -> Markup {
    let may = of.may(Permission::Alerts);
    let body = html! {
        @if let Some((name, until)) = &payer.subscription { p { "Subscribed to " (name) ", paid until " (format::at(*until)) "." } }
        form.stack method="post" action=(of.at("credits/buy")) {
            fieldset {
                legend.sr { "What to buy" }
                @for (at, package) in packages.iter().enumerate() {
                    label.check { input type="radio" name="package" value=(package.name) checked[at == 0] required; (what(package)) }
                }
            }
            @if may {
                @if packages.iter().any(|package| package.every.is_none()) {
                    label.check { input type="checkbox" name="save" value="1"; "Save the card for automatic top-ups" }
                }
                div { button.primary type="submit" { "Go to payment" } }
            } @else { p.quiet { "Owners and billing can buy credits." } }
        }
        @if may && payer.customer.is_some() {
            form method="post" action=(of.at("credits/payments")) {
                p.quiet.small { "Receipts and subscriptions are managed on a page of the payment service. For top-ups by another card, buy once and save it." }
                button.tight type="submit" { "Manage payments" }
            }
        }
    };
    card("Buy credits", body)
}

/// What a package is, in words.
fn what(package: &Package) -> String {
    let credits = format!("{}: {} credits", package.title, format::credits(package.credits));
    match (package.every, package.expires) {
        (Some(every), expires) => {
            let left = if expires.is_some() { "" } else { ", what is left stays" };
            format!("{credits} each {} for {}{left}", every.name(), package.price)
        }
        (None, Some(expires)) => {
            let days = format::counted((expires.as_secs() / 86_400).max(1), "day", "days");
            format!("{credits} for {}, good for {days}", package.price)
        }
        (None, None) => format!("{credits} for {}", package.price),
    }
}

/// When credits are bought automatically.
fn top_up(
    of: &InAccount,
    packages: &[Package],
    payer: &Payer,
    typed: Option<&Fields>,
    error: Option<&OperationError>,
) -> Markup {
    let shown = |name: &str, known: String| typed.map_or(known, |typed| typed.get(name).to_owned());
    let known = payer.top_up.as_ref();
    let price = |minor: u64| money(packages, minor).map(|money| money.to_string()).unwrap_or_default();
    let number = |minor: u64| price(minor).split(' ').next().unwrap_or_default().to_owned();
    let below = shown("below", known.map(|it| it.below.to_string()).unwrap_or_default());
    let most = shown("most", known.map(|it| number(it.most)).unwrap_or_default());
    let package = shown("top_up", known.map(|it| it.package.clone()).unwrap_or_default());
    let once: Vec<(String, String)> = packages
        .iter()
        .filter(|package| package.every.is_none())
        .map(|package| (package.name.clone(), what(package)))
        .collect();
    let options: Vec<(&str, &str)> = once.iter().map(|(name, what)| (name.as_str(), what.as_str())).collect();
    let below = Field {
        name: "below",
        label: "When the balance falls below",
        hint: "Left empty: never.",
        value: &below,
        ..Field::default()
    };
    let most =
        Field { name: "most", label: "At most this much money in a month", value: &most, ..Field::default() };
    card(
        "Automatic top-up",
        html! {
            @if let Some(problem) = &payer.problem { div.banner.warn role="status" { span { "No top-up: " (problem) } } }
            @if payer.begun.is_some() { p { "A top-up is under way." } }
            @if payer.card.is_none() {
                p.quiet { "Buy credits once and save the card: then they can be bought automatically when they run low." }
            } @else if of.may(Permission::Alerts) {
                form.stack method="post" action=(of.at("credits/top-up")) {
                    (trouble(error, &FIELDS))
                    (below.render(error))
                    (select("top_up", "Buy", &options, &package))
                    (most.render(error))
                    @if known.is_some() { p.quiet.small { (price(payer.sum.paid)) " by top-ups in the last month that had some." } }
                    div { button type="submit" { "Save" } }
                }
            } @else { p.quiet { "Owners and billing can change this." } }
        },
    )
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

/// Leads to a page of the payment service. A redirect would be refused by browsers, since forms are only sent to this site
/// (CSP).
fn leave(site: &Site, of: &InAccount, url: &str) -> Response {
    let frame =
        of.frame(site, "credits", "To the payment service", "The rest is on a page of our payment service.");
    let content = html! {
        meta http-equiv="refresh" content={ "0; url=" (url) };
        (card("Payment service", html! {
            p { "Its page opens. If it does not, follow this link." }
            p { a.button.primary href=(url) rel="noreferrer" { "Go there" } }
        }))
    };
    frame.page(content)
}

/// Opens a page on which the customer pays.
pub(in crate::control::dashboard) async fn buy(
    State(site): State<Site>,
    of: InAccount,
    fields: Fields,
) -> Result<Response, Failure> {
    of.caller.may_in(Permission::Alerts, &of.account)?;
    let email = of.visitor.user().map(|user| user.email.clone());
    let wanted = (fields.get("package"), fields.is_checked("save"));
    let url = site.control.buy(&of.caller, of.account.clone(), wanted, email.as_deref()).await?;
    Ok(leave(&site, &of, &url))
}

/// Opens a page on which the customer manages cards and subscriptions.
pub(in crate::control::dashboard) async fn manage_payments(
    State(site): State<Site>,
    of: InAccount,
) -> Result<Response, Failure> {
    let url = site.control.manage_payments(&of.caller, of.account.clone()).await?;
    Ok(leave(&site, &of, &url))
}

async fn set_top_up(site: &Site, of: &InAccount, fields: &Fields) -> Result<()> {
    let wrong = || OperationError::Invalid {
        field: "most",
        message: "an amount of money looks like 100 or 99.50".to_owned(),
    };
    let top_up = match amount(fields, "below")? {
        None => None,
        Some(below) => {
            let packages = site.control.packages();
            let currency = packages.first().map(|package| package.price.currency);
            let most = fields.get("most").trim();
            let most = currency.and_then(|currency| Money::parse(most, currency)).ok_or_else(wrong)?;
            let (package, currency) = (fields.get("top_up").to_owned(), most.currency.code().to_owned());
            Some(AutoTopUp { below, package, most: most.minor, currency })
        }
    };
    site.control.set_top_up(&of.caller, of.account.clone(), top_up).await
}

/// Saves when credits are bought automatically.
pub(in crate::control::dashboard) async fn save_top_up(
    State(site): State<Site>,
    of: InAccount,
    fields: Fields,
) -> Result<Response, Failure> {
    of.caller.may_in(Permission::Alerts, &of.account)?;
    match set_top_up(&site, &of, &fields).await {
        Ok(()) => Ok(See(of.at("credits?done=top-up-saved")).into_response()),
        Err(error @ OperationError::Invalid { .. }) => {
            let content = cards(&site, &of, Some(&fields), Some(&error)).await?;
            let frame = of.frame(&site, "credits", "Credits", "What was granted and what was charged.");
            Ok(Failure::told(frame.page(content), Some(&error)))
        }
        Err(error) => Err(error.into()),
    }
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
