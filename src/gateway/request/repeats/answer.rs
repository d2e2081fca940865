//! Encodes the response that repeated requests get.

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::policy::limit::take_array;
use crate::types::Credits;

/// The response to the first request with an idempotency key.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::gateway::request) struct Answer {
    pub(in crate::gateway::request) status: StatusCode,
    pub(in crate::gateway::request) headers: HeaderMap,
    pub(in crate::gateway::request) body: Bytes,
    /// What the first request was charged; `None` while that is not known, because it opened a job.
    pub(in crate::gateway::request) charged: Option<Credits>,
}

impl Answer {
    /// The answer as bytes: status, charge, number of header fields, the fields, each with its lengths, then the body.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.body.len() + 512);
        bytes.extend(self.status.as_u16().to_le_bytes());
        bytes.extend(self.charged.map_or(i64::MIN, Credits::millionths).to_le_bytes());
        let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes(); // heads are far shorter
        bytes.extend(length(self.headers.len()));
        for (name, value) in &self.headers {
            for part in [name.as_str().as_bytes(), value.as_bytes()] {
                bytes.extend(length(part.len()));
                bytes.extend(part);
            }
        }
        bytes.extend(&self.body);
        bytes
    }

    /// Reads [`Answer::encode`]; `None` if these bytes are no answer.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        let status = StatusCode::from_u16(u16::from_le_bytes(take_array(bytes)?)).ok()?;
        let charged = i64::from_le_bytes(take_array(bytes)?);
        let fields = u32::from_le_bytes(take_array(bytes)?);
        let mut headers = HeaderMap::new();
        for _ in 0..fields {
            let name = HeaderName::from_bytes(take(bytes)?).ok()?;
            headers.append(name, HeaderValue::from_bytes(take(bytes)?).ok()?);
        }
        let charged = (charged != i64::MIN).then(|| Credits::from_millionths(charged));
        Some(Self { status, headers, body: Bytes::copy_from_slice(bytes), charged })
    }
}

/// Takes a length and that many bytes.
fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(u32::from_le_bytes(take_array(bytes)?)).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn answers_survive_bytes(
            status in 200_u16..600,
            fields in prop::collection::vec(("[a-z]{1,8}", "[ -~]{0,12}"), 0..6),
            body: Vec<u8>,
            charged in prop::option::of(0_i64..1_000_000),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in &fields {
                let name: HeaderName = name.parse().unwrap();
                headers.append(name, HeaderValue::from_str(value).unwrap());
            }
            let (status, charged) = (StatusCode::from_u16(status).unwrap(), charged.map(Credits::from_millionths));
            let answer = Answer { status, headers, body: body.into(), charged };
            prop_assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = Answer::decode(&bytes);
        }
    }
}
