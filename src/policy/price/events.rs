//! Splits a body into documents: the events of an event stream, or JSON lines. Keeps nothing of them.

use memchr::{memchr, memchr2};

/// A part of a stream of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// Bytes of the current document.
    Data(&'a [u8]),
    /// The current document ends; the next part belongs to another one.
    End,
}

/// Splits a stream that arrives in pieces.
#[derive(Clone, Debug)]
pub(super) enum Splitter {
    /// An event stream (HTML, section 9.2.6): a document is the data of an event.
    Events(EventLines),
    /// JSON lines: a document is a line.
    Lines,
}

impl Splitter {
    pub(super) fn events() -> Self {
        Self::Events(EventLines { line: Line::Start, is_after_cr: false, has_data: false })
    }

    /// Reads a piece, and passes on its parts.
    pub(super) fn read(&mut self, bytes: &[u8], mut part: impl FnMut(Part<'_>)) {
        match self {
            Self::Events(lines) => lines.read(bytes, &mut part),
            Self::Lines => {
                let mut rest = bytes;
                while let Some(end) = memchr(b'\n', rest) {
                    part(Part::Data(&rest[..end]));
                    part(Part::End);
                    rest = &rest[end + 1..];
                }
                part(Part::Data(rest));
            }
        }
    }
}

/// The lines of an event stream.
#[derive(Clone, Debug)]
pub(super) struct EventLines {
    line: Line,
    /// The last byte was CR: a LF belongs to the same end of a line.
    is_after_cr: bool,
    /// The current event has a line of data.
    has_data: bool,
}

/// The position in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Start,
    /// In the field's name, which has so many bytes of `data`.
    Name(usize),
    /// After the colon of a line of data: one space is not part of it.
    Colon,
    Data,
    /// Of another field, or a comment.
    Other,
}

impl EventLines {
    fn read(&mut self, mut bytes: &[u8], part: &mut impl FnMut(Part<'_>)) {
        while let Some(&first) = bytes.first() {
            if std::mem::take(&mut self.is_after_cr) && first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            if matches!(first, b'\r' | b'\n') {
                self.end_line(part);
                self.is_after_cr = first == b'\r';
                bytes = &bytes[1..];
                continue;
            }
            bytes = self.within(first, bytes, part);
        }
    }

    /// Reads bytes within a line, of which the first is no end of a line.
    fn within<'a>(&mut self, first: u8, bytes: &'a [u8], part: &mut impl FnMut(Part<'_>)) -> &'a [u8] {
        const NAME: &[u8] = b"data";
        match self.line {
            Line::Start | Line::Name(_) => {
                let read = if let Line::Name(read) = self.line { read } else { 0 };
                self.line = match NAME.get(read) {
                    Some(expected) if *expected == first => Line::Name(read + 1),
                    None if first == b':' => {
                        self.begin_data(part);
                        Line::Colon
                    }
                    _ => Line::Other,
                };
                &bytes[1..]
            }
            Line::Colon => {
                self.line = Line::Data;
                if first == b' ' { &bytes[1..] } else { bytes }
            }
            Line::Data | Line::Other => {
                let (data, rest) = bytes.split_at(memchr2(b'\r', b'\n', bytes).unwrap_or(bytes.len()));
                if self.line == Line::Data {
                    part(Part::Data(data));
                }
                rest
            }
        }
    }

    /// Several lines of data are joined by a line break.
    fn begin_data(&mut self, part: &mut impl FnMut(Part<'_>)) {
        if std::mem::replace(&mut self.has_data, true) {
            part(Part::Data(b"\n"));
        }
    }

    fn end_line(&mut self, part: &mut impl FnMut(Part<'_>)) {
        match self.line {
            Line::Start if std::mem::take(&mut self.has_data) => part(Part::End),
            Line::Name(4) => self.begin_data(part), // `data` without a colon is an empty line of data
            _ => {}
        }
        self.line = Line::Start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(mut splitter: Splitter, bytes: &[u8], piece: usize) -> Vec<String> {
        let (mut documents, mut current) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(piece.max(1)) {
            splitter.read(piece, |part| match part {
                Part::Data(data) => current.extend_from_slice(data),
                Part::End => documents.push(String::from_utf8(std::mem::take(&mut current)).unwrap()),
            });
        }
        documents.push(String::from_utf8(current).unwrap());
        documents
    }

    /// The examples of the HTML standard, and hostile ones; the last document is what follows the last end.
    #[test]
    fn events_are_split_as_the_standard_says() {
        let table: &[(&str, &[&str])] = &[
            ("data: a\n\n", &["a", ""]),
            ("data: a\r\rdata: b\r\n\r\ndata:c\n\n", &["a", "b", "c", ""]),
            ("data: YHOO\ndata: +2\ndata: 10\n\n", &["YHOO\n+2\n10", ""]),
            (": comment\n\ndata:  two spaces\nid: 1\n\nevent: x\n\n", &[" two spaces", ""]),
            ("data\n\ndata\ndata\n\ndata:", &["", "\n", ""]),
            ("datax: 1\ndat: 2\ndata : 3\n\ndata: 4\n\n", &["4", ""]),
            ("data: cut", &["cut"]),
            ("\n\n\n\r\n", &[""]),
        ];
        for (stream, expected) in table {
            for piece in 1..=stream.len() {
                assert_eq!(
                    split(Splitter::events(), stream.as_bytes(), piece),
                    *expected,
                    "{stream:?} by {piece}"
                );
            }
        }
    }

    #[test]
    fn lines_are_split() {
        for piece in 1..9 {
            assert_eq!(split(Splitter::Lines, b"{}\n\n[1]\r\n2", piece), ["{}", "", "[1]\r", "2"]);
        }
    }
}
