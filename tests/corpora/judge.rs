//! Checks the outcome of each case against the verdict that the corpus expects.

use crate::case::{Case, KEY};
use crate::frames::{self, Told};
use crate::place::{Outcome, Place};
use crate::upstream::Seen;

type Verdict = Result<(), String>;

fn verdict(holds: bool, outcome: &Outcome, seen: &[Seen]) -> Verdict {
    let text = String::from_utf8_lossy(&outcome.bytes);
    let text: String = text.chars().take(300).collect();
    let closed = outcome.closed;
    if holds { Ok(()) } else { Err(format!("answered {text:?}, closed {closed}, upstream saw {seen:?}")) }
}

fn refused(outcome: &Outcome) -> bool {
    outcome.status() >= 400 || outcome.closed && outcome.bytes.is_empty()
}

/// Checks a case of HTTP/1.1. `keyed` is true if its routes require a key.
pub fn http1(place: &Place, case: &Case, keyed: bool) -> Verdict {
    let outcome = place
        .send(&case.bytes, &case.then, |outcome, sent| case.expect != "pass" || outcome.responses() >= sent);
    let seen = place.settle(keyed)?;
    let holds = match &*case.expect {
        // The gateway waits for the rest of an incomplete request. It must close the connection at its deadline.
        "reject" if outcome.status() == 0 && !outcome.closed => {
            let end = place.wait_for_end(&case.bytes);
            seen.is_empty() && place.settle(keyed)?.is_empty() && end.closed && end.status() != 200
        }
        "reject" => seen.is_empty() && refused(&outcome),
        "one" => seen.len() <= case.max_upstream,
        "pass" => seen.len() == case.max_upstream && outcome.status() == 200,
        other => return Err(format!("unknown verdict {other}")),
    };
    verdict(holds, &outcome, &seen)
}

/// Checks a target that tries to reach `/private` without a key.
pub fn path(place: &Place, case: &Case) -> Verdict {
    let outcome = place.send(&case.bytes, &[], |_, _| true);
    let seen = place.settle(true)?;
    let private = seen.iter().any(|request| resolved(request.target()).starts_with("/private"));
    let public = seen.iter().all(|request| resolved(request.target()).starts_with("/public"));
    let holds = match &*case.expect {
        "never_private" => !private,
        "public_only" => public,
        "reject" => seen.is_empty() && refused(&outcome),
        "survive" => true,
        other => return Err(format!("unknown verdict {other}")),
    };
    verdict(holds, &outcome, &seen)
}

/// Checks a way of presenting a key.
pub fn key(place: &Place, case: &Case) -> Verdict {
    let outcome = match &*case.expect {
        "timeout-408-or-close" => place.wait_for_end(&case.bytes),
        expect => {
            let is_answered = expect.contains("pass");
            place.send(&case.bytes, &case.then, |outcome, sent| !is_answered || outcome.responses() >= sent)
        }
    };
    let seen = place.settle(true)?;
    let status = outcome.status();
    let passed = status == 200 && seen.len() == 1;
    let none = |statuses: &[u16]| seen.is_empty() && (statuses.contains(&status) || outcome.bytes.is_empty());
    let as_key = seen.iter().all(|request| request.values("x-tollgate-account") == ["one"]);
    let holds = match &*case.expect {
        "pass" => passed,
        "pass-as-KEY" => passed && as_key,
        "pass-or-400" => passed || none(&[400]),
        "pass-no-spoof" => {
            let own = |request: &Seen| {
                let mut own = request
                    .fields
                    .iter()
                    .filter(|(name, _)| name.replace('_', "-").starts_with("x-tollgate-"));
                own.all(|(_, value)| value != "admin")
                    && !request.fields.iter().any(|(_, value)| value == KEY)
            };
            passed && as_key && seen.iter().all(own)
        }
        "one" => seen.len() <= 1,
        "400" => none(&[400]),
        "401" => none(&[401]),
        "400or401" => none(&[400, 401]),
        "401or431" => none(&[401, 431]),
        "401or405" => none(&[401, 405]),
        "401or204-local" => none(&[401, 204]),
        "400or401or-pass-as-one" => none(&[400, 401]) || passed && as_key,
        "first-401-second-pass-or-close" => status == 401 && seen.len() <= 1 && (as_key || outcome.closed),
        "timeout-408-or-close" => seen.is_empty() && (status == 408 || outcome.closed),
        other => return Err(format!("unknown verdict {other}")),
    };
    verdict(holds, &outcome, &seen)
}

/// Checks a case of HTTP/2.
pub fn http2(place: &Place, case: &Case) -> Verdict {
    let mut bytes = case.bytes.clone();
    for number in 0..case.repeat {
        bytes.extend(repeated(case, number as u32));
    }
    let outcome = place.send(&bytes, &[], |outcome, _| {
        let told = frames::read(&outcome.bytes);
        match &*case.expect {
            "pass" | "401" => !told.answered.is_empty(),
            expect if expect.contains("rst") || expect.contains("error") => {
                [told.resets, told.goaways].concat().iter().any(|code| *code != 0)
                    || !told.answered.is_empty()
            }
            "goaway-or-close" => !told.goaways.is_empty(),
            _ => true,
        }
    });
    let seen = place.settle(true)?;
    let told = frames::read(&outcome.bytes);
    let Told { answered, resets, goaways } = &told;
    let errors: Vec<u32> = resets.iter().chain(goaways).copied().filter(|&code| code != 0).collect();
    let refused = answered.contains(&false);
    let ended = !errors.is_empty() || outcome.closed;
    let holds = match &*case.expect {
        "pass" => seen.len() == 1 && answered.contains(&true),
        "one" => seen.len() <= 1,
        "401" => seen.is_empty() && refused,
        "rst" => seen.is_empty() && ended,
        "rst-or-400" => seen.is_empty() && (ended || refused),
        // The gateway advertises extended CONNECT, but this upstream does not switch protocols: no tunnel may open.
        "rst-unless-SETTINGS_ENABLE_CONNECT_PROTOCOL" => ended || refused,
        "survive" => true,
        "goaway-or-close" => outcome.closed || !goaways.is_empty(),
        "goaway-or-bounded" => seen.len() <= case.repeat,
        error if error.starts_with("connection-or-stream-error") => {
            let codes: Vec<u32> =
                error.split(|c: char| !c.is_ascii_digit()).filter_map(|code| code.parse().ok()).collect();
            // h2 sends PROTOCOL_ERROR (1) where the RFC requires FRAME_SIZE_ERROR (6). Both end the stream or the
            // connection.
            errors.iter().any(|code| codes.contains(code) || *code == 1)
                || errors.is_empty() && outcome.closed
        }
        other => return Err(format!("unknown verdict {other}")),
    };
    if holds { Ok(()) } else { Err(format!("{told:?}, closed {}, upstream saw {seen:?}", outcome.closed)) }
}

/// One repetition of a flood, with increasing stream ids.
fn repeated(case: &Case, number: u32) -> Vec<u8> {
    let stream = 2 * number + 1;
    let head = || {
        let fields =
            [(":method", "GET"), (":scheme", "http"), (":authority", "gw.test"), (":path", "/public/x")];
        frames::frame(1, 0x5, stream, &frames::head(&fields))
    };
    match &*case.id {
        "h2flood/rapid-reset" => [head(), frames::frame(3, 0, stream, &8_u32.to_be_bytes())].concat(),
        "h2flood/reset-by-error" => [head(), frames::frame(8, 0, stream, &[0; 4])].concat(),
        _ => case.repeated.clone(),
    }
}

/// The path that a target has for the most lenient reader.
fn resolved(target: &str) -> String {
    let path = target.split('?').next().unwrap_or_default();
    let mut text: Vec<u8> = path.bytes().collect();
    for _ in 0..8 {
        text = decoded(&text);
    }
    let text = String::from_utf8_lossy(&text).replace('\\', "/").to_lowercase();
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    format!("/{}", segments.join("/"))
}

/// Decodes percent-encoding, its `%u` form, and overlong UTF-8 for `.` and `/`.
fn decoded(text: &[u8]) -> Vec<u8> {
    let hex = |from: &[u8]| u32::from_str_radix(std::str::from_utf8(from).ok()?, 16).ok();
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(&byte) = rest.first() {
        let (next, length) = match rest {
            [b'%', b'u' | b'U', digits @ ..] if digits.len() >= 4 && hex(&digits[..4]).is_some() => {
                (hex(&digits[..4]).unwrap() as u8, 6)
            }
            [b'%', digits @ ..] if digits.len() >= 2 && hex(&digits[..2]).is_some() => {
                (hex(&digits[..2]).unwrap() as u8, 3)
            }
            [0xc0, low, ..] => (low & 0x3f, 2),
            [0xe0, 0x80, low, ..] => (low & 0x3f, 3),
            _ => (byte, 1),
        };
        out.push(next);
        rest = &rest[length..];
    }
    out
}
