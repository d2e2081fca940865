//! Signs messages, and checks signatures, as Standard Webhooks 1.0.0 says.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The prefix of secrets.
const PREFIX: &str = "whsec_";
/// Length of a generated secret, in bytes.
pub const SECRET: usize = 32;
/// Lengths that Standard Webhooks allows for a secret, in bytes.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// Most signatures of a message that are compared.
const MAX_SIGNATURES: usize = 10;

/// A secret from random bytes, as `whsec_` and base64.
#[must_use]
pub fn secret(random: &[u8; SECRET]) -> String {
    format!("{PREFIX}{}", STANDARD.encode(random))
}

/// The bytes of a secret. `None` if the text is no secret.
#[must_use]
pub fn bytes_of(secret: &str) -> Option<Vec<u8>> {
    let bytes = STANDARD.decode(secret.strip_prefix(PREFIX)?).ok()?;
    LENGTHS.contains(&bytes.len()).then_some(bytes)
}

/// The value of `webhook-signature`: a signature by each secret. `timestamp`: seconds since the Unix epoch.
pub fn sign<'a>(secrets: impl Iterator<Item = &'a str>, id: &str, timestamp: i64, body: &str) -> String {
    let signed = format!("{id}.{timestamp}.{body}");
    let signatures = secrets.filter_map(bytes_of).map(|secret| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        format!("v1,{}", STANDARD.encode(hmac::sign(&key, signed.as_bytes())))
    });
    signatures.collect::<Vec<_>>().join(" ")
}

/// Checks a message: true if one of its first [`MAX_SIGNATURES`] signatures is by the secret. `signatures`: the value of
/// `webhook-signature`.
#[must_use]
pub fn is_signed(secret: &[u8], (id, timestamp): (&str, &str), body: &[u8], signatures: &str) -> bool {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        context.update(part);
    }
    let expected = context.sign();
    let signatures = signatures.split(' ').filter_map(|signature| signature.strip_prefix("v1,"));
    signatures.take(MAX_SIGNATURES).any(|signature| {
        let signature = STANDARD.decode(signature);
        signature.is_ok_and(|it| verify_slices_are_equal(expected.as_ref(), &it).is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Standard Webhooks' reference libraries.
    #[test]
    fn the_published_example_is_signed_alike() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "{\"test\": 2432232314}");
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign([secret].into_iter(), id, 1_614_265_330, body), expected);
        let both = sign([secret, secret].into_iter(), id, 1_614_265_330, body);
        assert_eq!(both, format!("{expected} {expected}"));
        let bytes = bytes_of(secret).unwrap();
        let is_signed = |id, time, body: &str, by: &str| is_signed(&bytes, (id, time), body.as_bytes(), by);
        assert!(is_signed(id, "1614265330", body, expected));
        assert!(is_signed(id, "1614265330", body, &format!("v1,AAAA v1a,x {expected}")));
        for wrong in ["", "v1,", "v1,!", "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", &expected[3..]] {
            assert!(!is_signed(id, "1614265330", body, wrong), "{wrong}");
        }
        assert!(!is_signed(id, "1614265331", body, expected));
        assert!(!is_signed("msg", "1614265330", body, expected));
        assert!(!is_signed(id, "1614265330", "{}", expected));
        assert_eq!(bytes_of("whsec_c2hvcnQ="), None);
        assert_eq!(bytes_of(&super::secret(&[7; SECRET])).unwrap(), [7; SECRET]);
    }
}
