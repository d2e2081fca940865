//! Decides whether a request is traced, and which trace context its upstream receives (W3C Trace Context).
//!
//! The decision is made from the head of the request, before any span exists. A trusted proxy decides for its requests;
//! what other clients say only connects traces, since they could have every request recorded otherwise.

use http::header::{HeaderMap, HeaderName};

use crate::types::TraceContext;

/// The field with the trace context of a request.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The field with what other tracing systems add; only forwarded with a valid `traceparent`.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// How many of 2^32 requests are traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleRate(u64);

impl SampleRate {
    /// The rate of a share from 0 to 1.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2^32")]
    pub fn of(share: f64) -> Self {
        Self((share.clamp(0.0, 1.0) * 4_294_967_296.0).round() as u64)
    }

    fn picks(self, random: u64) -> bool {
        (random >> 32) < self.0
    }
}

/// The ids of the spans of a traced request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanIds {
    /// The trace.
    pub trace: u128,
    /// The caller's span; `None` if the request begins the trace.
    pub parent: Option<u64>,
    /// The span of the request at the gateway.
    pub server: u64,
    /// The span of the request at the upstream, whose parent is `server`.
    pub client: u64,
}

/// How a request is traced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracing {
    /// The trace context that the upstream receives; `None` if it receives the client's fields as they are.
    pub upstream: Option<UpstreamTrace>,
    /// The ids of the request's spans; `None` if they are not recorded.
    pub spans: Option<SpanIds>,
}

impl Tracing {
    /// Decides how a request is traced. `is_trusted`: its peer is a trusted proxy. `random`: yields random numbers.
    pub fn decide(
        headers: &HeaderMap,
        is_trusted: bool,
        rate: SampleRate,
        mut random: impl FnMut() -> u64,
    ) -> Self {
        let given = given(headers);
        let is_sampled = match given {
            Some(given) if is_trusted => given.sampled,
            _ => rate.picks(random()),
        };
        if let (Some(_), false) = (given, is_sampled) {
            return Self::default();
        }
        let mut id = || random() | 1; // ids are not 0
        let mut trace = || u128::from(id()) << 64 | u128::from(id());
        let trace = given.map_or_else(&mut trace, |given| given.trace);
        let (server, client) = (id(), id());
        let context = TraceContext { trace, span: client, sampled: is_sampled };
        let upstream = Some(UpstreamTrace { context, keeps_state: given.is_some() });
        let spans = SpanIds { trace, parent: given.map(|given| given.span), server, client };
        Self { upstream, spans: is_sampled.then_some(spans) }
    }
}

/// The trace context that an upstream receives in place of the client's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamTrace {
    /// The value of `traceparent`.
    pub context: TraceContext,
    /// True if the client's `tracestate` belongs to it.
    pub keeps_state: bool,
}

/// The context that the client sent. Several are as good as none (section 3.2.2.5).
fn given(headers: &HeaderMap) -> Option<TraceContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    TraceContext::parse(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn decide(given: &[&str], is_trusted: bool, share: f64) -> Tracing {
        let headers = given.iter().map(|value| (TRACEPARENT, value.parse().unwrap())).collect();
        let mut random = fastrand::Rng::with_seed(7);
        Tracing::decide(&headers, is_trusted, SampleRate::of(share), || random.u64(..))
    }

    #[test]
    fn a_trusted_proxy_decides_and_a_client_only_connects() {
        let unsampled = GIVEN.replace("-01", "-00");
        for (given, is_trusted, share, recorded) in [
            (vec![GIVEN], true, 0.0, true),
            (vec![&*unsampled], true, 1.0, false),
            (vec![GIVEN], false, 0.0, false),
            (vec![&*unsampled], false, 1.0, true),
            (vec![], false, 1.0, true),
            (vec![], true, 0.0, false),
            (vec![GIVEN, GIVEN], true, 0.0, false),
        ] {
            let tracing = decide(&given, is_trusted, share);
            assert_eq!(tracing.spans.is_some(), recorded, "{given:?} {is_trusted} {share}");
            let sent = tracing.upstream;
            match given.as_slice() {
                [_] if recorded => {
                    let (sent, given) = (sent.unwrap(), TraceContext::parse(given[0].as_bytes()).unwrap());
                    assert_eq!((sent.context.trace, sent.keeps_state), (given.trace, true));
                    assert!(sent.context.span != given.span && sent.context.sampled);
                }
                [_] => assert_eq!(sent, None, "the client's context is forwarded as it is"),
                _ => {
                    let sent = sent.unwrap();
                    assert_eq!((sent.context.sampled, sent.keeps_state), (recorded, false));
                }
            }
        }
    }

    #[test]
    fn the_share_of_traced_requests_is_the_rate() {
        let mut random = fastrand::Rng::with_seed(1);
        let rate = SampleRate::of(0.01);
        let picked = (0..1_000_000).filter(|_| rate.picks(random.u64(..))).count();
        assert!((9_500..10_500).contains(&picked), "{picked}");
        assert!(!SampleRate::of(0.0).picks(0) && SampleRate::of(1.0).picks(u64::MAX));
    }
}
