//! `/v1/users`, `/v1/invitations`, `/v1/accounts/{account}/members`, `/v1/portal/sessions`: who uses the dashboard.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Body, By, Id, Ids, Params};
use super::paging::Repeatable;
use super::problem::{ChangeFailures, Failures, ListFailures, ObjectFailures, Problem};
use super::state::{ApiState, created};
use crate::control::operations::{
    AccountView, InvitationInput, LinkView, MemberChange, MemberRoleName, MemberView, Page, PortalInput,
    UserInput, UserPatch, UserView,
};
use crate::ledger::store::MemberRole;
use crate::types::AccountId;

type Answer<T> = Result<Json<T>, Problem>;
type Created<T> = Result<(StatusCode, Json<T>), Problem>;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(show, change, delete))
        .routes(routes!(sign_in_link))
        .routes(routes!(invite, invitations))
        .routes(routes!(take_back))
        .routes(routes!(members))
        .routes(routes!(set_member, remove_member))
        .routes(routes!(approve))
        .routes(routes!(portal_session))
}

/// Which users.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UsersQuery {
    /// Only operators.
    #[serde(default)]
    #[param(value_type = bool, required = false)]
    operators: bool,
    /// `next_cursor` of the page before; the first page if it is left out.
    #[serde(default)]
    #[param(value_type = String, required = false)]
    cursor: Option<String>,
    /// Rows of the page.
    #[serde(default)]
    #[param(value_type = usize, required = false, minimum = 1, maximum = 1000, default = 50)]
    limit: Option<usize>,
}

/// The role of a member.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MemberPatch {
    /// What the member may do in the account.
    #[schema(value_type = MemberRoleName)]
    role: MemberRole,
}

/// Create a user who signs in by links.
#[utoipa::path(
    post, path = "/v1/users", tag = "people", request_body = UserInput, params(Repeatable),
    responses((status = 201, body = UserView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn create(
    State(api): State<ApiState>,
    By(caller): By,
    Body(input): Body<UserInput>,
) -> Created<UserView> {
    created(&caller);
    Ok((StatusCode::CREATED, Json(api.control.create_user(&caller, input).await?)))
}

/// List users, in the order of their e-mail addresses.
#[utoipa::path(
    get, path = "/v1/users", tag = "people", params(UsersQuery),
    responses((status = 200, body = Page<UserView>), Failures, ListFailures),
    extensions(("x-permission" = json!("read_all")))
)]
async fn list(
    State(api): State<ApiState>,
    By(caller): By,
    Params(query): Params<UsersQuery>,
) -> Answer<Page<UserView>> {
    let most = super::paging::most(query.limit)?;
    Ok(Json(api.control.users(&caller, query.operators, query.cursor, most).await?))
}

/// Show a user.
#[utoipa::path(
    get, path = "/v1/users/{user}", tag = "people", params(("user" = String, Path)),
    responses((status = 200, body = UserView), Failures, ObjectFailures),
    extensions(("x-permission" = json!("read_all")))
)]
async fn show(State(api): State<ApiState>, By(caller): By, Id(user): Id<String>) -> Answer<UserView> {
    Ok(Json(api.control.user(&caller, &user).await?))
}

/// Change a user: their name, their role as an operator, or whether they may sign in.
#[utoipa::path(
    patch, path = "/v1/users/{user}", tag = "people", request_body = UserPatch,
    params(("user" = String, Path), Repeatable),
    responses((status = 200, body = UserView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn change(
    State(api): State<ApiState>,
    By(caller): By,
    Id(user): Id<String>,
    Body(patch): Body<UserPatch>,
) -> Answer<UserView> {
    Ok(Json(api.control.change_user(&caller, &user, patch).await?))
}

/// Delete a user, with their sessions and roles.
#[utoipa::path(
    delete, path = "/v1/users/{user}", tag = "people", params(("user" = String, Path), Repeatable),
    responses((status = 200, body = UserView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn delete(State(api): State<ApiState>, By(caller): By, Id(user): Id<String>) -> Answer<UserView> {
    Ok(Json(api.control.delete_user(&caller, &user).await?))
}

/// Make a link that signs a user in once, within a day.
#[utoipa::path(
    post, path = "/v1/users/{user}/sign-in-link", tag = "people", params(("user" = String, Path), Repeatable),
    responses((status = 201, body = LinkView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn sign_in_link(
    State(api): State<ApiState>,
    By(caller): By,
    Id(user): Id<String>,
) -> Created<LinkView> {
    created(&caller);
    Ok((StatusCode::CREATED, Json(api.control.sign_in_link(&caller, &user).await?)))
}

/// Invite somebody to an account, as an operator, or to open an account.
#[utoipa::path(
    post, path = "/v1/invitations", tag = "people", request_body = InvitationInput, params(Repeatable),
    responses((status = 201, body = LinkView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn invite(
    State(api): State<ApiState>,
    By(caller): By,
    Body(input): Body<InvitationInput>,
) -> Created<LinkView> {
    created(&caller);
    Ok((StatusCode::CREATED, Json(api.control.invite(&caller, input).await?)))
}

/// Which invitations.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct InvitationsQuery {
    /// Those to this account; those without an account if it is left out.
    #[serde(default)]
    #[param(value_type = String, required = false, pattern = "^[A-Za-z0-9._-]{1,64}$")]
    account: Option<AccountId>,
}

/// List invitations that wait.
#[utoipa::path(
    get, path = "/v1/invitations", tag = "people", params(InvitationsQuery),
    responses((status = 200, body = Vec<LinkView>), Failures, ListFailures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn invitations(
    State(api): State<ApiState>,
    By(caller): By,
    Params(query): Params<InvitationsQuery>,
) -> Answer<Vec<LinkView>> {
    Ok(Json(api.control.invitations(&caller, query.account).await?))
}

/// Take an invitation back.
#[utoipa::path(
    delete, path = "/v1/invitations/{invitation}", tag = "people",
    params(("invitation" = String, Path), InvitationsQuery, Repeatable),
    responses((status = 200, body = LinkView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn take_back(
    State(api): State<ApiState>,
    By(caller): By,
    Id(invitation): Id<String>,
    Params(query): Params<InvitationsQuery>,
) -> Answer<LinkView> {
    Ok(Json(api.control.take_back_invitation(&caller, query.account, &invitation).await?))
}

/// List who has access to an account.
#[utoipa::path(
    get, path = "/v1/accounts/{account}/members", tag = "people", params(("account" = String, Path)),
    responses((status = 200, body = Vec<MemberView>), Failures, ObjectFailures),
    extensions(("x-permission" = json!("read_accounts")))
)]
async fn members(
    State(api): State<ApiState>,
    By(caller): By,
    Id(account): Id<AccountId>,
) -> Answer<Vec<MemberView>> {
    Ok(Json(api.control.members(&caller, account).await?))
}

/// Make a user a member of an account, or change their role.
#[utoipa::path(
    patch, path = "/v1/accounts/{account}/members/{user}", tag = "people", request_body = MemberPatch,
    params(("account" = String, Path), ("user" = String, Path), Repeatable),
    responses((status = 200, body = MemberChange), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn set_member(
    State(api): State<ApiState>,
    By(caller): By,
    Ids(account, user): Ids<AccountId, String>,
    Body(patch): Body<MemberPatch>,
) -> Answer<MemberChange> {
    Ok(Json(api.control.set_member(&caller, account, &user, Some(patch.role)).await?))
}

/// Take a member's access to an account.
#[utoipa::path(
    delete, path = "/v1/accounts/{account}/members/{user}", tag = "people",
    params(("account" = String, Path), ("user" = String, Path), Repeatable),
    responses((status = 200, body = MemberChange), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn remove_member(
    State(api): State<ApiState>,
    By(caller): By,
    Ids(account, user): Ids<AccountId, String>,
) -> Answer<MemberChange> {
    Ok(Json(api.control.set_member(&caller, account, &user, None).await?))
}

/// Approve an account that signed up: it gets the plan and the opening credits of the configuration.
#[utoipa::path(
    post, path = "/v1/accounts/{account}/approve", tag = "people", params(("account" = String, Path), Repeatable),
    responses((status = 200, body = AccountView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn approve(
    State(api): State<ApiState>,
    By(caller): By,
    Id(account): Id<AccountId>,
) -> Answer<AccountView> {
    Ok(Json(api.control.approve_account(&caller, account).await?))
}

/// Make a link that signs a customer of your own site in to one account, once, within 15 minutes; for a day at most.
#[utoipa::path(
    post, path = "/v1/portal/sessions", tag = "people", request_body = PortalInput, params(Repeatable),
    responses((status = 201, body = LinkView), Failures, ChangeFailures),
    extensions(("x-permission" = json!("manage")))
)]
async fn portal_session(
    State(api): State<ApiState>,
    By(caller): By,
    Body(input): Body<PortalInput>,
) -> Created<LinkView> {
    created(&caller);
    Ok((StatusCode::CREATED, Json(api.control.portal_session(&caller, input).await?)))
}
