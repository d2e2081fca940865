//! Who changed what.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use maud::{Markup, html};

use crate::control::dashboard::html::format;
use crate::control::dashboard::html::parts::{empty, next, table_card};
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{AsOperator, Failure, Fields};
use crate::control::operations::AuditView;
use crate::ledger::store::AuditFilter;
use crate::types::WallTime;

/// Entries on one page.
const PAGE: usize = 50;

/// A table of audit entries.
pub(in crate::control::dashboard) fn audit_table(entries: &[AuditView], now: WallTime) -> Markup {
    html! {
        table {
            thead { tr { th { "Time" } th { "By" } th { "What" } th { "Object" } th { "Details" } th.wide { "From" } } }
            tbody {
                @for entry in entries {
                    tr {
                        td { (format::ago(entry.at.0, now)) }
                        td { (entry.by) }
                        td { code { (entry.action) } }
                        td { (entry.object) }
                        td {
                            @if entry.before.is_some() || entry.after.is_some() {
                                details {
                                    summary { "Show" }
                                    @if let Some(before) = &entry.before { div.quiet { "before" } pre tabindex="0" { (pretty(before)) } }
                                    @if let Some(after) = &entry.after { div.quiet { "after" } pre tabindex="0" { (pretty(after)) } }
                                }
                            }
                        }
                        td.wide { (entry.from) }
                    }
                }
            }
        }
    }
}

fn pretty(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() // a value always serialises
}

/// Who changed what.
pub(in crate::control::dashboard) async fn audit(
    State(site): State<Site>,
    of: AsOperator,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let fields = Fields::of(query.as_deref());
    let filter = AuditFilter { before: fields.get("before").parse().ok(), ..AuditFilter::default() };
    let page = site.control.audit(&of.caller, filter, PAGE).await?;
    let more = page.next_cursor.as_ref().map(|cursor| format!("?before={cursor}"));
    let frame = of.frame(&site, "audit", "Audit", "Who changed what, from where. Entries are only appended.");
    Ok(frame.page(table_card("Changes", None, html! {
        @if page.data.is_empty() { (empty("Nothing was changed yet.", None)) } @else { (audit_table(&page.data, site.now())) }
        (next(page.data.len(), more))
    })))
}
