//! Who has access to an account.

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use crate::control::dashboard::html::format;
use crate::control::dashboard::html::parts::{
    Field, Question, badge, button, card, copyable, empty, select, table_card, trouble,
};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{Failure, Fields, InAccount, See};
use crate::control::operations::{
    InvitationInput, LinkView, MemberView, OperationError, Permission, Result, ShownKey,
};
use crate::ledger::store::MemberRole;
use crate::types::WallTime;

const ROLES: [(&str, &str); 4] = [
    ("viewer", "Viewer: reads"),
    ("developer", "Developer: keys and webhooks"),
    ("billing", "Billing: alerts and renewal"),
    ("owner", "Owner: everything"),
];

fn members(of: &InAccount, members: &[MemberView], now: WallTime) -> Markup {
    let may = of.may(Permission::Team);
    html! {
        table {
            thead { tr { th { "Person" } th { "Role" } th { "Last signed in" } th { span.sr { "Actions" } } } }
            tbody {
                @for member in members {
                    @let page = of.at(&format!("team/{}", member.user.id));
                    tr {
                        td { (member.user.name) div.quiet { (member.user.email) } }
                        td {
                            @if may {
                                form.actions method="post" action={ (page) "/role" } {
                                    select.tight name="role" aria-label={ "Role of " (member.user.email) } {
                                        @for (role, text) in ROLES { option value=(role) selected[role == member.role.name()] { (text) } }
                                    }
                                    button.tight type="submit" { "Save" }
                                }
                            } @else { (badge(member.role.name())) }
                        }
                        td { @match member.user.last_sign_in { Some(at) => (format::ago(at.0, now)), None => span.quiet { "never" } } }
                        td.num { @if may { a href={ (page) "/remove" } data-dialog="" { "Remove" } } }
                    }
                }
            }
        }
    }
}

fn waiting(of: &InAccount, invitations: &[LinkView], now: WallTime) -> Markup {
    let may = of.may(Permission::Team);
    html! {
        @if !invitations.is_empty() {
            (table_card("Invitations that wait", None, html! {
                table {
                    thead { tr { th { "E-mail address" } th { "Role" } th { "Works" } th { span.sr { "Actions" } } } }
                    tbody {
                        @for link in invitations {
                            tr {
                                td { (link.email) }
                                td { (link.role.unwrap_or("account of their own")) }
                                td { "until " (format::ago(link.expires.0, now)) }
                                td.num { @if may { (button(&of.at(&format!("team/invitations/{}/delete", link.id)), "Take back", "tight")) } }
                            }
                        }
                    }
                }
            }))
        }
    }
}

/// The form to invite, and the link if it is not sent by e-mail.
pub(in crate::control::dashboard) fn invite_form(
    action: &str,
    roles: &[(&str, &str)],
    fields: Option<&Fields>,
    made: Option<&LinkView>,
    error: Option<&OperationError>,
) -> Markup {
    let typed = fields.map(|fields| fields.get("email")).unwrap_or_default();
    let email = Field {
        name: "email",
        label: "E-mail address",
        kind: "email",
        value: typed,
        is_needed: true,
        ..Field::default()
    };
    let link = made.and_then(|made| match &made.link {
        Some(ShownKey::Whole(link)) => Some((made, link)),
        _ => None,
    });
    card(
        "Invite somebody",
        html! {
            @if let Some((made, link)) = link {
                div.banner.ok role="status" { span { "Pass this link on to " (made.email) ". It works once, for a week." } }
                p {}
                (copyable("invitation", link.reveal()))
                p {}
            }
            form.stack method="post" action=(action) {
                (trouble(error, &["email"]))
                div.row { (email.render(error)) (select("role", "Role", roles, fields.map(|fields| fields.get("role")).unwrap_or_default())) }
                div { button.primary type="submit" { "Invite" } }
            }
        },
    )
}

async fn page(
    site: &Site,
    of: &InAccount,
    form: Markup,
    query: Option<&str>,
    error: Option<&OperationError>,
) -> Result<Response, Failure> {
    let people = site.control.members(&of.caller, of.account.clone()).await?;
    let invitations = site.control.invitations(&of.caller, Some(of.account.clone())).await?;
    let now = site.now();
    let frame = of
        .frame(site, "team", "Team", "Who has access to this account, and what they may do.")
        .with_notice(query);
    let response = frame.page(html! {
        (table_card("People", None, html! {
            @if people.is_empty() { (empty("Nobody signs in to this account yet.", None)) } @else { (members(of, &people, now)) }
        }))
        (waiting(of, &invitations, now))
        @if of.may(Permission::Team) { (form) }
    });
    Ok(Failure::told(response, error))
}

/// Who has access to an account.
pub(in crate::control::dashboard) async fn team(
    State(site): State<Site>,
    of: InAccount,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let form = invite_form(&of.at("team"), &ROLES, None, None, None);
    page(&site, &of, form, query.as_deref(), None).await
}

fn invitation(of: &InAccount, fields: &Fields) -> Result<InvitationInput> {
    let invalid = |message: &str| OperationError::Invalid { field: "email", message: message.to_owned() };
    let email = fields.get("email").parse().map_err(invalid)?;
    let role = MemberRole::named(fields.get("role"));
    Ok(InvitationInput { email, account: Some(of.account.clone()), role, operator: None })
}

/// Invites somebody.
pub(in crate::control::dashboard) async fn invite(
    State(site): State<Site>,
    of: InAccount,
    fields: Fields,
) -> Result<Response, Failure> {
    of.caller.may_in(Permission::Team, &of.account)?;
    let made = match invitation(&of, &fields) {
        Ok(input) => site.control.invite(&of.caller, input).await,
        Err(error) => Err(error),
    };
    match made {
        Ok(made) if made.link.is_none() => Ok(See(of.at("team?done=invited")).into_response()),
        Ok(made) => {
            let form = invite_form(&of.at("team"), &ROLES, None, Some(&made), None);
            page(&site, &of, form, None, None).await
        }
        Err(error @ (OperationError::Invalid { .. } | OperationError::Conflict(_))) => {
            let form = invite_form(&of.at("team"), &ROLES, Some(&fields), None, Some(&error));
            page(&site, &of, form, None, Some(&error)).await
        }
        Err(error) => Err(error.into()),
    }
}

/// Takes an invitation back.
pub(in crate::control::dashboard) async fn uninvite(
    State(site): State<Site>,
    of: InAccount,
    Path((_, id)): Path<(String, String)>,
) -> Result<See, Failure> {
    site.control.take_back_invitation(&of.caller, Some(of.account.clone()), &id).await?;
    Ok(See(of.at("team?done=uninvited")))
}

/// Changes a member's role.
pub(in crate::control::dashboard) async fn change_member(
    State(site): State<Site>,
    of: InAccount,
    Path((_, user)): Path<(String, String)>,
    fields: Fields,
) -> Result<See, Failure> {
    let unknown = || OperationError::Invalid { field: "role", message: "there is no such role".to_owned() };
    let role = MemberRole::named(fields.get("role")).ok_or_else(unknown)?;
    site.control.set_member(&of.caller, of.account.clone(), &user, Some(role)).await?;
    Ok(See(of.at("team?done=member-changed")))
}

/// Asks whether to take a member's access.
pub(in crate::control::dashboard) async fn remove_member_page(
    State(site): State<Site>,
    of: InAccount,
    Path((_, user)): Path<(String, String)>,
) -> Result<Response, Failure> {
    of.caller.may_in(Permission::Team, &of.account)?;
    let people = site.control.members(&of.caller, of.account.clone()).await?;
    let missing = || OperationError::Missing("there is no such member".to_owned());
    let member = people.into_iter().find(|member| member.user.id == user).ok_or_else(missing)?;
    let (title, back) = (format!("Remove {}", member.user.email), of.at("team"));
    let question = Question {
        title: &title,
        effect: "They lose access to this account at once. The keys they made go on working.",
        action: &of.at(&format!("team/{user}/remove")),
        verb: "Remove",
        back: &back,
        fields: html! {},
    };
    Ok(of.frame(&site, "team", &title, "").page(question.render(None)))
}

/// Takes a member's access.
pub(in crate::control::dashboard) async fn remove_member(
    State(site): State<Site>,
    of: InAccount,
    Path((_, user)): Path<(String, String)>,
) -> Result<See, Failure> {
    site.control.set_member(&of.caller, of.account.clone(), &user, None).await?;
    Ok(See(of.at("team?done=member-removed")))
}
