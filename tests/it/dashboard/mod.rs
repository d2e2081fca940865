//! Tests the dashboard: in a real browser, and what no browser shows.

mod browser;
mod safety;

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::api::{Api, admin_config};
use crate::support::{Gateway, Response, Upstream, post};

/// A gateway with a dashboard on a listener of its own, where everybody may sign up.
pub fn open_config(more: &str) -> String {
    admin_config(&format!(
        "[webhooks]\nallow_private = [\"127.0.0.0/8\"]\n[dashboard]\nlisten = \"127.0.0.1:0\"\nsign_up = \"open\"\n\
         plan = \"growth\"\ncredits = 50\nname = \"Acme <API>\"\n{more}"
    ))
}

/// A gateway and the address of its dashboard.
pub struct Portal {
    pub gateway: Gateway,
    _upstream: Upstream,
    pub pages: SocketAddr,
    pub api: Api,
}

impl Portal {
    pub fn start(more: &str) -> Self {
        Self::start_by(&[], more)
    }

    /// Starts the gateway with a program before it.
    pub fn start_by(prefix: &[&str], more: &str) -> Self {
        let upstream = Upstream::start();
        let gateway = Gateway::start_by(prefix, &open_config(more), &upstream);
        let pages = gateway.dashboard();
        let api = Api::of(&gateway);
        Self { gateway, _upstream: upstream, pages, api }
    }

    /// Sends a form.
    pub fn form(&self, path: &str, cookie: &str, body: &str) -> Response {
        let headers = format!("content-type: application/x-www-form-urlencoded\r\ncookie: {cookie}\r\n");
        post(self.pages, path, &headers, body)
    }

    /// Reads a page.
    pub fn page(&self, path: &str, cookie: &str) -> Response {
        crate::support::get(self.pages, path, &format!("cookie: {cookie}\r\n"))
    }

    /// Creates a user. Returns its cookie.
    pub fn signed_in(&self, user: &Value) -> String {
        let made = self.api.ok("POST", "/v1/users", Some(user));
        let id = made["id"].as_str().unwrap();
        let link = self.api.ok("POST", &format!("/v1/users/{id}/sign-in-link"), None);
        self.open(link["link"].as_str().unwrap())
    }

    /// Uses a link. Returns the cookie of the session.
    pub fn open(&self, link: &str) -> String {
        let path = link.split_once("/link/").unwrap().1;
        cookie(&self.form(&format!("/link/{path}"), "", ""))
    }

    /// Creates an account with a member. Returns the member's cookie.
    pub fn member(&self, account: &str, role: &str) -> String {
        let body = json!({ "id": account, "plan": "growth", "credits": 50 });
        let _ = self.api.send("POST", "/v1/accounts", "", Some(&body)); // it may be there
        let email = format!("{role}@{account}.example");
        self.signed_in(&json!({ "email": email, "account": account, "role": role }))
    }
}

/// The session's cookie that a response sets.
pub fn cookie(response: &Response) -> String {
    let set = response.header("set-cookie").unwrap_or_else(|| panic!("no cookie: {}", response.status));
    set.split(';').next().unwrap().to_owned()
}
