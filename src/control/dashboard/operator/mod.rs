//! The pages of the operator.

mod account;
mod accounts;
mod audit;
mod config;
mod ledger;
mod overview;
mod routes;
mod team;
mod tokens;
mod webhooks;

pub(super) use account::{
    account, approve, book, change, decline, decline_page, resume, suspend, suspend_page,
};
pub(super) use accounts::{accounts, create, create_page};
pub(super) use audit::{audit, audit_table};
pub(super) use config::{config, reload};
pub(super) use ledger::{give_back, ledger, verify};
pub(super) use overview::{overview, total, upstreams};
pub(super) use routes::routes;
pub(super) use team::{change_user, invite, sign_in_link, team, uninvite, user_question};
pub(super) use tokens::{create_token, revoke_token, revoke_token_page, tokens};
pub(super) use webhooks::{resend, webhooks};

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};

use super::html::{Frame, Place};
use super::web::{AsOperator, Failure};
use crate::control::dashboard::site::Site;
use crate::control::operations::{OperationError, Permission};

impl AsOperator {
    /// True if the operator's role allows it.
    fn may(&self, permission: Permission) -> bool {
        self.caller.may(permission).is_ok()
    }

    /// The frame of a page.
    fn frame<'a>(&'a self, site: &'a Site, page: &'static str, title: &'a str, about: &'a str) -> Frame<'a> {
        Frame {
            site,
            visitor: &self.visitor,
            place: Place::Operator(page),
            title,
            about,
            action: None,
            notice: None,
        }
    }
}

/// A cell that no spreadsheet takes for a formula (OWASP, CSV injection).
fn inert(cell: String) -> String {
    let is_number = cell.parse::<f64>().is_ok();
    let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    if is_formula && !is_number { format!("'{cell}") } else { cell }
}

/// A file of comma-separated values (RFC 4180).
pub(super) fn csv_response(
    name: &str,
    head: &[&str],
    lines: impl Iterator<Item = Vec<String>>,
) -> Result<Response, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::from(OperationError::Unavailable(format!("the file could not be made: {error}")))
    };
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(head).map_err(|error| failed(&error))?;
    for line in lines {
        writer.write_record(line.into_iter().map(inert)).map_err(|error| failed(&error))?;
    }
    let bytes = writer.into_inner().map_err(|error| failed(&error))?;
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula() {
        let table = [
            ("=cmd()", "'=cmd()"),
            ("@x", "'@x"),
            ("+1+1", "'+1+1"),
            ("-3.5", "-3.5"),
            ("a=b", "a=b"),
            ("\t=1", "'\t=1"),
        ];
        for (cell, expected) in table {
            assert_eq!(inert(cell.to_owned()), expected);
        }
    }
}
