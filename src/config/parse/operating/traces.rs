//! Parses `[traces]`: which requests are traced, and where their spans are sent.

use http::Uri;

use crate::config::parse::context::{Context, single};
use crate::config::raw::{self, At, Place};
use crate::policy::forward::trace::SampleRate;
use crate::snapshot::TraceSettings;

/// The path of a collector that takes spans (OTLP/HTTP).
const PATH: &str = "/v1/traces";
/// The share of requests that are traced, unless the file says otherwise.
const SAMPLE: f64 = 0.01;

pub(in crate::config::parse) fn build(context: &mut Context, files: &[raw::File]) -> Option<TraceSettings> {
    let raw = single(context, files, "traces", |file| file.traces.as_ref());
    let set_headers = context.set_headers(&raw.set_headers);
    let sample = raw.sample.as_ref().and_then(|sample| share(context, sample)).unwrap_or(SAMPLE);
    let Some(otlp) = &raw.otlp else {
        let others = raw.set_headers.keys().map(|name| &name.span);
        if let Some(place) = raw.sample.as_ref().map(|sample| &sample.span).or(others.min_by_key(start)) {
            let help = "add the URL of a collector, such as otlp = \"http://127.0.0.1:4318\"";
            context.error_with(place, "[traces] has no `otlp`, so there are no traces", help);
        }
        return None;
    };
    let otlp = collector(context, otlp)?;
    Some(TraceSettings { otlp, set_headers, sample: SampleRate::of(sample) })
}

fn start(place: &&Place) -> usize {
    place.0.start
}

fn share(context: &mut Context, sample: &At<raw::Sample>) -> Option<f64> {
    let text = sample.value.0.strip_suffix('%');
    let is_plain = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let share = text.filter(is_plain).and_then(|number| number.parse::<f64>().ok());
    let share = share
        .filter(|share| *share <= 100.0)
        .ok_or("a share looks like \"1%\" or \"0.1%\", at most \"100%\"");
    context.check(&sample.span, share).map(|share| share / 100.0)
}

/// The URL that takes spans: that of the collector with [`PATH`] added, unless it ends with it.
fn collector(context: &mut Context, url: &At<String>) -> Option<Uri> {
    let parsed = url.value.parse::<Uri>().ok().filter(|uri| {
        let is_plain = !uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() && is_plain
    });
    let Some(uri) = parsed else {
        let help = "tokens belong into `set_headers`";
        context.error_with(&url.span, "a collector looks like \"http://127.0.0.1:4318\"", help);
        return None;
    };
    let base = uri.path().trim_end_matches('/');
    let path = if base.ends_with(PATH) { base.to_owned() } else { format!("{base}{PATH}") };
    let mut parts = uri.into_parts();
    parts.path_and_query = Some(context.check(&url.span, path.parse())?);
    context.check(&url.span, Uri::from_parts(parts))
}
