//! Operators and users.

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use maud::{Markup, html};

use crate::control::dashboard::account::invite_form;
use crate::control::dashboard::html::format;
use crate::control::dashboard::html::parts::{
    Question, badge, button, card, copyable, empty, next, table_card,
};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{AsOperator, Failure, Fields, Notice, See};
use crate::control::operations::{
    InvitationInput, LinkView, OperationError, Permission, Result, ShownKey, UserPatch, UserView,
};
use crate::ledger::store::Role;
use crate::types::WallTime;

/// Users on one page.
const PAGE: usize = 50;
const ROLES: [(&str, &str); 4] = [
    ("customer", "Customer: opens an account of their own"),
    ("support", "Operator, support: reads"),
    ("billing", "Operator, billing: accounts and credits"),
    ("owner", "Operator, owner: everything"),
];

fn table(of: &AsOperator, users: &[UserView], now: WallTime) -> Markup {
    let may = of.may(Permission::Manage);
    html! {
        table {
            thead { tr { th { "Person" } th { "Operator" } th { "State" } th { "Last signed in" } th { span.sr { "Actions" } } } }
            tbody {
                @for user in users {
                    @let page = format!("/operator/team/{}", user.id);
                    tr {
                        td { (user.name) div.quiet { (user.email) } }
                        td { @match user.operator { Some(role) => (badge(role.name())), None => span.quiet { "no" } } }
                        td { (badge(if user.disabled { "disabled" } else { "active" })) @if user.one_time_codes { div.quiet { "one-time codes" } } }
                        td { @match user.last_sign_in { Some(at) => (format::ago(at.0, now)), None => span.quiet { "never" } } }
                        td.num {
                            @if may {
                                (button(&format!("{page}/link"), "Sign-in link", "tight"))
                                " "
                                @if user.disabled { (button(&format!("{page}/enable"), "Enable", "tight")) } @else { a.button.tight href={ (page) "/disable" } data-dialog="" { "Disable" } }
                                " "
                                a.button.tight.danger href={ (page) "/delete" } data-dialog="" { "Delete" }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn waiting(of: &AsOperator, invitations: &[LinkView], now: WallTime) -> Markup {
    html! {
        @if !invitations.is_empty() {
            (table_card("Invitations that wait", None, html! {
                table {
                    thead { tr { th { "E-mail address" } th { "As" } th { "Works" } th { span.sr { "Actions" } } } }
                    tbody { @for link in invitations { tr {
                        td { (link.email) }
                        td { @match link.role { Some(role) => { "operator, " (role) }, None => "customer" } }
                        td { "until " (format::ago(link.expires.0, now)) }
                        td.num { @if of.may(Permission::Manage) { (button(&format!("/operator/team/invitations/{}/delete", link.id), "Take back", "tight")) } }
                    } } }
                }
            }))
        }
    }
}

async fn page(
    site: &Site,
    of: &AsOperator,
    query: Option<&str>,
    above: Markup,
    form: Markup,
    error: Option<&OperationError>,
) -> Result<Response, Failure> {
    let fields = Fields::of(query);
    let after = fields.some("after").map(str::to_owned);
    let page = site.control.users(&of.caller, fields.is_checked("operators"), after, PAGE).await?;
    let invitations = site.control.invitations(&of.caller, None).await?;
    let more = page.next_cursor.as_ref().map(|cursor| {
        format!(
            "?{}after={}",
            if fields.is_checked("operators") { "operators=1&" } else { "" },
            form_urlencoded::byte_serialize(cursor.as_bytes()).collect::<String>()
        )
    });
    let now = site.now();
    let only = html! { @if fields.is_checked("operators") { a href="/operator/team" { "All users" } } @else { a href="/operator/team?operators=1" { "Only operators" } } };
    let mut frame = of.frame(site, "team", "Users", "Everybody who may sign in, customers and operators.");
    frame.notice = Notice::of(query);
    let response = frame.page(html! {
        (above)
        (table_card("Users", Some(only), html! {
            @if page.data.is_empty() { (empty("Nobody signs in yet.", None)) } @else { (table(of, &page.data, now)) }
            (next(page.data.len(), more))
        }))
        (waiting(of, &invitations, now))
        @if of.may(Permission::Manage) { (form) }
    });
    Ok(Failure::told(response, error))
}

/// Lists users.
pub(in crate::control::dashboard) async fn team(
    State(site): State<Site>,
    of: AsOperator,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let form = invite_form("/operator/team", &ROLES, None, None, None);
    page(&site, &of, query.as_deref(), html! {}, form, None).await
}

fn invitation(fields: &Fields) -> Result<InvitationInput> {
    let invalid = |message: &str| OperationError::Invalid { field: "email", message: message.to_owned() };
    let email = fields.get("email").parse().map_err(invalid)?;
    Ok(InvitationInput { email, account: None, role: None, operator: Role::named(fields.get("role")) })
}

/// Invites an operator, or a customer who opens an account.
pub(in crate::control::dashboard) async fn invite(
    State(site): State<Site>,
    of: AsOperator,
    fields: Fields,
) -> Result<Response, Failure> {
    of.caller.may(Permission::Manage)?;
    let made = match invitation(&fields) {
        Ok(input) => site.control.invite(&of.caller, input).await,
        Err(error) => Err(error),
    };
    match made {
        Ok(made) => {
            page(
                &site,
                &of,
                None,
                html! {},
                invite_form("/operator/team", &ROLES, None, Some(&made), None),
                None,
            )
            .await
        }
        Err(error @ (OperationError::Invalid { .. } | OperationError::Conflict(_))) => {
            let form = invite_form("/operator/team", &ROLES, Some(&fields), None, Some(&error));
            page(&site, &of, None, html! {}, form, Some(&error)).await
        }
        Err(error) => Err(error.into()),
    }
}

/// Takes an invitation back.
pub(in crate::control::dashboard) async fn uninvite(
    State(site): State<Site>,
    of: AsOperator,
    Path(id): Path<String>,
) -> Result<See, Failure> {
    site.control.take_back_invitation(&of.caller, None, &id).await?;
    Ok(See("/operator/team?done=uninvited".to_owned()))
}

/// Makes a sign-in link of a user, and shows it.
pub(in crate::control::dashboard) async fn sign_in_link(
    State(site): State<Site>,
    of: AsOperator,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let made = site.control.sign_in_link(&of.caller, &id).await?;
    let above = html! {
        @if let Some(ShownKey::Whole(link)) = &made.link {
            (card("Sign-in link", html! { p { "Pass it on to " (made.email) ". It works once, for a day." } (copyable("sign-in-link", link.reveal())) }))
        }
    };
    page(&site, &of, None, above, invite_form("/operator/team", &ROLES, None, None, None), None).await
}

/// Asks whether to disable or delete a user.
pub(in crate::control::dashboard) async fn user_question(
    State(site): State<Site>,
    of: AsOperator,
    Path((id, what)): Path<(String, String)>,
) -> Result<Response, Failure> {
    of.caller.may(Permission::Manage)?;
    let (verb, effect) = match what.as_str() {
        "disable" => ("Disable", "They are signed out everywhere and cannot sign in until you enable them."),
        "delete" => (
            "Delete",
            "They are signed out everywhere and lose their access for good. Accounts and keys stay.",
        ),
        _ => return Err(OperationError::Missing("there is nothing here".to_owned()).into()),
    };
    let user = site.control.user(&of.caller, &id).await?;
    let question = Question {
        title: &format!("{verb} {}", user.email),
        effect,
        action: &format!("/operator/team/{id}/{what}"),
        verb,
        back: "/operator/team",
        fields: html! {},
    };
    Ok(of.frame(&site, "team", "Users", "").page(question.render(None)))
}

/// Disables, enables or deletes a user.
pub(in crate::control::dashboard) async fn change_user(
    State(site): State<Site>,
    of: AsOperator,
    Path((id, what)): Path<(String, String)>,
) -> Result<See, Failure> {
    let disabled = match what.as_str() {
        "delete" => {
            site.control.delete_user(&of.caller, &id).await?;
            return Ok(See("/operator/team?done=user-deleted".to_owned()));
        }
        "disable" => true,
        "enable" => false,
        _ => return Err(OperationError::Missing("there is nothing here".to_owned()).into()),
    };
    let patch = UserPatch { disabled: Some(disabled), ..UserPatch::default() };
    site.control.change_user(&of.caller, &id, patch).await?;
    Ok(See("/operator/team?done=user-changed".to_owned()))
}
