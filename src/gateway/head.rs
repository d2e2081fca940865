//! A second pair of eyes on the bytes that hyper parses.
//!
//! hyper drops a target's `#fragment`, prefers one of two contradicting lengths, and takes lines
//! that end in a bare LF. This scanner walks the same bytes, finds the same heads, and says what
//! hyper cannot: the gateway refuses a request whose head it objects to, and one that it did not
//! see. It copies the bytes of the line it is in, and of a head that does not arrive whole.

mod fault;
mod many;

use std::collections::VecDeque;

use memchr::{memchr, memchr2};

use super::chunk::{are_extensions, trim_start};
pub(super) use fault::HeadFault;
pub(super) use many::ManyFields;

/// Longest line that is looked at; hyper refuses a head of that size before the gateway sees it.
const MAX_LINE: usize = 1024 * 1024 + 64;
/// Most fields of a head.
pub(super) const MAX_FIELDS: usize = 200;
/// Most heads that are read ahead of the one being served (pipelining); then reading stops there.
const MAX_AHEAD: usize = 1024;

/// What was seen of a head.
pub(super) type Seen = Result<(), HeadFault>;

/// Walks the bytes of one HTTP/1.1 connection.
#[derive(Debug)]
pub(super) struct HeadScanner {
    /// Most bytes of a head.
    most: usize,
    state: State,
    line: Vec<u8>,
    head: Head,
    seen: VecDeque<Seen>,
    /// A body was found malformed, which nobody was told yet.
    bad_body: bool,
    many_fields: ManyFields,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before or within the request line; empty lines before it are skipped.
    Start,
    /// Within the header section.
    Fields,
    /// In a body of known length.
    Body(u64),
    /// At a chunk's size line.
    ChunkSize,
    /// In a chunk's data and the CRLF behind it.
    Chunk(u64),
    /// In the trailer section.
    Trailers,
    /// Nothing more is to be judged: an upgrade, or bytes that hyper refuses as well.
    Blind,
}

#[derive(Clone, Copy, Debug, Default)]
struct Head {
    bytes: usize,
    fields: usize,
    length: Option<u64>,
    chunked: bool,
    fault: Option<HeadFault>,
}

impl Head {
    fn object(&mut self, fault: HeadFault) {
        self.fault.get_or_insert(fault);
    }
}

impl HeadScanner {
    /// Takes heads of at most so many bytes.
    pub(super) fn new(most: usize) -> Self {
        let (line, seen) = (Vec::new(), VecDeque::new());
        let (head, many_fields) = (Head::default(), ManyFields::default());
        Self { most, state: State::Start, line, head, seen, bad_body: false, many_fields }
    }

    /// Walks bytes as they arrive, in pieces of any size. Says how many of them hyper is to have now: all,
    /// unless they are of a head with [`ManyFields`].
    ///
    /// # Errors
    /// Where the body of a request is malformed that is being served already.
    pub(super) fn walk(&mut self, came: &[u8]) -> Result<usize, HeadFault> {
        let (mut bytes, mut many) = (came, None);
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Blind => break,
                State::Body(left) => self.skip(bytes, left, State::Body, State::Start),
                State::Chunk(left) => self.skip(bytes, left, State::Chunk, State::ChunkSize),
                _ => self.take_line(bytes),
            };
            if self.head.fields == many::MAX_USUAL {
                many.get_or_insert(self.head.bytes + bytes.len());
            }
        }
        if std::mem::take(&mut self.bad_body) {
            // The last head that was seen is the one before this body.
            match self.seen.back_mut() {
                Some(seen) => *seen = Err(HeadFault::Chunk),
                None => return Err(HeadFault::Chunk),
            }
        }
        let in_head = match self.state {
            State::Start | State::Fields => self.head.bytes + self.line.len(),
            _ => 0,
        };
        Ok(self.many_fields.arrived(came, many.unwrap_or(in_head), many.is_some()))
    }

    /// Whether a head is kept that needs another parser.
    pub(super) fn keeps_head(&self) -> bool {
        self.many_fields.is_waiting()
    }

    /// The head that is kept from hyper.
    pub(super) fn many_fields(&mut self) -> &mut ManyFields {
        &mut self.many_fields
    }

    /// What was seen of the next head that hyper hands out; `None` if it saw one that this did not.
    pub(super) fn next(&mut self) -> Option<Seen> {
        self.seen.pop_front()
    }

    /// Stops judging: the connection speaks another protocol from here on.
    pub(super) fn blind(&mut self) {
        self.state = State::Blind;
        self.line = Vec::new();
        self.many_fields.release();
    }

    /// Whether a head or a part of one was read that is not served yet.
    #[must_use]
    pub(super) fn is_within_head(&self) -> bool {
        !self.line.is_empty() || self.state == State::Fields
    }

    /// Whether all that was read is served, and the next head has not begun.
    #[must_use]
    pub(super) fn is_between(&self) -> bool {
        self.state == State::Start && self.line.is_empty() && self.seen.is_empty()
    }

    fn skip<'a>(&mut self, bytes: &'a [u8], left: u64, same: fn(u64) -> State, next: State) -> &'a [u8] {
        let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - here as u64;
        self.state = if left == 0 { next } else { same(left) };
        &bytes[here..]
    }

    fn take_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(end) = memchr(b'\n', bytes) else {
            self.line.extend_from_slice(bytes);
            if self.line.len() > MAX_LINE {
                self.blind();
            }
            return &[];
        };
        if self.line.is_empty() {
            self.judge_line(&bytes[..=end]);
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(&bytes[..=end]);
            self.judge_line(&line);
            line.clear();
            self.line = line;
        }
        &bytes[end + 1..]
    }

    /// Judges a line that ends in LF.
    fn judge_line(&mut self, line: &[u8]) {
        if matches!(self.state, State::Start | State::Fields) {
            self.head.bytes += line.len();
        }
        let (line, bare) = match line {
            [text @ .., b'\r', b'\n'] => (text, false),
            [text @ .., b'\n'] => (text, true),
            text => (text, true),
        };
        match self.state {
            State::Start if line.is_empty() => {
                if bare {
                    self.head.object(HeadFault::Line);
                }
            }
            State::Start => {
                self.request_line(line, bare);
                self.state = State::Fields;
            }
            State::Fields if line.is_empty() => {
                if bare {
                    self.head.object(HeadFault::Line);
                }
                self.end_head();
            }
            State::Fields => self.field(line, bare),
            State::ChunkSize => self.chunk_size(line, bare),
            State::Trailers => self.trailer(line, bare),
            State::Body(_) | State::Chunk(_) | State::Blind => {}
        }
    }

    fn request_line(&mut self, line: &[u8], bare: bool) {
        if bare {
            self.head.object(HeadFault::Line);
        }
        let from = memchr(b' ', line).map_or(line.len(), |space| space + 1);
        if !is_method(&line[..from.saturating_sub(1)]) {
            self.head.object(HeadFault::Method);
        }
        let target = &line[from..];
        let target = &target[..memchr(b' ', target).unwrap_or(target.len())];
        if memchr(b'#', target).is_some() {
            self.head.object(HeadFault::Fragment);
        }
        if !target.is_ascii() {
            self.head.object(HeadFault::NotAscii);
        }
    }

    fn field(&mut self, line: &[u8], bare: bool) {
        self.head.fields += 1;
        if bare || matches!(line, [b' ' | b'\t', ..]) {
            self.head.object(HeadFault::Line);
        }
        let Some(colon) = memchr(b':', line).filter(|&at| at > 0) else {
            self.head.object(HeadFault::Line);
            return;
        };
        let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
        if memchr2(b'\r', 0, value).is_some() {
            self.head.object(HeadFault::Line);
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            if self.head.length.is_some() || self.head.chunked {
                self.head.object(HeadFault::Lengths);
            }
            match number(value, 10) {
                Some(length) => self.head.length = Some(length),
                None => self.head.object(HeadFault::Framing),
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.head.length.is_some() || self.head.chunked {
                self.head.object(HeadFault::Lengths);
            }
            if !value.eq_ignore_ascii_case(b"chunked") {
                self.head.object(HeadFault::Framing);
            }
            self.head.chunked = true;
        }
    }

    fn end_head(&mut self) {
        if self.head.bytes > self.most || self.head.fields > MAX_FIELDS {
            self.head.fault = Some(HeadFault::TooLarge);
        }
        self.seen.push_back(self.head.fault.map_or(Ok(()), Err));
        self.state = match self.head {
            // Where the next request begins is anybody's guess: this one is refused and is the last.
            Head { fault: Some(_), .. } => State::Blind,
            _ if self.seen.len() >= MAX_AHEAD => State::Blind,
            Head { chunked: true, .. } => State::ChunkSize,
            Head { length: None | Some(0), .. } => State::Start,
            Head { length: Some(length), .. } => State::Body(length),
        };
        self.head = Head::default();
    }

    /// A chunk's size, in hex without anything around it, and its extensions, which are dropped.
    fn chunk_size(&mut self, line: &[u8], bare: bool) {
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, extensions) = line.split_at(digits);
        let size = number(digits, 16).filter(|_| !bare && are_extensions(extensions));
        self.state = match size.and_then(|size| Some((size, size.checked_add(2)?))) {
            None => {
                self.bad_body = true;
                State::Blind
            }
            Some((0, _)) => State::Trailers,
            Some((_, with_end)) => State::Chunk(with_end),
        };
    }

    fn trailer(&mut self, line: &[u8], bare: bool) {
        if bare {
            self.bad_body = true;
            self.blind();
        } else if line.is_empty() {
            self.state = State::Start;
        }
    }
}

/// Letters, with `-` or `_` between them: what a method that any upstream knows looks like.
pub(super) fn is_method(method: &[u8]) -> bool {
    let ends = method.first().into_iter().chain(method.last());
    ends.copied().all(|byte| byte.is_ascii_alphabetic())
        && method.iter().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_'))
}

fn trim(mut value: &[u8]) -> &[u8] {
    value = trim_start(value);
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Digits only: no sign, no prefix, no list, no overflow.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(|&byte| char::from(byte).is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn walk(bytes: &[u8]) -> Vec<Seen> {
        let mut scanner = HeadScanner::new(1 << 20);
        let _ = scanner.walk(bytes);
        std::iter::from_fn(|| scanner.next()).collect()
    }

    #[test]
    fn heads_are_found_behind_every_kind_of_body() {
        let good = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\na\n\n\r\n0\r\nT: 1\r\n\r\n\r\nGET /b HTTP/1.1\r\nA: #\r\n\r\n";
        assert_eq!(walk(good), [Ok(()); 4]);
    }

    #[test]
    fn what_hyper_forgives_is_an_objection() {
        use HeadFault::{Fragment, Framing, Lengths, Line, NotAscii};
        let table: [(&[u8], HeadFault); 15] = [
            ("GET /caf\u{e9} HTTP/1.1\r\n\r\n".as_bytes(), NotAscii),
            (b"GET /a#b HTTP/1.1\r\n\r\n", Fragment),
            (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Lengths),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\ncontent-length: 1\r\n\r\n", Lengths),
            (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Lengths),
            (b"POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", Framing),
            (b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", Framing),
            (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", Framing),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Framing),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", Framing),
            (b"GET / HTTP/1.1\nHost: a\r\n\r\n", Line),
            (b"GET / HTTP/1.1\r\nHost: a\n\r\n", Line),
            (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Line),
            (b"GET / HTTP/1.1\r\n: b\r\n\r\n", Line),
            (b"\nGET / HTTP/1.1\r\n\r\n", Line),
        ];
        for (bytes, fault) in table {
            assert_eq!(walk(bytes), [Err(fault)], "{}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_read_the_same(cuts in prop::collection::vec(1_usize..9, 0..60)) {
            let bytes = b"\r\nPOST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcdePOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab\r\nc\r\n0\r\n\r\nGET /#x HTTP/1.1\r\n\r\n";
            let mut scanner = HeadScanner::new(1 << 20);
            let mut rest = &bytes[..];
            for cut in cuts {
                let (piece, more) = rest.split_at(cut.min(rest.len()));
                scanner.walk(piece).unwrap();
                rest = more;
            }
            scanner.walk(rest).unwrap();
            let seen: Vec<Seen> = std::iter::from_fn(|| scanner.next()).collect();
            prop_assert_eq!(seen, vec![Ok(()), Ok(()), Err(HeadFault::Fragment)]);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            walk(&bytes);
        }
    }
}
