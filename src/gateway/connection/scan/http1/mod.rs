//! Scans HTTP/1.1 bytes before hyper parses them, to refuse request heads that hyper reads too leniently.
//!
//! hyper drops a target's `#fragment`, accepts one of two contradicting lengths, and accepts lines that end
//! in a bare LF. This scanner finds the same heads in the same bytes and gives a verdict on each. The
//! gateway refuses a request whose head is faulty, and one whose head the scanner did not see. The scanner
//! copies only a line or head that arrives in parts.

mod chunk_extensions;
mod many_fields;

use std::collections::VecDeque;

use memchr::{memchr, memchr2};

use crate::policy::request_head::{HeadFault, MAX_FIELDS, is_method};
use chunk_extensions::{are_extensions, trim_start};
use many_fields::ManyFields;

/// Longest line that is scanned, in bytes; hyper refuses a head of that size before the gateway sees it.
const MAX_LINE: usize = 1024 * 1024 + 64;
/// Most pipelined heads that are scanned ahead of the request being served; the scanner stops there.
const MAX_AHEAD: usize = 1024;

/// The scanner's verdict on a request head.
pub(in crate::gateway) type HeadVerdict = Result<(), HeadFault>;

/// Scans the bytes of one HTTP/1.1 connection.
#[derive(Debug)]
pub(in crate::gateway::connection) struct HeadScanner {
    /// Most bytes of a head.
    max_head: usize,
    position: Position,
    /// The part of the current line that arrived before the last read.
    line: Vec<u8>,
    head: HeadSummary,
    /// Verdicts on heads that hyper has not handed out yet.
    verdicts: VecDeque<HeadVerdict>,
    /// A malformed body was found and is not reported yet.
    is_body_malformed: bool,
    many_fields: ManyFields,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// Before or within the request line; empty lines before it are skipped.
    RequestLine,
    /// Within the header section.
    Fields,
    /// Within a body; this many bytes are left.
    Body(u64),
    /// At the line with a chunk's size.
    ChunkSize,
    /// Within a chunk's data and the CRLF after it; this many bytes are left.
    Chunk(u64),
    /// Within the trailer section.
    Trailers,
    /// Scanning has stopped: after an upgrade, or at bytes that hyper refuses as well.
    Stopped,
}

/// Summary of the head that is arriving, as far as it was scanned.
#[derive(Clone, Copy, Debug, Default)]
struct HeadSummary {
    bytes: usize,
    fields: usize,
    content_length: Option<u64>,
    is_chunked: bool,
    fault: Option<HeadFault>,
}

impl HeadSummary {
    /// Records a fault; the first one counts.
    fn record_fault(&mut self, fault: HeadFault) {
        self.fault.get_or_insert(fault);
    }
}

impl HeadScanner {
    /// Creates a scanner that accepts heads of at most `max_head` bytes.
    pub(in crate::gateway::connection) fn new(max_head: usize) -> Self {
        Self {
            max_head,
            position: Position::RequestLine,
            line: Vec::new(),
            head: HeadSummary::default(),
            verdicts: VecDeque::new(),
            is_body_malformed: false,
            many_fields: ManyFields::default(),
        }
    }

    /// Scans bytes that arrived, split anywhere. Returns how many of them hyper may read now: all, unless
    /// they belong to a head with [`ManyFields`].
    ///
    /// # Errors
    /// If the body of a request that is already being served is malformed.
    pub(in crate::gateway::connection) fn scan(&mut self, arrived: &[u8]) -> Result<usize, HeadFault> {
        let (mut bytes, mut many) = (arrived, None);
        while !bytes.is_empty() {
            bytes = match self.position {
                Position::Stopped => break,
                Position::Body(left) => self.skip(bytes, left, Position::Body, Position::RequestLine),
                Position::Chunk(left) => self.skip(bytes, left, Position::Chunk, Position::ChunkSize),
                _ => self.take_line(bytes),
            };
            if self.head.fields == many_fields::USUAL_FIELDS {
                many.get_or_insert(self.head.bytes + bytes.len());
            }
        }
        if std::mem::take(&mut self.is_body_malformed) {
            // The body belongs to the last head that was scanned.
            match self.verdicts.back_mut() {
                Some(verdict) => *verdict = Err(HeadFault::Chunk),
                None => return Err(HeadFault::Chunk),
            }
        }
        let in_head = match self.position {
            Position::RequestLine | Position::Fields => self.head.bytes + self.line.len(),
            _ => 0,
        };
        Ok(self.many_fields.bytes_arrived(arrived, many.unwrap_or(in_head), many.is_some()))
    }

    /// True if a head is withheld from hyper until a parser that accepts many fields reads it.
    pub(in crate::gateway::connection) fn withholds_head(&self) -> bool {
        self.many_fields.is_waiting()
    }

    /// The head that is withheld from hyper.
    pub(in crate::gateway::connection) fn many_fields(&mut self) -> &mut ManyFields {
        &mut self.many_fields
    }

    /// The verdict on the next head that hyper hands out; `None` if the scanner did not see that head.
    pub(in crate::gateway::connection) fn next_verdict(&mut self) -> Option<HeadVerdict> {
        self.verdicts.pop_front()
    }

    /// Stops scanning: the connection was upgraded to another protocol.
    pub(in crate::gateway::connection) fn stop(&mut self) {
        self.position = Position::Stopped;
        self.line = Vec::new();
        self.many_fields.release();
    }

    /// True if a part of a head has arrived.
    pub(in crate::gateway::connection) fn is_within_head(&self) -> bool {
        !self.line.is_empty() || self.position == Position::Fields
    }

    /// True if every request that arrived is being served or done, and no part of another head has arrived.
    pub(in crate::gateway::connection) fn is_between_requests(&self) -> bool {
        self.position == Position::RequestLine && self.line.is_empty() && self.verdicts.is_empty()
    }

    fn skip<'a>(
        &mut self,
        bytes: &'a [u8],
        left: u64,
        same: fn(u64) -> Position,
        next: Position,
    ) -> &'a [u8] {
        let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - here as u64;
        self.position = if left == 0 { next } else { same(left) };
        &bytes[here..]
    }

    fn take_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(end) = memchr(b'\n', bytes) else {
            self.line.extend_from_slice(bytes);
            if self.line.len() > MAX_LINE {
                self.stop();
            }
            return &[];
        };
        if self.line.is_empty() {
            self.scan_line(&bytes[..=end]);
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(&bytes[..=end]);
            self.scan_line(&line);
            line.clear();
            self.line = line;
        }
        &bytes[end + 1..]
    }

    /// Scans a line that ends in LF.
    fn scan_line(&mut self, line: &[u8]) {
        if matches!(self.position, Position::RequestLine | Position::Fields) {
            self.head.bytes += line.len();
        }
        let (line, bare) = match line {
            [text @ .., b'\r', b'\n'] => (text, false),
            [text @ .., b'\n'] => (text, true),
            text => (text, true),
        };
        match self.position {
            Position::RequestLine if line.is_empty() => {
                if bare {
                    self.head.record_fault(HeadFault::Line);
                }
            }
            Position::RequestLine => {
                self.request_line(line, bare);
                self.position = Position::Fields;
            }
            Position::Fields if line.is_empty() => {
                if bare {
                    self.head.record_fault(HeadFault::Line);
                }
                self.end_head();
            }
            Position::Fields => self.field(line, bare),
            Position::ChunkSize => self.chunk_size(line, bare),
            Position::Trailers => self.trailer(line, bare),
            Position::Body(_) | Position::Chunk(_) | Position::Stopped => {}
        }
    }

    fn request_line(&mut self, line: &[u8], bare: bool) {
        if bare {
            self.head.record_fault(HeadFault::Line);
        }
        let from = memchr(b' ', line).map_or(line.len(), |space| space + 1);
        if !is_method(&line[..from.saturating_sub(1)]) {
            self.head.record_fault(HeadFault::Method);
        }
        let target = &line[from..];
        let target = &target[..memchr(b' ', target).unwrap_or(target.len())];
        if memchr(b'#', target).is_some() {
            self.head.record_fault(HeadFault::Fragment);
        }
        if !target.is_ascii() {
            self.head.record_fault(HeadFault::NotAscii);
        }
    }

    fn field(&mut self, line: &[u8], bare: bool) {
        self.head.fields += 1;
        if bare || matches!(line, [b' ' | b'\t', ..]) {
            self.head.record_fault(HeadFault::Line);
        }
        let Some(colon) = memchr(b':', line).filter(|&at| at > 0) else {
            self.head.record_fault(HeadFault::Line);
            return;
        };
        let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
        if memchr2(b'\r', 0, value).is_some() {
            self.head.record_fault(HeadFault::Line);
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            if self.head.content_length.is_some() || self.head.is_chunked {
                self.head.record_fault(HeadFault::Lengths);
            }
            match number(value, 10) {
                Some(length) => self.head.content_length = Some(length),
                None => self.head.record_fault(HeadFault::Framing),
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.head.content_length.is_some() || self.head.is_chunked {
                self.head.record_fault(HeadFault::Lengths);
            }
            if !value.eq_ignore_ascii_case(b"chunked") {
                self.head.record_fault(HeadFault::Framing);
            }
            self.head.is_chunked = true;
        }
    }

    fn end_head(&mut self) {
        if self.head.bytes > self.max_head || self.head.fields > MAX_FIELDS {
            self.head.fault = Some(HeadFault::TooLarge);
        }
        self.verdicts.push_back(self.head.fault.map_or(Ok(()), Err));
        self.position = match self.head {
            // The start of the next request is unknown, so this request is refused and is the last one.
            HeadSummary { fault: Some(_), .. } => Position::Stopped,
            _ if self.verdicts.len() >= MAX_AHEAD => Position::Stopped,
            HeadSummary { is_chunked: true, .. } => Position::ChunkSize,
            HeadSummary { content_length: None | Some(0), .. } => Position::RequestLine,
            HeadSummary { content_length: Some(length), .. } => Position::Body(length),
        };
        self.head = HeadSummary::default();
    }

    /// Scans a chunk's size, which is hexadecimal digits only, and its extensions, which hyper drops.
    fn chunk_size(&mut self, line: &[u8], bare: bool) {
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, extensions) = line.split_at(digits);
        let size = number(digits, 16).filter(|_| !bare && are_extensions(extensions));
        self.position = match size.and_then(|size| Some((size, size.checked_add(2)?))) {
            None => {
                self.is_body_malformed = true;
                Position::Stopped
            }
            Some((0, _)) => Position::Trailers,
            Some((_, with_end)) => Position::Chunk(with_end),
        };
    }

    fn trailer(&mut self, line: &[u8], bare: bool) {
        if bare {
            self.is_body_malformed = true;
            self.stop();
        } else if line.is_empty() {
            self.position = Position::RequestLine;
        }
    }
}

fn trim(mut value: &[u8]) -> &[u8] {
    value = trim_start(value);
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Parses digits: no sign, no prefix, no list, no overflow.
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

    fn verdicts(bytes: &[u8]) -> Vec<HeadVerdict> {
        let mut scanner = HeadScanner::new(1 << 20);
        let _ = scanner.scan(bytes);
        std::iter::from_fn(|| scanner.next_verdict()).collect()
    }

    #[test]
    fn heads_are_found_after_every_kind_of_body() {
        let good = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\na\n\n\r\n0\r\nT: 1\r\n\r\n\r\nGET /b HTTP/1.1\r\nA: #\r\n\r\n";
        assert_eq!(verdicts(good), [Ok(()); 4]);
    }

    #[test]
    fn heads_that_hyper_accepts_too_leniently_are_faulty() {
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
            assert_eq!(verdicts(bytes), [Err(fault)], "{}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        #[test]
        fn bytes_split_anywhere_give_the_same_verdicts(cuts in prop::collection::vec(1_usize..9, 0..60)) {
            let bytes = b"\r\nPOST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcdePOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab\r\nc\r\n0\r\n\r\nGET /#x HTTP/1.1\r\n\r\n";
            let mut scanner = HeadScanner::new(1 << 20);
            let mut rest = &bytes[..];
            for cut in cuts {
                let (piece, more) = rest.split_at(cut.min(rest.len()));
                scanner.scan(piece).unwrap();
                rest = more;
            }
            scanner.scan(rest).unwrap();
            let found: Vec<HeadVerdict> = std::iter::from_fn(|| scanner.next_verdict()).collect();
            prop_assert_eq!(found, vec![Ok(()), Ok(()), Err(HeadFault::Fragment)]);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            verdicts(&bytes);
        }
    }
}
