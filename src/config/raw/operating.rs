//! `[admin]`, `[dashboard]`, `[log]`, `[usage]`, `[webhooks]`, `[traces]`, `[idempotency]`: how the gateway is operated.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Amount, At, Duration, Maybe, Named, Sample, Secret, Sha256, Size};

/// The operators' listener.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Address; port 0 picks a free one.
    pub listen: Maybe<String>,
    /// SHA-256 of the admin token. Left out, the environment's TOLLGATE_ADMIN_TOKEN is the token; without either, one is
    /// made at the first start.
    pub token_sha256: Maybe<Sha256>,
    /// Paths that are served without a token: `/metrics`, `/openapi.json`.
    pub open: Maybe<Vec<At<String>>>,
}

/// Logging.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `json` or `text`.
    pub format: Maybe<String>,
    /// Write one line per request.
    pub requests: Maybe<bool>,
    /// `standard` or `minimal`.
    pub fields: Maybe<String>,
}

/// How long usage is kept.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Usage {
    /// How long in intervals of a minute; then in hours.
    pub minutes: Maybe<Duration>,
    /// How long in intervals of an hour; then in days.
    pub hours: Maybe<Duration>,
    /// How long in intervals of a day; then it is deleted.
    pub days: Maybe<Duration>,
}

/// Webhooks of accounts and of the operator.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Webhooks {
    /// Networks that endpoints may be in although they are not public.
    pub allow_private: Vec<At<String>>,
}

/// Traces by OpenTelemetry.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Traces {
    /// URL of a collector that takes OTLP over HTTP, such as `http://127.0.0.1:4318`. Left out: no traces.
    pub otlp: Maybe<String>,
    /// The share of requests that are traced.
    pub sample: Maybe<Sample>,
    /// Headers to set on requests to the collector.
    pub set_headers: Named<Secret>,
}

/// Pages for customers and operators.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Dashboard {
    /// Address; port 0 picks a free one. Left out: the operators' listener.
    pub listen: Maybe<String>,
    /// The address as people see it, for links, cookies and the check of `Origin`: `https://portal.example.com`.
    pub url: Maybe<String>,
    /// The API's base URL as customers see it, for examples: `https://api.example.com`.
    pub api_url: Maybe<String>,
    /// Who may create an account: `off`, `open`, `approval` or `invite`.
    pub sign_up: Maybe<String>,
    /// The plan of accounts that sign up.
    pub plan: Maybe<String>,
    /// The plan until an operator approves, for `sign_up = "approval"`.
    pub sandbox_plan: Maybe<String>,
    /// The opening grant of accounts that sign up.
    pub credits: Maybe<Amount>,
    /// The name of the API.
    pub name: Maybe<String>,
    /// A picture of at most 64 KiB: .svg, .png, .webp or .jpg.
    pub logo: Maybe<String>,
    /// The accent colour, such as `#3355ff`. It is darkened or lightened until text in it can be read.
    pub accent: Maybe<String>,
    /// An OpenAPI description of the API (JSON), which the documentation page links to.
    pub openapi: Maybe<String>,
    /// The mail server: `smtps://user:password@host`. Left out: links are shown to those who make them.
    pub smtp: Maybe<Secret>,
    /// The sender of e-mail.
    pub from: Maybe<String>,
}

/// Requests that may be repeated without being charged again.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Idempotency {
    /// How long a repeated request gets the same response: `1h` to `30d`.
    pub keep: Maybe<Duration>,
    /// Largest body of a request with an `Idempotency-Key`, and of a response that is kept: at most `1MiB`.
    pub max_body: Maybe<Size>,
}
