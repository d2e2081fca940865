//! The addresses of the dashboard's pages.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderValue, header};
use tower_http::csrf::CsrfLayer;

use super::assets::{Asset, SCRIPT, STYLE};
use super::site::Site;
use super::web::{Failure, guard};
use super::{account, brand, enter, live, operator, user};
use crate::control::Control;
use crate::control::operations::OperationError;

/// Longest message of a payment service, in bytes.
const MAX_MESSAGE: usize = 256 * 1024;

/// A file in the binary. Its name changes with its content, so browsers may keep it.
fn asset(asset: &'static Asset) -> Response {
    let mut response = asset.text.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    response
}

fn assets() -> Router<Site> {
    Router::new()
        .route(&STYLE.path, get(|| async { asset(&STYLE) }))
        .route(&SCRIPT.path, get(|| async { asset(&SCRIPT) }))
        .route("/assets/brand.css", get(brand::stylesheet))
        .route("/assets/logo", get(brand::logo))
        .route("/assets/icon.svg", get(brand::icon))
}

fn people() -> Router<Site> {
    Router::new()
        .route("/", get(enter::first_page))
        .route("/sign-in", get(enter::sign_in_page).post(enter::sign_in))
        .route("/sign-in/code", post(enter::code))
        .route("/sign-in/link", get(enter::ask_link).post(enter::send_link))
        .route("/sign-up", get(enter::sign_up_page).post(enter::sign_up))
        .route("/sign-out", post(enter::sign_out))
        .route("/link/{secret}", get(enter::open_link).post(enter::use_link))
        .route("/settings", get(user::settings))
        .route("/settings/name", post(user::rename))
        .route("/settings/password", post(user::password))
        .route("/settings/sessions/end", post(user::end_sessions))
        .route("/settings/sessions/{id}/end", post(user::end_session))
        .route("/settings/codes", get(user::codes_page).post(user::codes_on))
        .route("/settings/codes/off", post(user::codes_off))
        .route("/settings/codes/recovery", get(user::recovery))
}

fn keys() -> Router<Site> {
    Router::new()
        .route("/accounts/{account}/keys", get(account::keys).post(account::create))
        .route("/accounts/{account}/groups", get(account::groups).post(account::put_group))
        .route("/accounts/{account}/groups/delete", post(account::delete_group))
        .route("/accounts/{account}/keys/new", get(account::create_page))
        .route("/accounts/{account}/keys/{key}", get(account::key))
        .route("/accounts/{account}/keys/{key}/secret", get(account::secret))
        .route("/accounts/{account}/keys/{key}/edit", get(account::edit_page).post(account::change))
        .route("/accounts/{account}/keys/{key}/rotate", get(account::rotate_page).post(account::rotate))
        .route("/accounts/{account}/keys/{key}/end-overlap", post(account::end_overlap))
        .route("/accounts/{account}/keys/{key}/revoke", get(account::revoke_page).post(account::revoke))
        .route("/accounts/{account}/keys/{key}/disable", post(account::disable))
        .route("/accounts/{account}/keys/{key}/enable", post(account::enable))
}

fn account_pages() -> Router<Site> {
    Router::new()
        .route("/accounts/{account}", get(account::overview))
        .route("/accounts/{account}/live", get(live::live))
        .route("/accounts/{account}/usage", get(account::usage))
        .route("/accounts/{account}/usage.csv", get(account::usage_csv))
        .route("/accounts/{account}/credits", get(account::credits))
        .route("/accounts/{account}/credits.csv", get(account::credits_csv))
        .route("/accounts/{account}/credits/buy", post(account::buy))
        .route("/accounts/{account}/credits/payments", post(account::manage_payments))
        .route("/accounts/{account}/credits/top-up", post(account::save_top_up))
        .route("/payments/stripe", post(account::stripe).layer(DefaultBodyLimit::max(MAX_MESSAGE)))
        .route("/accounts/{account}/credits/alerts", post(account::save_alerts))
        .route("/accounts/{account}/credits/mail", post(account::mail_me))
        .route("/accounts/{account}/credits/renewal", post(account::save_renewal))
        .route("/accounts/{account}/logs", get(account::logs))
        .route("/accounts/{account}/docs", get(account::docs))
        .route("/accounts/{account}/docs/openapi.json", get(account::openapi))
        .route("/accounts/{account}/audit", get(account::audit))
        .route("/accounts/{account}/webhooks", get(account::webhooks).post(account::create_endpoint))
        .route("/accounts/{account}/webhooks/{id}", get(account::endpoint))
        .route("/accounts/{account}/webhooks/{id}/edit", post(account::change_endpoint))
        .route("/accounts/{account}/webhooks/{id}/rotate", post(account::rotate_endpoint))
        .route("/accounts/{account}/webhooks/{id}/test", post(account::test_endpoint))
        .route(
            "/accounts/{account}/webhooks/{id}/delete",
            get(account::delete_page).post(account::delete_endpoint),
        )
        .route("/accounts/{account}/webhooks/{id}/{number}/resend", post(account::resend))
        .route("/accounts/{account}/team", get(account::team).post(account::invite))
        .route("/accounts/{account}/team/{user}/role", post(account::change_member))
        .route(
            "/accounts/{account}/team/{user}/remove",
            get(account::remove_member_page).post(account::remove_member),
        )
        .route("/accounts/{account}/team/invitations/{id}/delete", post(account::uninvite))
}

fn operator_pages() -> Router<Site> {
    Router::new()
        .route("/operator", get(operator::overview))
        .route("/operator/live", get(live::of_all))
        .route("/operator/accounts", get(operator::accounts).post(operator::create))
        .route("/operator/accounts/new", get(operator::create_page))
        .route("/operator/accounts/{id}", get(operator::account))
        .route("/operator/accounts/{id}/book", post(operator::book))
        .route("/operator/accounts/{id}/change", post(operator::change))
        .route("/operator/accounts/{id}/suspend", get(operator::suspend_page).post(operator::suspend))
        .route("/operator/accounts/{id}/resume", post(operator::resume))
        .route("/operator/accounts/{id}/approve", post(operator::approve))
        .route("/operator/accounts/{id}/decline", get(operator::decline_page).post(operator::decline))
        .route("/operator/routes", get(operator::routes))
        .route("/operator/upstreams", get(operator::upstreams))
        .route("/operator/webhooks", get(operator::webhooks))
        .route("/operator/webhooks/{id}/{number}/resend", post(operator::resend))
        .route("/operator/ledger", get(operator::ledger))
        .route("/operator/ledger/verify", post(operator::verify))
        .route("/operator/ledger/{id}/give-back", post(operator::give_back))
        .route("/operator/config", get(operator::config))
        .route("/operator/config/reload", post(operator::reload))
        .route("/operator/team", get(operator::team).post(operator::invite))
        .route("/operator/team/invitations/{id}/delete", post(operator::uninvite))
        .route("/operator/team/{id}/link", post(operator::sign_in_link))
        .route("/operator/team/{id}/{what}", get(operator::user_question).post(operator::change_user))
        .route("/operator/tokens", get(operator::tokens).post(operator::create_token))
        .route(
            "/operator/tokens/{name}/revoke",
            get(operator::revoke_token_page).post(operator::revoke_token),
        )
        .route("/operator/audit", get(operator::audit))
}

async fn nothing() -> Failure {
    OperationError::Missing("there is no page at this address".to_owned()).into()
}

/// All pages. `is_alone`: true on a listener of its own, where every other address is a page that is not there.
///
/// Writes from other sites are refused by what browsers say about their origin (`Sec-Fetch-Site`, or `Origin`).
pub(in crate::control) fn router(control: Arc<Control>, is_alone: bool) -> Router {
    let own = control.dashboard().ok().and_then(|dashboard| dashboard.url.clone());
    let csrf = match &own {
        Some(url) => CsrfLayer::new().add_trusted_origin(url),
        None => Ok(CsrfLayer::new()),
    };
    let site = Site::new(control);
    let pages = assets().merge(people()).merge(keys()).merge(account_pages()).merge(operator_pages());
    let pages = if is_alone { pages.fallback(nothing) } else { pages };
    pages.layer(csrf.unwrap_or_default()).layer(from_fn_with_state(site.clone(), guard)).with_state(site)
}
