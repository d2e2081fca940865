//! Tests the admin API: what it answers, to whom, and what stays after a crash.

mod description;
mod endpoints;
mod files;
mod lifecycle;
mod repeats;
mod spending;
mod tokens;

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::{Client, Gateway, Response, config, sha256};

pub const TOKEN: &str = "tollgate_owner_of_these_tests";

/// The configuration of these tests: the usual one, with a plan, and with [`TOKEN`] as the first token.
pub fn admin_config(more: &str) -> String {
    let plan =
        "[plans.growth]\nconcurrency = 5\nlimits = [{ name = \"m\", requests = 100, window = \"60s\" }]\n";
    let hash = sha256(TOKEN);
    config(&format!("{plan}{more}")).replace("[admin]\n", &format!("[admin]\ntoken_sha256 = \"{hash}\"\n"))
}

/// A client of the admin API.
#[derive(Clone, Debug)]
pub struct Api {
    pub address: SocketAddr,
    pub token: String,
}

impl Api {
    pub fn of(gateway: &Gateway) -> Self {
        Self { address: gateway.admin, token: TOKEN.to_owned() }
    }

    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// Sends a request. `headers`: more header lines, each with its line break.
    pub fn send(&self, method: &str, path: &str, headers: &str, body: Option<&Value>) -> Response {
        self.try_send(method, path, headers, body).expect("a response")
    }

    /// As [`Api::send`]; `None` if the gateway was killed before it responded.
    pub fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: Option<&Value>,
    ) -> Option<Response> {
        let token = &self.token;
        let body = body.map(Value::to_string);
        let kind = if body.is_some() { "content-type: application/json\r\n" } else { "" };
        let (body, length) = (body.clone().unwrap_or_default(), body.map_or(0, |body| body.len()));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: admin\r\nauthorization: Bearer {token}\r\nconnection: close\r\n{kind}\
             {headers}content-length: {length}\r\n\r\n{body}"
        );
        let mut client = Client::try_connect(self.address)?;
        client.send(request).ok()?;
        client.read(method == "HEAD").ok()
    }

    /// Sends a request that must succeed. Returns the body.
    pub fn ok(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let response = self.send(method, path, "", body);
        assert!(
            (200..300).contains(&response.status),
            "{method} {path}: {} {}",
            response.status,
            response.text()
        );
        response.json()
    }

    pub fn get(&self, path: &str) -> Value {
        self.ok("GET", path, None)
    }

    pub fn post(&self, path: &str, body: Value) -> Value {
        self.ok("POST", path, Some(&body))
    }

    /// Sends a request that must fail. Returns the status and the code.
    pub fn fails(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, String) {
        let response = self.send(method, path, "", body);
        assert!(response.status >= 400, "{method} {path}: {} {}", response.status, response.text());
        assert_eq!(response.header("content-type"), Some("application/problem+json"), "{method} {path}");
        let problem = response.json();
        assert_eq!(problem["status"], response.status);
        (response.status, problem["code"].as_str().unwrap().to_owned())
    }
}
