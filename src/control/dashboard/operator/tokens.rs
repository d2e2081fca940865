//! Tokens of the admin API.

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use crate::control::dashboard::html::format;
use crate::control::dashboard::html::parts::{Field, Question, badge, card, select, table_card, trouble};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{AsOperator, Failure, Fields, Notice, See};
use crate::control::operations::{OperationError, Permission, Result, ShownKey, TokenInput, TokenView};
use crate::ledger::store::Role;
use crate::types::WallTime;

const ROLES: [(&str, &str); 3] = [
    ("support", "Support: reads"),
    ("billing", "Billing: accounts and credits"),
    ("owner", "Owner: everything"),
];
/// What a new token is kept under until it is shown.
const NEW: &str = "token";

fn table(of: &AsOperator, tokens: &[TokenView], now: WallTime) -> Markup {
    html! {
        table {
            thead { tr { th { "Name" } th { "Role" } th { "State" } th { "Expires" } th { "Last used" } th { span.sr { "Actions" } } } }
            tbody {
                @for token in tokens {
                    tr {
                        td { (token.name) }
                        td { (token.role.name()) }
                        td { (badge(token.state)) }
                        td { @match token.expires { Some(at) => (format::ago(at.0, now)), None => span.quiet { "never" } } }
                        td { @match token.last_used { Some(at) => (format::ago(at.0, now)), None => span.quiet { "never" } } }
                        td.num { @if of.may(Permission::Manage) && token.state != "revoked" && token.created.is_some() { a.button.tight.danger href={ "/operator/tokens/" (token.name) "/revoke" } data-dialog="" { "Revoke" } } }
                    }
                }
            }
        }
    }
}

fn form(fields: Option<&Fields>, error: Option<&OperationError>) -> Markup {
    let typed = fields.map(|fields| fields.get("name")).unwrap_or_default();
    let role = fields.map(|fields| fields.get("role")).unwrap_or_default();
    let name = Field {
        name: "name",
        label: "Name",
        hint: "Which program uses it.",
        value: typed,
        is_needed: true,
        ..Field::default()
    };
    let expires = Field {
        name: "expires",
        label: "Expires after",
        hint: "Such as 90d. Left empty: never.",
        value: fields.map(|fields| fields.get("expires")).unwrap_or_default(),
        ..Field::default()
    };
    card(
        "New token",
        html! {
            form.stack method="post" action="/operator/tokens" {
                (trouble(error, &["name", "expires"]))
                div.row { (name.render(error)) (select("role", "Role", &ROLES, role)) }
                (expires.render(error))
                div { button.primary type="submit" { "Create token" } }
            }
        },
    )
}

async fn page(
    site: &Site,
    of: &AsOperator,
    query: Option<&str>,
    form: Markup,
    error: Option<&OperationError>,
) -> Result<Response, Failure> {
    let tokens = site.control.tokens(&of.caller).await?;
    let new = site.reveals.take(of.visitor.session, NEW, site.control.now());
    let new = new.as_ref().and_then(|secrets| secrets.first());
    let mut frame = of.frame(site, "tokens", "Tokens", "Your own programs use the admin API with a token.");
    frame.notice = Notice::of(query);
    let response = frame.page(html! {
        @if let Some(token) = new {
            section.card data-unsaved="" { div.body {
                div.banner.warn { span { "This token is shown only now." } }
                p {}
                div.secret {
                    code #secret data-secret="" { (token.reveal()) }
                    button.hidden type="button" data-js="" data-reveal="secret" { "Reveal" }
                    button.primary.hidden type="button" data-js="" data-copy="secret" { "Copy" }
                    a.button href="/operator/tokens" data-saved="" { "I have saved it" }
                }
            } }
        }
        (table_card("Tokens", None, table(of, &tokens, site.now())))
        @if of.may(Permission::Manage) { (form) }
    });
    Ok(Failure::told(response, error))
}

/// Lists tokens.
pub(in crate::control::dashboard) async fn tokens(
    State(site): State<Site>,
    of: AsOperator,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    page(&site, &of, query.as_deref(), form(None, None), None).await
}

async fn made(site: &Site, of: &AsOperator, fields: &Fields) -> Result<TokenView> {
    let unknown = || OperationError::Invalid { field: "role", message: "there is no such role".to_owned() };
    let role = Role::named(fields.get("role")).ok_or_else(unknown)?;
    let input = TokenInput {
        name: fields.get("name").to_owned(),
        role,
        expires: fields.some("expires").map(str::to_owned),
    };
    site.control.create_token(&of.caller, input).await
}

/// Creates a token, which the next page shows once.
pub(in crate::control::dashboard) async fn create_token(
    State(site): State<Site>,
    of: AsOperator,
    fields: Fields,
) -> Result<Response, Failure> {
    of.caller.may(Permission::Manage)?;
    match made(&site, &of, &fields).await {
        Ok(view) => {
            if let Some(ShownKey::Whole(token)) = view.token {
                site.reveals.put(of.visitor.session, NEW, vec![token], site.control.now());
            }
            Ok(See("/operator/tokens".to_owned()).into_response())
        }
        Err(error @ (OperationError::Invalid { .. } | OperationError::Conflict(_))) => {
            page(&site, &of, None, form(Some(&fields), Some(&error)), Some(&error)).await
        }
        Err(error) => Err(error.into()),
    }
}

/// Asks whether to revoke a token.
pub(in crate::control::dashboard) async fn revoke_token_page(
    State(site): State<Site>,
    of: AsOperator,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    of.caller.may(Permission::Manage)?;
    let known = site.control.tokens(&of.caller).await?.into_iter().any(|token| token.name == name);
    if !known {
        return Err(OperationError::Missing("there is no such token".to_owned()).into());
    }
    let question = Question {
        title: &format!("Revoke {name}"),
        effect: "Requests to the admin API with this token are refused from now on, for good.",
        action: &format!("/operator/tokens/{name}/revoke"),
        verb: "Revoke",
        back: "/operator/tokens",
        fields: html! {},
    };
    Ok(of.frame(&site, "tokens", "Revoke token", "").page(question.render(None)))
}

/// Revokes a token.
pub(in crate::control::dashboard) async fn revoke_token(
    State(site): State<Site>,
    of: AsOperator,
    Path(name): Path<String>,
) -> Result<See, Failure> {
    site.control.revoke_token(&of.caller, &name).await?;
    Ok(See("/operator/tokens?done=token-revoked".to_owned()))
}
