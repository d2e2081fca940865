//! Configures HAProxy: SHA-256 and a map for keys, a rate counter per key, and a counter per account in place of
//! credits. HAProxy stores nothing on disk.

use std::fmt::Write as _;

use super::{Arguments, Site};
use crate::Result;
use crate::cases::{Back, Wire};
use crate::upstream::{NAME, Ports};

impl Site<'_> {
    /// The configuration of HAProxy as a TCP relay.
    pub(super) fn tcp(&self) -> Result<Arguments> {
        let (port, upstream) = (self.port, self.upstream);
        let text = format!(
            r"
global
    nbthread 1
    maxconn 8192
defaults
    mode tcp
    timeout connect 2s
    timeout client 60s
    timeout server 60s
listen relay
    bind 127.0.0.1:{port}
    server people 127.0.0.1:{upstream}
"
        );
        Ok(vec!["-db".into(), "-f".into(), self.write("haproxy.cfg", &text)?])
    }

    /// The servers, and how one is selected.
    fn haproxy_servers(&self) -> String {
        let Ports { plain, tls, more: [second, third] } = self.ports;
        match self.setup.back {
            Back::One => format!("    server people 127.0.0.1:{plain}"),
            Back::Tls => format!(
                "    server people 127.0.0.1:{tls} ssl verify required ca-file {} verifyhost {NAME} sni str({NAME}) alpn http/1.1",
                self.authority.display()
            ),
            Back::Three => format!(
                "    balance random(2)\n    server a 127.0.0.1:{plain}\n    server b 127.0.0.1:{second}\n    server c 127.0.0.1:{third}"
            ),
        }
    }

    pub(super) fn haproxy(&self) -> Result<Arguments> {
        let mut map = String::new();
        for (hash, account) in self.keys.hashes() {
            writeln!(map, "{} a{account}", hash.to_hex().to_ascii_uppercase())?;
        }
        let (port, path, servers) = (self.port, self.case.path, self.haproxy_servers());
        let tls = match self.case.wire {
            Wire::Tls | Wire::TlsAnew => {
                let both = self.folder.join("both.pem");
                let (port, both) = (self.tls_port, both.display());
                format!("bind 127.0.0.1:{port} ssl crt {both} alpn h2,http/1.1 ssl-min-ver TLSv1.3")
            }
            Wire::Plain | Wire::Http2 => String::new(), // HAProxy detects HTTP/2 by its connection preface
        };
        let map = self.write("keys.map", &map)?;
        // Room for every key and account, so that none is evicted.
        let (keys, accounts) = (self.keys.count.max(100_000) * 2, self.keys.accounts.max(10_000) * 2);
        let (window, most) = if self.setup.limited { ("24h", 1) } else { ("60s", 2_000_000_000) };
        let text = format!(
            r"
global
    nbthread 1
    maxconn 8192
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    option http-keep-alive
    http-reuse always
backend by_key
    stick-table type binary len 32 size {keys} expire 24h store http_req_rate({window})
backend by_account
    stick-table type string len 32 size {accounts} expire 1h store gpc0
frontend gate
    bind 127.0.0.1:{port}
    {tls}
    http-request deny deny_status 404 unless {{ path {path} }}
    http-request deny deny_status 401 unless {{ req.hdr(x-api-key) -m found }}
    http-request set-var(txn.hash) req.hdr(x-api-key),sha2(256)
    http-request set-var(txn.account) var(txn.hash),hex,map_str({map})
    http-request deny deny_status 401 unless {{ var(txn.account) -m found }}
    http-request track-sc0 var(txn.hash) table by_key
    http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {most} }}
    http-request track-sc1 var(txn.account) table by_account
    http-request sc-inc-gpc0(1)
    http-request deny deny_status 403 if {{ sc_get_gpc0(1) gt 2000000000 }}
    http-request del-header x-api-key
    http-request set-header x-tollgate-account %[var(txn.account)]
    default_backend people
backend people
{servers}
"
        );
        Ok(vec!["-db".into(), "-f".into(), self.write("haproxy.cfg", &text)?])
    }
}
