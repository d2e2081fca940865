//! Checks the signatures of Stripe's messages (`Stripe-Signature`, scheme `v1`).

use aws_lc_rs::hmac;

use crate::types::WallTime;

/// Longest difference between the time of a message and now, in seconds, as Stripe recommends.
const MAX_AGE: i64 = 5 * 60;
/// Most signatures of a message that are compared. There are several while the secret is being replaced.
const MAX_SIGNATURES: usize = 8;

/// True if one of the signatures is by the secret, and the message is not old. `header`: `t=SECONDS,v1=HEX,…`.
pub(super) fn is_signed(secret: &str, header: &str, body: &[u8], now: WallTime) -> bool {
    let fields = || header.split(',').filter_map(|field| field.trim().split_once('='));
    let mut times = fields().filter(|(name, _)| *name == "t").map(|(_, value)| value);
    let (Some(time), None) = (times.next(), times.next()) else { return false };
    let Ok(seconds) = time.parse::<i64>() else { return false };
    if (now.0 / 1000).abs_diff(seconds) > MAX_AGE.unsigned_abs() {
        return false;
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let message = [time.as_bytes(), b".", body].concat();
    let signatures = fields().filter(|(name, _)| *name == "v1").take(MAX_SIGNATURES);
    let mut decoded = signatures.filter_map(|(_, value)| hex(value));
    decoded.any(|signature| hmac::verify(&key, &message, &signature).is_ok())
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Signs with OpenSSL's command line: `printf %s '1700000000.{}' | openssl dgst -sha256 -hmac whsec_test`.
    const SIGNED: &str = "35495024f4ef3f94e5a93e22221544c4b75e9a42300cd965ab81cb85cd994e91";

    #[test]
    fn only_fresh_messages_that_are_signed_are_taken() {
        let now = WallTime(1_700_000_000_000);
        let later = |seconds: i64| WallTime(now.0 + seconds * 1000);
        let header = format!("t=1700000000,v1={SIGNED},v0=abc");
        assert!(is_signed("whsec_test", &header, b"{}", now));
        assert!(is_signed("whsec_test", &header, b"{}", later(300)));
        assert!(!is_signed("whsec_test", &header, b"{}", later(301)), "too old");
        assert!(!is_signed("whsec_test", &header, b"{}", later(-301)), "from the future");
        assert!(!is_signed("whsec_other", &header, b"{}", now));
        assert!(!is_signed("whsec_test", &header, b"{ }", now));
        let other = "0".repeat(64);
        assert!(is_signed("whsec_test", &format!("t=1700000000, v1={other}, v1={SIGNED}"), b"{}", now));
        for wrong in [
            String::new(),
            format!("v1={SIGNED}"),
            "t=1700000000".to_owned(),
            format!("t=1700000000,v0={SIGNED}"),
            format!("t=1700000000,t=1700000001,v1={SIGNED}"),
            format!("t=1700000001,v1={SIGNED}"),
            format!("t=1700000000,v1={}", &SIGNED[1..]),
            format!("t=1700000000,v1={SIGNED}0"),
            format!("t=x,v1={SIGNED}"),
        ] {
            assert!(!is_signed("whsec_test", &wrong, b"{}", now), "{wrong}");
        }
    }
}
