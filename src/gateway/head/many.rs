//! Heads of more fields than hyper parses by default.
//!
//! Told to take more, hyper allocates its tables for every request. So it is told only on a connection where
//! such a head comes: the head is kept from hyper, whose state goes once it has answered what came before,
//! and a new parser reads the head from its start.

use bytes::{Buf, Bytes, BytesMut};

/// hyper's default. A head in which as many are whole is kept, since one more may have begun.
pub(super) const MAX_USUAL: usize = 100;

/// The bytes of such a head, and of one that may become one: at most what hyper takes of a head, and what
/// came with its last bytes.
#[derive(Debug, Default)]
pub(in crate::gateway) struct ManyFields {
    /// The parser takes them.
    taken: bool,
    /// The head that is arriving, as far as the parser has it.
    begun: BytesMut,
    /// The head that is kept, and what came behind it.
    kept: Bytes,
    /// So many of its bytes the parser had before it was kept.
    had: usize,
}

impl ManyFields {
    /// Whether a head waits for a parser that takes it.
    pub(super) fn is_waiting(&self) -> bool {
        !self.taken && !self.kept.is_empty()
    }

    /// A parser begins, which takes them or not.
    pub(in crate::gateway) fn set_taken(&mut self, taken: bool) {
        self.taken = taken;
    }

    /// No further head comes: what is kept belongs to whoever reads on behind the parser.
    pub(super) fn release(&mut self) {
        if self.is_waiting() {
            self.kept.advance(self.had);
        }
        (self.taken, self.begun) = (true, BytesMut::new());
    }

    /// What is to be read before anything else, up to `most` bytes.
    pub(in crate::gateway) fn take(&mut self, most: usize) -> Bytes {
        self.kept.split_to(most.min(self.kept.len()))
    }

    /// Bytes arrived. Their last `in_head`, with what was handed on of them before, are of a head that is not
    /// whole, or of one with `many` fields. Says how many the parser is to have now.
    pub(super) fn arrived(&mut self, bytes: &[u8], in_head: usize, many: bool) -> usize {
        if self.taken {
            return bytes.len();
        }
        if in_head <= bytes.len() {
            self.begun = BytesMut::new(); // it is another head's
        }
        let (before, head) = bytes.split_at(bytes.len() - in_head.min(bytes.len()));
        let had = self.begun.len();
        if !head.is_empty() {
            self.begun.extend_from_slice(head);
        }
        if !many {
            return bytes.len();
        }
        (self.kept, self.had) = (std::mem::take(&mut self.begun).freeze(), had);
        before.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::HeadScanner;
    use super::*;

    proptest! {
        /// Whatever the pieces, hyper has all bytes in order: those before the first head with many fields
        /// from the first parser, which gets no more than [`MAX_USUAL`] whole fields of that head, and the head
        /// and all that follows from the second.
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
                let now = scanner.walk(piece).unwrap();
                (if second.is_empty() { &mut first } else { &mut second }).extend_from_slice(&piece[..now]);
                if scanner.keeps_head() {
                    prop_assert!(second.is_empty());
                    scanner.many_fields().set_taken(true);
                    while let Some(bytes) = Some(scanner.many_fields().take(7)).filter(|bytes| !bytes.is_empty()) {
                        second.extend_from_slice(&bytes);
                    }
                }
                rest = more;
            }
            if fields < MAX_USUAL {
                prop_assert_eq!((first, second), (all, Vec::new()));
            } else {
                prop_assert!(first.starts_with(before.as_bytes()));
                let begun = &first[before.len()..];
                prop_assert!(head.as_bytes().starts_with(begun));
                prop_assert!(begun.iter().filter(|&&byte| byte == b':').count() <= MAX_USUAL);
                prop_assert_eq!(second, &all[before.len()..]);
            }
        }
    }
}
