//! Sends one message to one endpoint. Every message has a connection of its own, to an address that was checked after
//! it was resolved: nothing is resolved a second time, and redirects are not followed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Request, Uri};
use http_body_util::Full;
use ipnet::IpNet;

use super::address::may_be_reached;
use super::schedule::Answer;
use crate::control::http_client::{HttpClient, destination};

/// Longest time of an attempt, from the resolution of the name to the head of the response.
const MAX_TIME: Duration = Duration::from_secs(20);
/// Longest URL of an endpoint, in bytes.
const MAX_URL: usize = 2_048;

/// A message that is ready to be sent.
pub(super) struct Sent {
    pub(super) id: String,
    /// Seconds since the Unix epoch.
    pub(super) timestamp: i64,
    pub(super) signature: String,
    pub(super) body: String,
}

/// Checks the URL of an endpoint.
///
/// # Errors
/// What is wrong with it.
pub(in crate::control) fn check_url(text: &str, allowed: &[IpNet]) -> Result<Uri, String> {
    let wrong =
        |what: &str| Err(format!("{what}; an endpoint is a URL such as https://your-app.example/hooks"));
    if text.len() > MAX_URL {
        return wrong("the URL is too long");
    }
    let Ok(url) = text.parse::<Uri>() else { return wrong("this is no URL") };
    let Some(authority) = url.authority() else { return wrong("the URL has no host") };
    if authority.as_str().contains('@') {
        return wrong("the URL has a user name or password");
    }
    match url.scheme_str() {
        Some("https") => {}
        Some("http") if !allowed.is_empty() => {}
        Some("http") => return wrong("http:// is only for the networks in [webhooks] allow_private"),
        _ => return wrong("the URL does not begin with https://"),
    }
    match destination(&url).0.parse::<IpAddr>() {
        Ok(address) if !may_be_reached(address, allowed) => Err(private(&[address])),
        _ => Ok(url),
    }
}

fn private(addresses: &[IpAddr]) -> String {
    match addresses.first() {
        Some(address) => {
            format!("the address {address} is not public; [webhooks] allow_private can allow its network")
        }
        None => "the name has no address".to_owned(),
    }
}

/// Sends messages to endpoints.
#[derive(Clone)]
pub(super) struct Client(HttpClient);

impl Client {
    /// A client that trusts the system's certificate authorities.
    pub(super) fn new() -> Self {
        Self(HttpClient::new())
    }

    /// Sends a message. Returns what the endpoint answered, and the start of what it said.
    ///
    /// # Errors
    /// Why there was no response.
    pub(super) async fn send(
        &self,
        url: &str,
        allowed: &[IpNet],
        message: Sent,
    ) -> Result<(Answer, String), String> {
        match tokio::time::timeout(MAX_TIME, self.exchange(url, allowed, message)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no response within {} s", MAX_TIME.as_secs())),
        }
    }

    async fn exchange(
        &self,
        url: &str,
        allowed: &[IpNet],
        message: Sent,
    ) -> Result<(Answer, String), String> {
        let (url, now) = (check_url(url, allowed)?, message.timestamp);
        let (host, port, is_tls) = destination(&url);
        let address = resolve(host, port, allowed, is_tls).await?;
        let request = Request::post(&url)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", message.id)
            .header("webhook-timestamp", message.timestamp)
            .header("webhook-signature", message.signature)
            .body(Full::new(Bytes::from(message.body)))
            .map_err(|error| error.to_string())?;
        let response = self.0.send(address, request).await?;
        let retry_after = retry_after(&response.head.headers, now);
        let start = String::from_utf8_lossy(&response.start);
        // Where only this configuration leads, customers see no responses.
        let is_public = may_be_reached(address.ip().to_canonical(), &[]);
        let start = if is_public { start } else { "".into() };
        let said = start.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        Ok((Answer { status: Some(response.head.status.as_u16()), retry_after }, said))
    }
}

/// Resolves a name to the first address that may be reached. Without TLS, that must be one that the configuration
/// allows.
async fn resolve(host: &str, port: u16, allowed: &[IpNet], is_tls: bool) -> Result<SocketAddr, String> {
    let found = tokio::net::lookup_host((host, port)).await;
    let found: Vec<SocketAddr> =
        found.map_err(|error| format!("the name is not resolved: {error}"))?.collect();
    let may = |address: &&SocketAddr| {
        let ip = address.ip().to_canonical();
        may_be_reached(ip, allowed) && (is_tls || allowed.iter().any(|network| network.contains(&ip)))
    };
    let addresses: Vec<IpAddr> = found.iter().map(SocketAddr::ip).collect();
    found.iter().find(may).copied().ok_or_else(|| private(&addresses))
}

/// The time that `Retry-After` asks for: seconds, or a date (RFC 9110, section 10.2.3). `now`: seconds since the Unix
/// epoch.
fn retry_after(headers: &HeaderMap, now: i64) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = text.parse().ok().or_else(|| {
        let date = jiff::fmt::rfc2822::parse(text).ok()?;
        Some(u64::try_from(date.timestamp().as_second().saturating_sub(now)).unwrap_or(0))
    });
    seconds.map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_wait_is_in_seconds_or_a_date() {
        let wait = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            retry_after(&headers, 784_111_700).map(|wait| wait.as_secs())
        };
        assert_eq!((wait("120"), wait(" 7 ")), (Some(120), Some(7)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(77));
        assert_eq!(wait("Sun, 06 Nov 1993 08:49:37 GMT"), None, "that was a Saturday");
        assert_eq!(wait("Sat, 06 Nov 1993 08:49:37 GMT"), Some(0));
        assert_eq!((wait("soon"), wait("-1")), (None, None));
    }

    #[test]
    fn urls_of_endpoints_are_checked() {
        let allowed: [IpNet; 1] = ["10.0.0.0/8".parse().unwrap()];
        for url in ["https://a.example/hooks?x=1", "https://1.1.1.1", "https://[2606:4700::1111]:8443/"] {
            assert!(check_url(url, &[]).is_ok(), "{url}");
        }
        for url in ["http://10.1.1.1/", "http://a.example/", "https://10.1.1.1/"] {
            assert!(check_url(url, &[]).is_err(), "{url}");
            assert!(check_url(url, &allowed).is_ok(), "{url}");
        }
        let long = format!("https://a.example/{}", "x".repeat(MAX_URL));
        for url in [
            "",
            "/hooks",
            "a.example",
            "ftp://a.example/",
            "https://u:p@a.example/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            &long,
        ] {
            assert!(check_url(url, &allowed).is_err(), "{url}");
        }
    }
}
