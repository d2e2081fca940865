//! Who changed what in an account.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use maud::html;

use crate::control::dashboard::html::parts::{empty, next, table_card};
use crate::control::dashboard::operator::audit_table;
use crate::control::dashboard::site::Site;
use crate::control::dashboard::web::{Failure, Fields, InAccount};
use crate::ledger::store::AuditFilter;

/// Entries on one page.
const PAGE: usize = 50;

/// Who changed what in an account.
pub(in crate::control::dashboard) async fn audit(
    State(site): State<Site>,
    of: InAccount,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let fields = Fields::of(query.as_deref());
    let before = fields.get("before").parse().ok();
    let filter = AuditFilter { account: Some(of.account.clone()), before, ..AuditFilter::default() };
    let page = site.control.audit(&of.caller, filter, PAGE).await?;
    let more = page.next_cursor.as_ref().map(|cursor| format!("?before={cursor}"));
    let frame =
        of.frame(&site, "audit", "Audit", "Who changed what in this account. Entries are only appended.");
    Ok(frame.page(table_card("Changes", None, html! {
        @if page.data.is_empty() { (empty("Nothing was changed yet.", None)) } @else { (audit_table(&page.data, site.now())) }
        (next(page.data.len(), more))
    })))
}
