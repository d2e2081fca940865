//! Starts Envoy with `api_key_auth` and a local rate limit. Envoy's keys are not hashed, and it has no credits.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::{Arguments, Site};
use crate::keys::Keys;
use crate::{Result, process};

/// The environment variable that names the Envoy program. Without it, `envoy` on PATH is used.
pub const VARIABLE: &str = "TOLLGATE_BENCH_ENVOY";

pub fn program() -> Option<PathBuf> {
    let named = std::env::var_os(VARIABLE).map(PathBuf::from).filter(|file| file.is_file());
    named.or_else(|| process::find("envoy"))
}

impl Site<'_> {
    pub(super) fn envoy(&self) -> Result<Arguments> {
        let (port, upstream, path) = (self.port, self.upstream, self.case.path);
        let mut credentials = String::new();
        for number in 0..self.keys.count {
            let (key, account) = (Keys::text(number), number % self.keys.accounts);
            write!(credentials, "{{key: {key}, client: a{account}-{number}}}, ")?;
        }
        // One token bucket limits all keys together.
        let (tokens, interval) = if self.setup.limited { (1, "86400s") } else { (2_000_000_000, "1s") };
        let text = format!(
            r#"
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: gate
          codec_type: HTTP1
          generate_request_id: false
          route_config:
            virtual_hosts:
            - name: people
              domains: ["*"]
              routes:
              - match: {{path: {path}}}
                route: {{cluster: people, timeout: 60s}}
          http_filters:
          - name: envoy.filters.http.api_key_auth
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth
              credentials: [{credentials}]
              key_sources: [{{header: x-api-key}}]
              forwarding: {{header: x-tollgate-account, hide_credentials: true}}
          - name: envoy.filters.http.local_ratelimit
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
              stat_prefix: limit
              token_bucket: {{max_tokens: {tokens}, tokens_per_fill: {tokens}, fill_interval: {interval}}}
              filter_enabled: {{default_value: {{numerator: 100, denominator: HUNDRED}}}}
              filter_enforced: {{default_value: {{numerator: 100, denominator: HUNDRED}}}}
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: people
    type: STATIC
    connect_timeout: 2s
    circuit_breakers: {{thresholds: [{{max_connections: 8192, max_pending_requests: 8192, max_requests: 8192}}]}}
    load_assignment:
      cluster_name: people
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}
"#
        );
        let file = self.write("envoy.yaml", &text)?;
        let words = ["-c", &file, "--concurrency", "1", "--disable-hot-restart", "-l", "error"];
        Ok(words.map(str::to_owned).to_vec())
    }
}
