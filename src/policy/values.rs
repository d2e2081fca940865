//! Builds the header values of one response in one shared buffer.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderValue};

/// Initial capacity in bytes: enough for Tollgate's own header values in a usual response.
const USUAL: usize = 192;

/// Builds header values that share one buffer, so that they need one allocation instead of one each.
#[derive(Debug)]
pub struct Values(BytesMut);

impl Default for Values {
    fn default() -> Self {
        Self(BytesMut::with_capacity(USUAL))
    }
}

impl Values {
    /// Builds a value from these parts. Returns an empty value if a part contains a byte that field values
    /// must not contain.
    pub fn text(&mut self, parts: &[&[u8]]) -> HeaderValue {
        for part in parts {
            self.0.put_slice(part);
        }
        self.take()
    }

    /// Builds a value from the bytes that `write` appends.
    pub fn written(&mut self, write: impl FnOnce(&mut BytesMut)) -> HeaderValue {
        write(&mut self.0);
        self.take()
    }

    fn take(&mut self) -> HeaderValue {
        let bytes = self.0.split().freeze();
        HeaderValue::from_maybe_shared(bytes).unwrap_or(HeaderValue::from_static(""))
    }
}

/// Copies header values into one new buffer. The HPACK table of a connection may keep a value as long as the
/// connection lasts; a value that is a slice of an upstream's read buffer would keep all 8 KiB of it.
pub fn own(headers: &mut HeaderMap) {
    let length = headers.values().map(HeaderValue::len).sum();
    let mut memory = Values(BytesMut::with_capacity(length));
    for value in headers.values_mut() {
        let sensitive = value.is_sensitive();
        *value = memory.text(&[value.as_bytes()]);
        value.set_sensitive(sensitive);
    }
}

/// Appends a whole number in decimal digits.
pub fn put_number(out: &mut BytesMut, number: u64) {
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Marks a value that rarely repeats, so that HPACK never indexes it (RFC 7541, section 7.1.3). The table is
/// for values that repeat; in a table full of request ids, each new id would be compared with all of them.
#[must_use]
pub fn once(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_apart() {
        let mut values = Values::default();
        let first = values.text(&[b"a", b"=1"]);
        let second = values.written(|out| put_number(out, 42));
        let long = values.text(&[&[b'x'; 2 * USUAL]]);
        assert_eq!((first.as_bytes(), second.as_bytes(), long.len()), (&b"a=1"[..], &b"42"[..], 2 * USUAL));
        assert_eq!(values.text(&[b"a\r\nb"]), "");
    }

    #[test]
    fn values_of_their_own_are_the_same_ones() {
        let long = "x".repeat(300);
        let mut headers = HeaderMap::new();
        headers.append("a", HeaderValue::from_static("1"));
        headers.append("a", HeaderValue::from_bytes(b"\xe9\t").unwrap());
        headers.append("b", once(HeaderValue::from_str(&long).unwrap()));
        let before = headers.clone();
        own(&mut headers);
        assert_eq!(headers, before);
        assert!(headers["b"].is_sensitive());
    }
}
