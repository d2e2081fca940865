//! The configuration in force.

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use maud::html;

use crate::control::dashboard::html::parts::{button, card, id};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{AsOperator, Failure, Notice, See};
use crate::control::operations::{OperationError, Permission};

/// The configuration in force, what the file changed since, and why it was refused if it was.
pub(in crate::control::dashboard) async fn config(
    State(site): State<Site>,
    of: AsOperator,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let config = site.control.config(&of.caller)?;
    let diff = site.control.config_diff(&of.caller)?;
    let mut frame = of.frame(
        &site,
        "config",
        "Configuration",
        "The file is the only place to change it; a change is read within seconds.",
    );
    frame.action =
        of.may(Permission::Manage).then(|| button("/operator/config/reload", "Read it again now", "primary"));
    frame.notice = Notice::of(query.as_deref());
    Ok(frame.page(html! {
        @if let Some(error) = &config.last_reload_error {
            (card("The last change was refused", html! { p { "The former configuration stays in force until the file is right." } pre.diff tabindex="0" { (error) } }))
        }
        (card("In force", html! {
            dl.facts {
                dt { "File" } dd { code { (config.file) } }
                dt { "SHA-256" } dd { (id("hash", &config.hash)) }
                dt { "Routes" } dd { (config.routes.len()) }
                dt { "Plans" } dd { (config.plans.len()) }
                dt { "Upstreams" } dd { (config.upstreams.join(", ")) }
            }
        }))
        (card("Last change", html! {
            @match &diff { Some(diff) => pre.diff tabindex="0" { (diff) }, None => p.quiet { "The file did not change since the gateway started, or is too long to compare." } }
        }))
        @if !config.warnings.is_empty() { (card("Warnings", html! { ul { @for warning in &config.warnings { li { (warning) } } } })) }
    }))
}

/// Reads the configuration again.
pub(in crate::control::dashboard) async fn reload(
    State(site): State<Site>,
    of: AsOperator,
) -> Result<Response, Failure> {
    match site.control.reload(&of.caller).await {
        Ok(_) => Ok(See("/operator/config?done=reloaded".to_owned()).into_response()),
        Err(OperationError::Config(_)) => Ok(See("/operator/config".to_owned()).into_response()),
        Err(error) => Err(error.into()),
    }
}
