//! Exports the spans of traced requests to a collector (OTLP over HTTP).

mod spans;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::Full;

use super::Control;
use super::http_client::{HttpClient, destination};
use crate::snapshot::TraceSettings;
use crate::telemetry::traces::TracedRequest;
use crate::types::Repeats;

/// How often spans are exported.
const EVERY: Duration = Duration::from_secs(1);
/// Most requests whose spans are in one export.
const MAX_BATCH: usize = 512;
/// Longest time of an attempt.
const MAX_TIME: Duration = Duration::from_secs(10);
/// Most attempts to export a batch; then it is dropped.
const MAX_ATTEMPTS: u32 = 5;
/// Pause after the first attempt that failed. Each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest time that a gateway that stops tries to export its last spans.
const LAST: Duration = Duration::from_secs(2);
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// Why an attempt failed.
struct Failure {
    why: String,
    may_retry: bool,
}

impl Control {
    /// Exports spans until the task is aborted.
    pub async fn export_traces(self: Arc<Self>) {
        let (mut client, mut failures) = (None, Repeats::default());
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.stats.traces.fill() => {}
            }
            let mut waiting = self.stats.traces.take();
            while !waiting.is_empty() {
                let rest = waiting.split_off(waiting.len().min(MAX_BATCH));
                let batch = std::mem::replace(&mut waiting, rest);
                let client = client.get_or_insert_with(HttpClient::new);
                let Err(why) = self.export_spans(client, &batch).await else { continue };
                if let Some(more) = failures.should_log(self.clock.now()) {
                    tracing::warn!(requests = batch.len(), more, why, "spans were dropped");
                }
            }
        }
    }

    /// Exports the spans that still wait when the gateway stops, with one attempt for each batch.
    pub async fn export_last_traces(&self) {
        let waiting = self.stats.traces.take();
        let Some(settings) = self.snapshot().settings.traces.clone().filter(|_| !waiting.is_empty()) else {
            return;
        };
        let client = HttpClient::new();
        let all = async {
            for batch in waiting.chunks(MAX_BATCH) {
                let result = attempt(&client, &settings, spans::encode(batch).into()).await;
                self.count(batch, result.is_ok());
            }
        };
        let _ = tokio::time::timeout(LAST, all).await; // what is left is lost
    }

    /// Exports a batch, with several attempts. Each uses the settings in force then.
    ///
    /// # Errors
    /// Why the batch was dropped.
    async fn export_spans(&self, client: &HttpClient, batch: &[TracedRequest]) -> Result<(), String> {
        let body = Bytes::from(spans::encode(batch));
        let mut pause = FIRST_PAUSE;
        for attempts in 1.. {
            let Some(settings) = self.snapshot().settings.traces.clone() else {
                break; // a reload switched traces off
            };
            match attempt(client, &settings, body.clone()).await {
                Ok(()) => {
                    self.count(batch, true);
                    return Ok(());
                }
                Err(failure) if failure.may_retry && attempts < MAX_ATTEMPTS => {
                    tracing::debug!(why = failure.why, attempts, "spans could not be exported; trying again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(failure) => {
                    self.count(batch, false);
                    return Err(failure.why);
                }
            }
        }
        self.count(batch, false);
        Ok(())
    }

    fn count(&self, batch: &[TracedRequest], is_exported: bool) {
        let traces = &self.stats.traces;
        let counter = if is_exported { &traces.exported } else { &traces.dropped };
        counter.fetch_add(batch.len() as u64, Ordering::Relaxed);
    }
}

async fn attempt(client: &HttpClient, settings: &TraceSettings, body: Bytes) -> Result<(), Failure> {
    let failed = |why| Failure { why, may_retry: true };
    let result = tokio::time::timeout(MAX_TIME, send(client, settings, body)).await;
    let result = result.unwrap_or_else(|_| Err(format!("no response within {} s", MAX_TIME.as_secs())));
    let status = result.map_err(failed)?;
    if status.is_success() {
        return Ok(());
    }
    // OTLP 1.x, "Failures": only these may be sent again.
    let may_retry = matches!(status.as_u16(), 429 | 502 | 503 | 504);
    Err(Failure { why: format!("the collector's response was {}", status.as_u16()), may_retry })
}

async fn send(client: &HttpClient, settings: &TraceSettings, body: Bytes) -> Result<StatusCode, String> {
    let (host, port, _) = destination(&settings.otlp);
    let found = tokio::net::lookup_host((host, port)).await;
    let address = found.map_err(|error| format!("the name is not resolved: {error}"))?.next();
    let address = address.ok_or("the collector's name has no address")?;
    let mut request =
        Request::post(&settings.otlp).body(Full::new(body)).map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    headers.extend(settings.set_headers.iter().cloned());
    headers.insert(CONTENT_TYPE, PROTOBUF);
    Ok(client.send(address, request).await?.head.status)
}
