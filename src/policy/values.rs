//! Header values of one answer, written one behind the other into one piece of memory.

use bytes::{BufMut, BytesMut};
use http::HeaderValue;

/// Room for what Tollgate usually says in an answer.
const USUAL: usize = 192;

/// Makes header values that share their memory: one allocation instead of one each.
#[derive(Debug)]
pub struct Values(BytesMut);

impl Default for Values {
    fn default() -> Self {
        Self(BytesMut::with_capacity(USUAL))
    }
}

impl Values {
    /// A value of these parts, which must be visible ASCII; an empty one where they are not.
    pub fn text(&mut self, parts: &[&[u8]]) -> HeaderValue {
        for part in parts {
            self.0.put_slice(part);
        }
        self.take()
    }

    /// A value of what is written.
    pub fn written(&mut self, write: impl FnOnce(&mut BytesMut)) -> HeaderValue {
        write(&mut self.0);
        self.take()
    }

    fn take(&mut self) -> HeaderValue {
        let bytes = self.0.split().freeze();
        HeaderValue::from_maybe_shared(bytes).unwrap_or(HeaderValue::from_static(""))
    }
}

/// A whole number in decimal digits.
pub fn put_number(out: &mut BytesMut, number: u64) {
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A value that hardly comes again: HPACK keeps it out of its table (RFC 7541, section 7.1.3), which is
/// there for those that do. With a table full of request ids each further one is compared with all.
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
}
