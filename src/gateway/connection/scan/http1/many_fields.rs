//! Withholds a head with more fields than hyper parses by default, until a parser that accepts more fields reads it.
//!
//! If hyper is configured to accept more fields, it allocates larger tables for every request. So this is done
//! only on a connection on which such a head arrives: the head is withheld, hyper's state is dropped when it is
//! done with the requests before, and a new parser reads the head from its start.

use bytes::{Buf, Bytes, BytesMut};

/// hyper's default limit. A head is withheld once it has this many whole fields, since one more may follow.
pub(super) const USUAL_FIELDS: usize = 100;

/// The bytes of a head with many fields, or of one that may have many: at most what hyper accepts of a head, and
/// what arrived with its last bytes.
#[derive(Debug, Default)]
pub(in crate::gateway::connection) struct ManyFields {
    /// The current parser accepts many fields.
    is_supported: bool,
    /// The part of the arriving head that the parser already has.
    delivered: BytesMut,
    /// The withheld head, and what arrived after it.
    withheld: Bytes,
    /// How many of the withheld bytes the parser already has.
    delivered_before: usize,
}

impl ManyFields {
    /// True if a withheld head waits for a parser that accepts many fields.
    pub(super) fn is_waiting(&self) -> bool {
        !self.is_supported && !self.withheld.is_empty()
    }

    /// Notes that a new parser starts. `is_supported`: it accepts many fields.
    pub(in crate::gateway::connection) fn start_parser(&mut self, is_supported: bool) {
        self.is_supported = is_supported;
    }

    /// Stops withholding heads. Withheld bytes are read by the next reader, such as a tunnel.
    pub(super) fn release(&mut self) {
        if self.is_waiting() {
            self.withheld.advance(self.delivered_before);
        }
        (self.is_supported, self.delivered) = (true, BytesMut::new());
    }

    /// Takes up to `most` withheld bytes, which are read before any from the socket.
    pub(in crate::gateway::connection) fn take(&mut self, most: usize) -> Bytes {
        self.withheld.split_to(most.min(self.withheld.len()))
    }

    /// Decides how many of the bytes that arrived the parser may read now, and returns that number. `in_head`:
    /// how many of the last bytes, delivered ones included, belong to a head that is incomplete or has many
    /// fields. `many`: it has many fields.
    pub(super) fn bytes_arrived(&mut self, bytes: &[u8], in_head: usize, many: bool) -> usize {
        if self.is_supported {
            return bytes.len();
        }
        if in_head <= bytes.len() {
            self.delivered = BytesMut::new(); // these bytes belong to an earlier head
        }
        let (before, head) = bytes.split_at(bytes.len() - in_head.min(bytes.len()));
        let delivered_before = self.delivered.len();
        if !head.is_empty() {
            self.delivered.extend_from_slice(head);
        }
        if !many {
            return bytes.len();
        }
        self.withheld = std::mem::take(&mut self.delivered).freeze();
        self.delivered_before = delivered_before;
        before.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::HeadScanner;
    use super::*;

    proptest! {
        /// However the bytes are split, hyper gets all of them in order: the first parser those before the first
        /// head with many fields, and at most [`USUAL_FIELDS`] whole fields of it; the second parser that head
        /// from its start, and all that follows.
        #[test]
        fn a_head_with_many_fields_is_read_from_its_start(
            cuts in prop::collection::vec(1_usize..200, 0..40),
            fields in 90_usize..120,
        ) {
            let before = "GET / HTTP/1.1\r\na: b\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
            let head = format!("\r\nGET /x HTTP/1.1\r\n{}\r\n", "c: d\r\n".repeat(fields));
            let all = format!("{before}{head}{before}").into_bytes();
            let (mut scanner, mut rest, mut first, mut second) = (HeadScanner::new(1 << 20), &all[..], Vec::new(), Vec::new());
            let mut cuts = cuts.into_iter();
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(cuts.next().unwrap_or(300).min(rest.len()));
                let now = scanner.scan(piece).unwrap();
                (if second.is_empty() { &mut first } else { &mut second }).extend_from_slice(&piece[..now]);
                if scanner.withholds_head() {
                    prop_assert!(second.is_empty());
                    scanner.many_fields().start_parser(true);
                    while let Some(bytes) = Some(scanner.many_fields().take(7)).filter(|bytes| !bytes.is_empty()) {
                        second.extend_from_slice(&bytes);
                    }
                }
                rest = more;
            }
            if fields < USUAL_FIELDS {
                prop_assert_eq!((first, second), (all, Vec::new()));
            } else {
                prop_assert!(first.starts_with(before.as_bytes()));
                let begun = &first[before.len()..];
                prop_assert!(head.as_bytes().starts_with(begun));
                prop_assert!(begun.iter().filter(|&&byte| byte == b':').count() <= USUAL_FIELDS);
                prop_assert_eq!(second, &all[before.len()..]);
            }
        }
    }
}
