//! Implements `demo --self-test`: sends the demo's requests, checks each response, and prints both.
//!
//! The self-test computes balances itself from the expected cost of each request, so a wrong charge is detected in its
//! own response and in every later balance.

use std::net::SocketAddr;

use serde_json::Value;

use super::Keys;
use super::cases::{Bearer, Case, Check, DIALECTS};
use super::client::Reply;
use super::config::{Account, DEMO, NEARLY_EMPTY, TRIAL};
use crate::cli::failed::{Failed, Result};
use crate::cli::output;
use crate::policy::limit::BUCKETS;
use crate::types::Credits;

/// Headers that are printed, in this order.
const SHOWN: [&str; 9] = [
    "content-type",
    "www-authenticate",
    "retry-after",
    "ratelimit-policy",
    "ratelimit",
    "x-credits-used",
    "x-credits-remaining",
    "allow",
    "x-request-id",
];
/// A key of the usual form that does not exist.
const STRANGER: &str = "ak_live_your_key_here";
/// The window of the trial plan, in seconds.
const WINDOW: u64 = 60;
/// Largest `Retry-After`, in seconds: a sliding window is divided into [`BUCKETS`] buckets, and a bucket that has begun
/// counts in full.
const LONGEST_WAIT: u64 = WINDOW + WINDOW / BUCKETS;

/// An account's key, and the balance that the account must have.
struct Balances {
    key: String,
    balance: Credits,
}

struct Tester {
    gateway: SocketAddr,
    demo: Balances,
    trial: Balances,
    nearly_empty: Balances,
}

/// Sends all requests, and prints and checks their responses.
///
/// # Errors
/// If any check failed.
pub(super) async fn run(gateway: SocketAddr, keys: Keys) -> Result {
    let purse = |account: Account, key| Ok::<_, Failed>(Balances { key, balance: account.credits.parse()? });
    let mut tester = Tester {
        gateway,
        demo: purse(DEMO, keys.demo)?,
        trial: purse(TRIAL, keys.trial)?,
        nearly_empty: purse(NEARLY_EMPTY, keys.nearly_empty)?,
    };
    let (mut number, mut failed) = (0_usize, 0_usize);
    for (dialect, cases) in DIALECTS {
        output::text(&format!("=== dialect {dialect} ===\n\n"))?;
        for case in cases {
            number += 1;
            if !tester.shown(number, case).await? {
                failed += 1;
            }
        }
    }
    output::text(&format!("self-test: {} passed, {failed} failed\n", number - failed))?;
    if failed == 0 { Ok(()) } else { Err(Failed(format!("error: {failed} responses are wrong"))) }
}

impl Tester {
    fn purse(&mut self, bearer: Bearer) -> Option<&mut Balances> {
        match bearer {
            Bearer::Nobody | Bearer::Stranger => None,
            Bearer::Demo => Some(&mut self.demo),
            Bearer::Trial => Some(&mut self.trial),
            Bearer::NearlyEmpty => Some(&mut self.nearly_empty),
        }
    }

    /// Sends one request, and prints it with its response and the results of the checks. True if all checks passed.
    async fn shown(&mut self, number: usize, case: &Case) -> Result<bool> {
        let gateway = self.gateway;
        let key = match case.bearer {
            Bearer::Stranger => Some(STRANGER.to_owned()),
            bearer => self.purse(bearer).map(|purse| purse.key.clone()),
        };
        let line = case.call.curl(gateway, key.as_deref());
        output::text(&format!("{number}. {}\n$ {line}\n", case.title))?;
        let reply = match case.call.send(gateway, key.as_deref()).await {
            Ok(reply) => reply,
            Err(error) => {
                output::text(&format!("FAILED: {error}\n\n"))?;
                return Ok(false);
            }
        };
        let findings = check(&reply, case, self.purse(case.bearer).map(|purse| &mut purse.balance));
        let wrong: Vec<&String> = findings.iter().filter_map(|finding| finding.as_ref().err()).collect();
        let right: Vec<&String> = findings.iter().filter_map(|finding| finding.as_ref().ok()).collect();
        let join = |list: &[&String]| list.iter().map(|text| text.as_str()).collect::<Vec<_>>().join("; ");
        let verdict = match wrong.is_empty() {
            true => format!("ok: {}", join(&right)),
            false => format!("FAILED: {}", join(&wrong)),
        };
        output::text(&format!("{}\n{verdict}\n\n", as_text(&reply)))?;
        Ok(wrong.is_empty())
    }
}

/// Formats the response as `curl -i` does, with only the headers in [`SHOWN`].
fn as_text(reply: &Reply) -> String {
    let mut text = format!("HTTP/1.1 {}\n", reply.status);
    for name in SHOWN {
        if let Some(value) = reply.header(name) {
            text.push_str(&format!("{name}: {value}\n"));
        }
    }
    text.push_str(&format!("\n{}\n", reply.body));
    text
}

/// The result of one check: what is as expected, or what differs.
type Finding = std::result::Result<String, String>;

fn compare(what: &str, expected: &str, found: Option<&str>) -> Finding {
    match found {
        Some(found) if found == expected => Ok(format!("{what} {expected}")),
        Some(found) => Err(format!("{what} is {found}, not {expected}")),
        None => Err(format!("{what} is missing, it must be {expected}")),
    }
}

/// Checks the conditions of the case, and those that every response must meet.
fn check(reply: &Reply, case: &Case, mut balance: Option<&mut Credits>) -> Vec<Finding> {
    let json: Value = serde_json::from_str(&reply.body).unwrap_or(Value::Null);
    let mut findings = vec![
        compare("status", &case.status.to_string(), Some(reply.status.as_str())),
        compare("content-type", "application/json", reply.header("content-type")),
        request_id(reply, &json),
    ];
    for check in case.checks {
        findings.push(match *check {
            Check::Body(expected) => {
                compare("body", expected, Some(&reply.body)).map(|_| "body to the letter".to_owned())
            }
            Check::Says(at, expected) => {
                compare(&at[1..], expected, json.pointer(at).and_then(Value::as_str))
            }
            Check::Header(name, expected) => compare(name, expected, reply.header(name)),
            Check::No(name) => match reply.header(name) {
                Some(value) => Err(format!("{name} is {value}, it must not be there")),
                None => Ok(format!("no {name}")),
            },
            Check::Costs(cost) => costs(reply, cost, balance.as_deref_mut()),
            Check::Balance => {
                let (known, found) = (balance.as_ref().map(ToString::to_string), json.get("credits"));
                compare("credits", &known.unwrap_or_default(), found.map(Value::to_string).as_deref())
            }
            Check::Left(left) => {
                let said = reply.header("ratelimit").and_then(|value| value.split(';').nth(1));
                compare("ratelimit", &format!("r={left}"), said)
            }
            Check::RetryAfter => retry_after(reply),
            Check::RetryAfterInBody => retry_after_in_body(reply, &json),
        });
    }
    findings
}

/// Checks that the response has a valid `X-Request-Id`, and that `request_id` in the body, if present, has the same
/// value.
fn request_id(reply: &Reply, json: &Value) -> Finding {
    let id = reply.header("x-request-id").unwrap_or_default();
    if id.parse::<crate::types::RequestId>().is_err() {
        return Err(format!("x-request-id is `{id}`, it must be req_ and 18 or 26 digits"));
    }
    match json.get("request_id").map(|named| named.as_str() == Some(id)) {
        Some(false) => Err(format!("the body's request_id is not {id}")),
        Some(true) => Ok("request_id in header and body".to_owned()),
        None => Ok("x-request-id".to_owned()),
    }
}

/// Subtracts the cost from the computed balance, and compares cost and balance with the response headers.
fn costs(reply: &Reply, cost: &str, balance: Option<&mut Credits>) -> Finding {
    let spent = cost.parse().ok().zip(balance);
    let Some(left) = spent.and_then(|(cost, balance)| {
        *balance = balance.checked_sub(cost)?;
        Some(balance.to_string())
    }) else {
        return Err(format!("{cost} cannot be taken off a balance"));
    };
    let used = compare("x-credits-used", cost, reply.header("x-credits-used"))?;
    let remaining = compare("x-credits-remaining", &left, reply.header("x-credits-remaining"))?;
    Ok(format!("{used}, {remaining}"))
}

fn seconds(reply: &Reply) -> std::result::Result<u64, String> {
    let text = reply.header("retry-after").unwrap_or("missing");
    match text.parse() {
        Ok(seconds @ 1..=LONGEST_WAIT) => Ok(seconds),
        _ => Err(format!("retry-after is {text}, it must be 1 to {LONGEST_WAIT}")),
    }
}

fn retry_after(reply: &Reply) -> Finding {
    let seconds = seconds(reply)?;
    compare("ratelimit", &format!("\"per-minute\";r=0;t={seconds}"), reply.header("ratelimit"))?;
    Ok(format!(
        "retry-after {seconds} of at most {LONGEST_WAIT} (a window counts in sixtieths), the same in ratelimit"
    ))
}

fn retry_after_in_body(reply: &Reply, json: &Value) -> Finding {
    let seconds = seconds(reply)?;
    let named = json.get("retry_after").map(Value::to_string);
    compare("the body's retry_after", &seconds.to_string(), named.as_deref())?;
    let sentence = format!("Rate limit exceeded. Retry after {seconds} seconds.");
    compare("message", &sentence, json.get("message").and_then(Value::as_str))?;
    Ok(format!("{seconds} in the body too"))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;

    fn reply(headers: &[(&'static str, &'static str)]) -> Reply {
        let headers = headers
            .iter()
            .map(|&(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
        Reply { status: StatusCode::OK, headers: headers.collect::<HeaderMap>(), body: String::new() }
    }

    #[test]
    fn a_wrong_charge_is_told() {
        let mut balance: Credits = "8500".parse().unwrap();
        let told = costs(
            &reply(&[("x-credits-used", "4"), ("x-credits-remaining", "8496")]),
            "4",
            Some(&mut balance),
        );
        assert_eq!(told, Ok("x-credits-used 4, x-credits-remaining 8496".to_owned()));
        let told = costs(&reply(&[("x-credits-used", "4")]), "0.25", Some(&mut balance));
        assert_eq!(told, Err("x-credits-used is 4, not 0.25".to_owned()));
        let told = costs(
            &reply(&[("x-credits-used", "1"), ("x-credits-remaining", "8496")]),
            "1",
            Some(&mut balance),
        );
        assert_eq!(told, Err("x-credits-remaining is 8496, not 8494.75".to_owned()));
    }

    #[test]
    fn a_wait_that_is_too_long_is_told() {
        assert!(retry_after(&reply(&[("retry-after", "62")])).is_err());
        assert!(retry_after(&reply(&[("retry-after", "0")])).is_err());
        assert!(retry_after(&reply(&[])).is_err());
        let fits = [("retry-after", "61"), ("ratelimit", "\"per-minute\";r=0;t=61")];
        assert!(retry_after(&reply(&fits)).is_ok());
    }
}
