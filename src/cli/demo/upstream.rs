//! Serves the sample API behind the demo's gateway: contact enrichment with generated data.
//!
//! The API keeps no state, so its memory use cannot grow: a response depends only on its request, and the id of a
//! search contains the search's result in hexadecimal. Every person is found, except those with `Nobody` in their name,
//! so that users can try both responses.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Largest request body that is read, in bytes. The demo's gateway forwards no larger body.
const MAX_BODY: usize = 64 * 1024;
/// Most simultaneous connections; further ones wait in the kernel's accept queue.
const MAX_CONNECTIONS: usize = 64;
/// Longest time until a request head arrives. Longer than the gateway keeps an idle upstream connection (30 s), so that
/// the gateway never sends a request on a connection that this server is closing.
const HEADER_TIME: Duration = Duration::from_secs(60);
/// Longest time until a request body is complete.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Pause after a failed accept, for example when no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const CREDITS_USED: HeaderName = HeaderName::from_static("x-credits-used");
const TITLES: [&str; 4] = ["Head of Operations", "Staff Engineer", "Account Executive", "Finance Director"];
const INDUSTRIES: [&str; 4] = ["Software", "Logistics", "Health", "Manufacturing"];

/// Binds a free port on the loopback address.
pub(super) async fn bind() -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Accepts and serves connections. Never returns.
pub(super) async fn serve(listener: TcpListener) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        tokio::spawn(async move {
            let service = service_fn(|request| async { Ok::<_, Infallible>(respond(request).await) });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
            let _ = builder.serve_connection(TokioIo::new(stream), service).await; // affects only this connection
            drop(place);
        });
    }
}

/// A response of the sample API, before it is converted to HTTP.
struct ApiResponse {
    status: StatusCode,
    body: Value,
    /// The value of `X-Credits-Used`, on routes whose price the upstream decides.
    cost: Option<&'static str>,
}

fn say(status: StatusCode, body: Value) -> ApiResponse {
    ApiResponse { status, body, cost: None }
}

async fn respond(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let id = parts.headers.get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let read = tokio::time::timeout(BODY_TIME, Limited::new(body, MAX_BODY).collect()).await;
    let asked = match read {
        Ok(Ok(body)) => serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null),
        _ => Value::Null, // too long, too slow or incomplete: treated as an empty request
    };
    let ApiResponse { status, body, cost } = match (&parts.method, parts.uri.path()) {
        (&Method::POST, "/api/v1/people/enrich") => person(&asked, id),
        (&Method::POST, "/api/v1/companies/enrich") => company(&asked, id),
        (&Method::POST, "/email/find/single") => find_email(&asked),
        (&Method::GET, "/email/find/single") => found_email(parts.uri.query().unwrap_or_default()),
        (&Method::POST, "/email/verify/single") => verify_email(&asked),
        (&Method::POST, "/phone/single") => find_phone(&asked),
        _ => say(StatusCode::NOT_FOUND, json!({ "message": "Not found" })),
    };
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(cost) = cost {
        response.headers_mut().insert(CREDITS_USED, HeaderValue::from_static(cost));
    }
    response
}

/// A member of the request body that is a non-empty text.
fn text<'a>(asked: &'a Value, name: &str) -> Option<&'a str> {
    asked.get(name).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty())
}

fn is_known(name: &str) -> bool {
    !name.to_ascii_lowercase().contains("nobody")
}

/// Picks one of `choices`: always the same one for the same text.
fn pick<'a>(choices: &[&'a str], text: &str) -> &'a str {
    let sum: usize = text.bytes().map(usize::from).sum();
    choices.get(sum % choices.len().max(1)).copied().unwrap_or_default()
}

/// `Ada Byron`, `example.com` → `ada.byron@example.com`.
fn email(name: &str, domain: &str) -> String {
    let words: Vec<String> = name.split_whitespace().map(str::to_lowercase).collect();
    format!("{}@{domain}", words.join("."))
}

/// `acme-tools.example` → `Acme-tools`.
fn company_name(domain: &str) -> String {
    let mut letters = domain.split('.').next().unwrap_or_default().chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// A failure in ApiOne's format.
fn failure(status: StatusCode, code: &str, message: &str, id: &str) -> ApiResponse {
    say(status, json!({ "status": "error", "code": code, "message": message, "request_id": id }))
}

fn person(asked: &Value, id: &str) -> ApiResponse {
    let (Some(name), Some(domain)) = (text(asked, "name"), text(asked, "domain")) else {
        return failure(StatusCode::BAD_REQUEST, "missing_param", "name and domain are needed", id);
    };
    if !is_known(name) {
        return failure(StatusCode::NOT_FOUND, "not_found", "No person matches this request", id);
    }
    let person = json!({
        "name": name,
        "title": pick(&TITLES, name),
        "company": company_name(domain),
        "email": email(name, domain),
    });
    say(StatusCode::OK, json!({ "status": "success", "request_id": id, "person": person }))
}

fn company(asked: &Value, id: &str) -> ApiResponse {
    let Some(domain) = text(asked, "domain") else {
        return failure(StatusCode::BAD_REQUEST, "missing_param", "domain is needed", id);
    };
    let company = json!({
        "name": company_name(domain),
        "domain": domain,
        "industry": pick(&INDUSTRIES, domain),
    });
    say(StatusCode::OK, json!({ "status": "success", "request_id": id, "company": company }))
}

fn missing(what: &str) -> ApiResponse {
    say(StatusCode::BAD_REQUEST, json!({ "message": format!("Missing parameter: {what}") }))
}

fn find_email(asked: &Value) -> ApiResponse {
    let Some(name) = text(asked, "fullname") else { return missing("fullname") };
    let Some(domain) = text(asked, "company_domain") else { return missing("company_domain") };
    let found = if is_known(name) { email(name, domain) } else { String::new() };
    let id = hex::encode(found);
    say(StatusCode::OK, json!({ "id": format!("find_{id}"), "message": "Single search in progress" }))
}

fn found_email(query: &str) -> ApiResponse {
    let id =
        query.split('&').find_map(|pair| pair.strip_prefix("id=")).and_then(|id| id.strip_prefix("find_"));
    let Some(found) = id.and_then(|id| String::from_utf8(hex::decode(id).ok()?).ok()) else {
        return say(StatusCode::BAD_REQUEST, json!({ "message": "Unknown id" }));
    };
    match found.as_str() {
        "" => say(StatusCode::OK, json!({ "qualification": "not_found" })),
        found => say(StatusCode::OK, json!({ "email": found, "qualification": "valid" })),
    }
}

fn verify_email(asked: &Value) -> ApiResponse {
    let Some(email) = text(asked, "email") else { return missing("email") };
    let sound = email.split_once('@').is_some_and(|(name, domain)| {
        !name.is_empty() && domain.contains('.') && !domain.contains('@') && is_known(name)
    });
    let verdict = if sound { "valid" } else { "invalid" };
    say(StatusCode::OK, json!({ "email": email, "qualification": verdict }))
}

fn find_phone(asked: &Value) -> ApiResponse {
    let Some(name) = text(asked, "fullname") else { return missing("fullname") };
    if !is_known(name) {
        let body = json!({ "qualification": "not_found" });
        return ApiResponse { status: StatusCode::OK, body, cost: Some("0") };
    }
    let last = name.bytes().map(u32::from).sum::<u32>() % 100;
    let number = format!("+1 202 555 01{last:02}"); // a range that is reserved for fiction
    let body = json!({ "number": number, "qualification": "found" });
    ApiResponse { status: StatusCode::OK, body, cost: Some("40") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_found_again_by_its_id() {
        let asked = json!({ "fullname": "Jöhn Doe", "company_domain": "example.com" });
        let made = find_email(&asked).body;
        let found = found_email(&format!("id={}", text(&made, "id").unwrap())).body;
        assert_eq!(found, json!({ "email": "jöhn.doe@example.com", "qualification": "valid" }));
    }

    #[test]
    fn an_id_that_was_never_given_is_refused() {
        for query in ["", "id=", "id=find_6", "id=find_zz", "id=find_ff", "id=find_é"] {
            assert_eq!(found_email(query).status, StatusCode::BAD_REQUEST, "{query}");
        }
    }

    #[test]
    fn nobody_is_not_found() {
        let asked = json!({ "name": "Jane Nobody", "fullname": "Jane Nobody", "domain": "example.com" });
        assert_eq!(person(&asked, "req_1").status, StatusCode::NOT_FOUND);
        assert_eq!(find_phone(&asked).cost, Some("0"));
    }
}
