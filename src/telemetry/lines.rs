//! Formats access log lines. Workers pass them to the log writer in batches, because a tracing event per request would
//! cost several times as much.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking};

use crate::policy::outcome::Outcome;
use crate::types::{Credits, KeyId, RequestId, WallTime};

/// The `target` of access log lines.
pub const TARGET: &str = "tollgate::request";
/// Size of a batch in bytes from which on it is written immediately.
const FULL: usize = 16 * 1024;
/// Longest time that a line waits for its batch to fill.
pub const WAIT: Duration = Duration::from_millis(50);

/// A worker's handle to the log writer, made by [`super::logs::Logs::lines`].
#[derive(Clone, Debug)]
pub struct Lines {
    pub(super) writer: NonBlocking,
    pub(super) json: bool,
    pub(super) dropped: Dropped,
}

/// Counts lines that were dropped because the reader of the log was too slow.
#[derive(Clone, Debug)]
pub struct Dropped {
    pub(super) writes: ErrorCounter,
    /// Number of lines in dropped batches, without the first line of each, which `writes` counts.
    pub(super) more: Arc<AtomicUsize>,
}

impl Lines {
    /// The counter of lines that were dropped.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        self.dropped.clone()
    }
}

impl Dropped {
    /// Lines dropped so far.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.writes.dropped_lines() + self.more.load(Ordering::Relaxed)
    }
}

/// The access log entry of one request.
#[derive(Clone, Copy, Debug)]
pub struct LogEntry<'a> {
    /// When the request ended.
    pub at: WallTime,
    /// The route's name; empty if no route matched.
    pub route: &'a str,
    /// The response's status.
    pub status: u16,
    /// The credits charged.
    pub credits: Credits,
    /// `None` if the log is configured as minimal.
    pub details: Option<Details<'a>>,
}

/// Fields that a minimal log leaves out.
#[derive(Clone, Copy, Debug)]
pub struct Details<'a> {
    /// The request's id.
    pub id: RequestId,
    /// The request id that a trusted proxy sent: visible ASCII.
    pub given: Option<&'a [u8]>,
    /// How the request ended.
    pub outcome: Outcome,
    /// The key's id, if the key is known.
    pub key: Option<KeyId>,
    /// Time from the end of the request head to the last byte of the response.
    pub duration: Duration,
    /// The upstream's status, if it responded.
    pub upstream_status: Option<u16>,
    /// The address of the server that the request was sent to last.
    pub server: Option<&'a str>,
}

/// The lines of one worker that are not written yet. Longer than [`FULL`] bytes only by the last line.
#[derive(Debug)]
pub struct Batch {
    lines: Lines,
    text: Vec<u8>,
    count: usize,
    /// The second of the last line, and its formatted date and time.
    second: i64,
    stamp: String,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new(lines: Lines) -> Self {
        Self { lines, text: Vec::new(), count: 0, second: i64::MIN, stamp: String::new() }
    }

    /// Adds a line. True if it is the first of a batch, which the caller must [`Batch::flush`] within [`WAIT`].
    pub fn add(&mut self, entry: &LogEntry<'_>) -> bool {
        let first = self.text.is_empty();
        self.stamp(entry.at);
        if self.lines.json {
            self.json(entry);
        } else {
            self.plain(entry);
        }
        self.count += 1;
        if self.text.len() >= FULL {
            self.flush();
            return false;
        }
        first
    }

    /// Writes the batch.
    pub fn flush(&mut self) {
        if self.text.is_empty() {
            return;
        }
        let before = self.lines.dropped.writes.dropped_lines();
        let _ = self.lines.writer.write_all(&self.text); // never fails: a full queue drops the batch and counts it
        if self.lines.dropped.writes.dropped_lines() > before {
            self.lines.dropped.more.fetch_add(self.count - 1, Ordering::Relaxed);
        }
        self.text.clear();
        self.count = 0;
    }

    fn stamp(&mut self, at: WallTime) {
        let (second, millis) = (at.0.div_euclid(1000), at.0.rem_euclid(1000));
        if second != self.second {
            self.second = second;
            let moment = jiff::Timestamp::from_second(second).unwrap_or_default();
            self.stamp = moment.to_string().trim_end_matches('Z').to_owned();
        }
        self.put(if self.lines.json { b"{\"timestamp\":\"" } else { b"" });
        let digits = [b'.', digit(millis / 100), digit(millis / 10), digit(millis), b'Z'];
        self.text.extend_from_slice(self.stamp.as_bytes());
        self.text.extend_from_slice(&digits);
    }

    /// Formats an entry as a JSON line in tracing's format. Names and ids need no escapes.
    fn json(&mut self, entry: &LogEntry<'_>) {
        self.put(b"\",\"level\":\"INFO\"");
        if let Some(details) = &entry.details {
            self.parts(&[b",\"request_id\":\"", &details.id.text(), b"\""]);
            if let Some(id) = details.given {
                self.put(b",\"proxy_request_id\":\"");
                self.escaped(id);
                self.put(b"\"");
            }
        }
        self.parts(&[b",\"route\":\"", entry.route.as_bytes(), b"\""]);
        if let Some(key) = entry.details.and_then(|details| details.key) {
            self.parts(&[b",\"key\":\"", &key.to_text(), b"\""]);
        }
        let credits = entry.credits.text();
        let credits: [&[u8]; 3] = [b",\"credits\":\"", credits.as_bytes(), b"\""];
        if entry.details.is_none() {
            self.parts(&credits);
        }
        self.put(b",\"status\":");
        self.number(entry.status.into());
        if let Some(details) = &entry.details {
            self.parts(&[b",\"outcome\":\"", details.outcome.code().as_bytes(), b"\""]);
            self.parts(&credits);
        }
        if let Some(details) = &entry.details {
            self.put(b",\"duration_ms\":");
            self.millis(details.duration);
            if let Some(status) = details.upstream_status {
                self.put(b",\"upstream_status\":");
                self.number(status.into());
            }
            if let Some(server) = details.server {
                self.parts(&[b",\"server\":\"", server.as_bytes(), b"\""]);
            }
        }
        self.parts(&[b",\"target\":\"", TARGET.as_bytes(), b"\"}\n"]);
    }

    fn plain(&mut self, entry: &LogEntry<'_>) {
        self.parts(&[b"  INFO ", TARGET.as_bytes(), b":"]);
        if let Some(details) = &entry.details {
            self.parts(&[b" request_id=", &details.id.text()]);
            if let Some(id) = details.given {
                self.put(b" proxy_request_id=\"");
                self.escaped(id);
                self.put(b"\"");
            }
        }
        self.parts(&[b" route=\"", entry.route.as_bytes(), b"\""]);
        if let Some(key) = entry.details.and_then(|details| details.key) {
            self.parts(&[b" key=", &key.to_text()]);
        }
        self.put(b" status=");
        self.number(entry.status.into());
        if let Some(details) = &entry.details {
            self.parts(&[b" outcome=", details.outcome.code().as_bytes()]);
        }
        self.parts(&[b" credits=", entry.credits.text().as_bytes()]);
        if let Some(details) = &entry.details {
            self.put(b" duration_ms=");
            self.millis(details.duration);
            if let Some(status) = details.upstream_status {
                self.put(b" upstream_status=");
                self.number(status.into());
            }
            if let Some(server) = details.server {
                self.parts(&[b" server=", server.as_bytes()]);
            }
        }
        self.put(b"\n");
    }

    fn put(&mut self, text: &[u8]) {
        self.text.extend_from_slice(text);
    }

    fn parts(&mut self, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.put(part));
    }

    /// Writes visible ASCII with the escapes of a quoted string.
    fn escaped(&mut self, text: &[u8]) {
        for &byte in text {
            if matches!(byte, b'"' | b'\\') {
                self.put(b"\\");
            }
            self.text.push(byte);
        }
    }

    fn number(&mut self, number: u64) {
        self.put(itoa::Buffer::new().format(number).as_bytes());
    }

    /// Writes a duration in milliseconds with three decimals.
    fn millis(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.number(micros / 1000);
        let rest = i64::from(u16::try_from(micros % 1000).unwrap_or_default());
        self.put(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The last decimal digit of a non-negative number.
fn digit(number: i64) -> u8 {
    b'0' + u8::try_from(number % 10).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::RequestIdStart;
    use tracing_appender::non_blocking::NonBlockingBuilder;

    fn line(json: bool, details: Option<Details<'_>>) -> String {
        let (writer, _guard) = NonBlockingBuilder::default().finish(std::io::sink());
        let dropped = Dropped { writes: writer.error_counter(), more: Arc::default() };
        let mut batch = Batch::new(Lines { writer, json, dropped });
        let at = WallTime(1_800_000_000_007);
        let credits = "0.25".parse().unwrap();
        assert!(batch.add(&LogEntry { at, route: "people", status: 200, credits, details }));
        String::from_utf8(batch.text.clone()).unwrap()
    }

    #[test]
    fn lines_read_as_tracings_do() {
        let details = Details {
            id: RequestId::new(RequestIdStart::new(1, 1), 2, None),
            given: Some(b"a\"b\\c"),
            outcome: Outcome::Proxied,
            key: Some(KeyId(3)),
            duration: Duration::from_micros(12_034),
            upstream_status: Some(201),
            server: Some("127.0.0.1:9000"),
        };
        let text = line(true, Some(details));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["timestamp"], "2027-01-15T08:00:00.007Z");
        assert_eq!((&json["level"], &json["target"]), (&"INFO".into(), &TARGET.into()));
        assert_eq!(json["request_id"], RequestId::new(RequestIdStart::new(1, 1), 2, None).to_string());
        assert_eq!((&json["proxy_request_id"], &json["outcome"]), (&"a\"b\\c".into(), &"proxied".into()));
        assert_eq!((&json["route"], &json["key"]), (&"people".into(), &KeyId(3).to_string().into()));
        assert_eq!((&json["status"], &json["upstream_status"]), (&200.into(), &201.into()));
        assert_eq!(json["credits"], "0.25");
        assert_eq!(json["duration_ms"].to_string(), "12.034");
        let least: serde_json::Value = serde_json::from_str(&line(true, None)).unwrap();
        assert_eq!(least.as_object().unwrap().len(), 6);
        let plain = line(false, None);
        assert_eq!(
            plain,
            "2027-01-15T08:00:00.007Z  INFO tollgate::request: route=\"people\" status=200 credits=0.25\n"
        );
    }
}
