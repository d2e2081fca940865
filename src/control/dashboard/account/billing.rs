//! When an account is told about its balance, and how it is renewed.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::keys::amount;
use crate::control::dashboard::html::format;
use crate::control::dashboard::html::parts::{Field, card, select, trouble};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{Failure, Fields, InAccount, See};
use crate::control::operations::{Alerts, AutoRenew, OperationError, Permission, Renewal, Result, TopUp};

/// How often credits are renewed, as one chooses it.
const PERIODS: [(&str, &str); 4] =
    [("", "Never"), ("7d", "Every week"), ("30d", "Every 30 days"), ("365d", "Every year")];
const FIELDS: [&str; 4] = ["credits_low", "below", "top_up", "renew"];

/// Whether the reader is told by e-mail; nothing if they cannot be.
fn by_email(of: &InAccount, mails: Option<bool>) -> Markup {
    html! {
        @if let Some(on) = mails {
            h3 { "By e-mail" }
            form.stack method="post" action=(of.at("credits/mail")) {
                @if on {
                    p { "You get an e-mail when credits run low or are used up." }
                    div { button type="submit" { "Stop e-mails to me" } }
                } @else {
                    input type="hidden" name="on" value="1";
                    p.quiet { "Get an e-mail when credits run low or are used up." }
                    div { button type="submit" { "E-mail me" } }
                }
            }
        }
    }
}

/// The cards of both settings.
pub(super) async fn cards(
    site: &Site,
    of: &InAccount,
    typed: Option<&Fields>,
    error: Option<&OperationError>,
) -> Result<Markup> {
    let shown = |name: &str, known: String| match typed {
        Some(typed) if typed.is_checked(name) => typed.get(name).to_owned(),
        _ => known,
    };
    let alerts = site.control.alerts(&of.caller, of.account.clone()).await?;
    let renewal = site.control.renewal(&of.caller, of.account.clone()).await?;
    let may = of.may(Permission::Alerts);
    let mails = match of.visitor.user() {
        Some(user) => site.control.mails_alerts(&of.caller, &of.account, &user.email).await?,
        None => None,
    };
    let thresholds: Vec<String> = alerts.credits_low.iter().map(ToString::to_string).collect();
    let thresholds = shown("credits_low", thresholds.join(", "));
    let below = shown("below", renewal.top_up.as_ref().map(|it| it.below.to_string()).unwrap_or_default());
    let top_up =
        shown("top_up", renewal.top_up.as_ref().map(|it| it.credits.to_string()).unwrap_or_default());
    let renew =
        shown("renew", renewal.auto_renew.as_ref().map(|it| it.credits.to_string()).unwrap_or_default());
    let every = shown("every", renewal.auto_renew.as_ref().map_or_else(String::new, |it| it.every.clone()));
    let every = every.as_str();
    let mut periods = PERIODS.to_vec();
    if !every.is_empty() && periods.iter().all(|(value, _)| *value != every) {
        periods.push((every, every)); // set by the API
    }
    let low = Field {
        name: "credits_low",
        label: "Tell us below",
        hint: "Balances separated by commas. Your webhooks get credits.low when the balance falls below one.",
        value: &thresholds,
        ..Field::default()
    };
    let below = Field {
        name: "below",
        label: "Top up when the balance falls below",
        value: &below,
        ..Field::default()
    };
    let top_up = Field { name: "top_up", label: "Credits of a top-up", value: &top_up, ..Field::default() };
    let renew = Field { name: "renew", label: "Credits of a renewal", value: &renew, ..Field::default() };
    Ok(html! {
        div.columns {
            (card("Low balance", html! {
                form.stack method="post" action=(of.at("credits/alerts")) {
                    (trouble(error, &FIELDS))
                    (low.render(error))
                    @if may { div { button type="submit" { "Save" } } } @else { p.quiet { "Owners and billing can change this." } }
                }
                (by_email(of, mails))
            }))
            (card("Renewal", html! {
                p.quiet { "Asks the operator's billing for credits. They arrive once it has booked them." }
                form.stack method="post" action=(of.at("credits/renewal")) {
                    (below.render(error))
                    (top_up.render(error))
                    div.row { (select("every", "Renew", &periods, every)) (renew.render(error)) }
                    @if let Some(next) = renewal.auto_renew.as_ref().and_then(|it| it.next) { p.small { "Next renewal: " (format::at(next.0)) } }
                    @if may { div { button type="submit" { "Save" } } } @else { p.quiet { "Owners and billing can change this." } }
                }
            }))
        }
    })
}

async fn failed(
    site: &Site,
    of: &InAccount,
    typed: &Fields,
    error: &OperationError,
) -> Result<Response, Failure> {
    let content = cards(site, of, Some(typed), Some(error)).await?;
    let frame = of.frame(site, "credits", "Credits", "What was granted and what was charged.");
    let mut response = frame.page(content);
    *response.status_mut() = Failure::status(error);
    Ok(response)
}

async fn set_alerts(site: &Site, of: &InAccount, fields: &Fields) -> Result<()> {
    let parts = fields.get("credits_low").split(',').map(str::trim).filter(|part| !part.is_empty());
    let invalid = |part: &str| OperationError::Invalid {
        field: "credits_low",
        message: format!("{part} is no amount of credits"),
    };
    let credits_low = parts.map(|part| part.parse().map_err(|_| invalid(part))).collect::<Result<_>>()?;
    site.control.set_alerts(&of.caller, of.account.clone(), Alerts { credits_low }).await.map(drop)
}

/// Saves when the account is told.
pub(in crate::control::dashboard) async fn save_alerts(
    State(site): State<Site>,
    of: InAccount,
    fields: Fields,
) -> Result<Response, Failure> {
    of.caller.may_in(Permission::Alerts, &of.account)?;
    match set_alerts(&site, &of, &fields).await {
        Ok(()) => Ok(See(of.at("credits?done=alerts-saved")).into_response()),
        Err(error @ OperationError::Invalid { .. }) => failed(&site, &of, &fields, &error).await,
        Err(error) => Err(error.into()),
    }
}

async fn set_renewal(site: &Site, of: &InAccount, fields: &Fields) -> Result<()> {
    let needed = |field, message: &str| OperationError::Invalid { field, message: message.to_owned() };
    let top_up = match (amount(fields, "below")?, amount(fields, "top_up")?) {
        (None, None) => None,
        (Some(below), Some(credits)) => Some(TopUp { below, credits }),
        (None, Some(_)) => return Err(needed("below", "say below which balance")),
        (Some(_), None) => return Err(needed("top_up", "say how many credits")),
    };
    let auto_renew = match (fields.some("every"), amount(fields, "renew")?) {
        (None, _) => None,
        (Some(every), Some(credits)) => Some(AutoRenew { every: every.to_owned(), credits, next: None }),
        (Some(_), None) => return Err(needed("renew", "say how many credits")),
    };
    site.control.set_renewal(&of.caller, of.account.clone(), Renewal { top_up, auto_renew }).await.map(drop)
}

/// Saves how the account is renewed.
pub(in crate::control::dashboard) async fn save_renewal(
    State(site): State<Site>,
    of: InAccount,
    fields: Fields,
) -> Result<Response, Failure> {
    of.caller.may_in(Permission::Alerts, &of.account)?;
    match set_renewal(&site, &of, &fields).await {
        Ok(()) => Ok(See(of.at("credits?done=renewal-saved")).into_response()),
        Err(error @ OperationError::Invalid { .. }) => failed(&site, &of, &fields, &error).await,
        Err(error) => Err(error.into()),
    }
}

/// Begins or stops to tell the reader by e-mail.
pub(in crate::control::dashboard) async fn mail_me(
    State(site): State<Site>,
    of: InAccount,
    fields: Fields,
) -> Result<See, Failure> {
    let nobody = || OperationError::Forbidden("only people who sign in get e-mail".to_owned());
    let email = of.visitor.user().map(|user| user.email.clone()).ok_or_else(nobody)?;
    let on = fields.is_checked("on");
    site.control.mail_alerts(&of.caller, of.account.clone(), &email, on).await?;
    Ok(See(of.at(if on { "credits?done=mail-on" } else { "credits?done=mail-off" })))
}
