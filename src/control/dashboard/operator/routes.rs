//! Routes with their prices, and plans.

use axum::extract::State;
use axum::response::Response;
use maud::html;

use crate::control::dashboard::html::format;
use crate::control::dashboard::html::parts::{badge, empty, table_card};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{AsOperator, Failure};
use crate::control::operations::{LimitTerms, PublicRoute};

fn limits(limits: &[LimitTerms]) -> maud::Markup {
    html! { @for limit in limits { div { (limit.name) ": " (format::count(limit.requests.into())) " in " (limit.window) @if limit.shadow { " (shadow)" } } } }
}

/// Routes and plans of the configuration.
pub(in crate::control::dashboard) async fn routes(
    State(site): State<Site>,
    of: AsOperator,
) -> Result<Response, Failure> {
    let config = site.control.config(&of.caller)?;
    let routes: Vec<PublicRoute> = site.control.priced_routes(None);
    let frame = of.frame(
        &site,
        "routes",
        "Routes and plans",
        "What the configuration file serves, and for how much.",
    );
    Ok(frame.page(html! {
        (table_card("Routes", None, html! {
            table {
                thead { tr { th { "Route" } th { "Methods" } th { "Path" } th { "Upstream" } th { "Credits" } th { "Limits" } } }
                tbody {
                    @for (view, route) in config.routes.iter().zip(&routes) {
                        tr {
                            td { (view.name) @if view.public { " " (badge("public")) } }
                            td { (route.methods) }
                            td { code { (route.path) } }
                            td { (view.upstream) }
                            td { (route.price) @if let Some(note) = &route.note { div.quiet { (note) } } }
                            td { (limits(&view.limits)) }
                        }
                    }
                }
            }
        }))
        (table_card("Plans", None, html! {
            @if config.plans.is_empty() { (empty("The configuration has no plan.", None)) } @else {
                table {
                    thead { tr { th { "Plan" } th { "Limits" } th.num { "In flight per key" } } }
                    tbody {
                        @for plan in &config.plans {
                            tr { td { (plan.name) } td { (limits(&plan.limits)) } td.num { @match plan.concurrency { Some(most) => (most), None => "–" } } }
                        }
                    }
                }
            }
        }))
    }))
}
