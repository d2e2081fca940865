//! Parses `[idempotency]`: how charged requests may be repeated.

use std::time::Duration;

use crate::config::parse::context::{Context, single};
use crate::config::raw;
use crate::snapshot::Idempotency;

/// How long responses are kept, unless the file says otherwise; and the bounds of that.
const KEEP: Duration = Duration::from_secs(24 * 3600);
const MIN_KEEP: Duration = Duration::from_secs(3600);
const MAX_KEEP: Duration = KEEP.saturating_mul(30);
/// Largest body, unless the file says otherwise; and the bounds of that.
const BODY: u64 = 256 * 1024;
const BODY_SIZE: (u64, u64) = (1024, 1024 * 1024);

pub(in crate::config::parse) fn build(context: &mut Context, files: &[raw::File]) -> Option<Idempotency> {
    let raw = single(context, files, "idempotency", |file| file.idempotency.as_ref());
    let keep = context.duration(raw.keep.as_ref(), KEEP);
    if let Some(place) = raw.keep.as_ref().filter(|_| !(MIN_KEEP..=MAX_KEEP).contains(&keep)) {
        context.error(&place.span, "responses are kept for 1h to 30d");
    }
    let max_body = context.size(raw.max_body.as_ref(), BODY, BODY_SIZE);
    files.iter().any(|file| file.idempotency.is_some()).then_some(Idempotency { keep, max_body })
}
