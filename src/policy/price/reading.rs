//! Reads what a price needs from a response, while its body passes.

use std::io::{self, Write};
use std::sync::Arc;

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap};

use super::decimal::Decimal;
use super::decode::Decoder;
use super::events::{Part, Splitter};
use super::terms::Source;
use super::{AtHead, Charged, Facts, Found, Price, header, holds};
use crate::policy::grpc;
use crate::policy::json::{PointerReader, Scalar};
use crate::types::StatusClass;

/// Largest JSON response body, in bytes once decoded, in which a price is read. For a larger one the hold is charged.
pub const MAX_PRICED_JSON: usize = 1024 * 1024;
/// Most decoded bytes that one piece of a compressed event stream may become. Beyond that the hold is charged.
const MAX_DECODED_AT_ONCE: usize = 4 * 1024 * 1024;

/// A response whose head arrived: its charge, or a reader that finds it.
#[derive(Debug)]
pub enum Opened {
    /// The head names the charge.
    Known(Charged),
    /// The rest of the response names it.
    Reading(Box<AnswerReader>),
}

/// Reads a response for its charge.
#[derive(Debug)]
pub struct AnswerReader {
    price: Arc<Price>,
    /// The status by which the charge is found; `None` for a gRPC call, whose status is in its trailers.
    status: Option<StatusCode>,
    is_call: bool,
    /// The response's fields; empty if no charge needs them.
    head: HeaderMap,
    trailers: Option<HeaderMap>,
    /// Size of the body so far.
    bytes: u64,
    /// Time from the head to the end, in milliseconds.
    millis: u64,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// No charge reads it.
    Unread,
    /// It is read.
    Read(Decoder<Values>),
    /// It cannot be read, or was not complete.
    Unreadable,
    /// It was read to its end.
    Values(Vec<(Source, Option<Scalar>)>),
}

impl AnswerReader {
    /// Finds the charge of a response by its head, and the outcome of its request. `is_head`: the request was a HEAD.
    #[must_use]
    pub fn open(
        price: &Arc<Price>,
        is_head: bool,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> (Opened, StatusClass) {
        let is_call = status == StatusCode::OK && grpc::is_call(headers);
        let counted_as = if is_call { grpc::counts_as(headers) } else { Some(status) };
        let outcome = counted_as.map_or(StatusClass::None, |status| StatusClass::of_status(status.as_u16()));
        match counted_as.map(|status| price.at_head(status, headers, is_head)) {
            Some(AtHead::Known(charged)) => return (Opened::Known(charged), outcome),
            Some(AtHead::InBody) if is_call && price.done.is_none() => {
                return (Opened::Known(price.unreadable()), outcome);
            }
            _ => {}
        }
        let needs_head = is_call || price.sources().any(|it| !it.is_in_body());
        let reader = Self {
            price: Arc::clone(price),
            status: counted_as,
            is_call,
            head: if needs_head { headers.clone() } else { HeaderMap::new() },
            trailers: None,
            bytes: 0,
            millis: 0,
            body: if is_call { Body::Unreadable } else { Body::open(price, headers) },
        };
        (Opened::Reading(Box::new(reader)), outcome)
    }

    /// Reads a part of the body. Returns how many bytes were parsed.
    pub fn read(&mut self, data: &[u8]) -> usize {
        self.count(data.len() as u64);
        let Body::Read(decoder) = &mut self.body else { return 0 };
        decoder.get_mut().parsed = 0;
        let is_read = decoder.decode(data).is_ok();
        let parsed = decoder.get_mut().parsed;
        if !is_read {
            self.body = Body::Unreadable;
        }
        parsed
    }

    /// Counts bytes of a body that is not read.
    pub fn count(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Reads the trailers.
    pub fn read_trailers(&mut self, trailers: &HeaderMap) {
        self.trailers = Some(trailers.clone());
    }

    /// True if nothing that follows can change the charge.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        matches!(self.body, Body::Unreadable) && !self.is_call && !self.price.measures()
    }

    /// True if nothing bounds the length of the response: it is read as a stream, or not at all.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        match &self.body {
            Body::Read(decoder) => decoder.get_ref().splitter.is_some(),
            Body::Unread | Body::Unreadable | Body::Values(_) => true,
        }
    }

    /// The outcome of a gRPC call, once its trailers arrived.
    #[must_use]
    pub fn outcome(&self) -> Option<StatusClass> {
        if !self.is_call {
            return None;
        }
        grpc::counts_as(self.trailers.as_ref()?).map(|status| StatusClass::of_status(status.as_u16()))
    }

    /// What the response decides at its end, `millis` milliseconds after its head.
    #[must_use]
    pub fn finish(mut self, end: End, millis: u64) -> Verdict {
        self.millis = millis;
        self.body = match std::mem::replace(&mut self.body, Body::Unreadable) {
            Body::Read(decoder) => Body::close(decoder, end),
            body => body,
        };
        if self.is_call {
            self.status = self.trailers.as_ref().and_then(grpc::counts_as);
        }
        let Some(status) = self.status else { return Verdict::Charge(self.price.unreadable()) };
        if let Some(done) = &self.price.done {
            return match holds(&done.when, &self) {
                _ if end != End::Complete || !done.status.covers(status.as_u16()) => Verdict::NotDone,
                Ok(true) => Verdict::Charge(self.charge(status)),
                Ok(false) => Verdict::NotDone,
                Err(_) => Verdict::Unreadable,
            };
        }
        if let Some(opens) = self.price.opens.as_ref().filter(|_| status.is_success()) {
            return match self.find(&opens.id) {
                Found::Text(id) if !id.is_empty() => Verdict::Open(id.into_owned()),
                Found::Number(id) => Verdict::Open(id.to_owned()),
                _ => Verdict::Charge(self.price.unreadable()),
            };
        }
        Verdict::Charge(self.charge(status))
    }

    fn charge(&self, status: StatusCode) -> Charged {
        match self.price.evaluate(status, self) {
            AtHead::Known(charged) => charged,
            AtHead::InBody => self.price.unreadable(),
        }
    }
}

/// What a response decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This is charged.
    Charge(Charged),
    /// A job was opened, with this id of the upstream.
    Open(String),
    /// The job is not done.
    NotDone,
    /// The response tells of a job, but whether that is done cannot be read.
    Unreadable,
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is complete.
    Complete,
    /// The upstream aborted it.
    Aborted,
    /// The gateway stopped reading, because the client is gone: what was seen counts.
    Abandoned,
}

impl Facts for AnswerReader {
    fn find(&self, source: &Source) -> Found<'_> {
        match source {
            Source::Header(name) => match (header(&self.head, name), &self.trailers) {
                (Found::Absent, Some(trailers)) if self.is_call => header(trailers, name),
                (found, _) => found,
            },
            Source::Trailer(name) => self.trailers.as_ref().map_or(Found::Absent, |it| header(it, name)),
            Source::Held => Found::Measured(self.price.hold.into()),
            Source::Items => Found::Measured(Decimal::from_count(self.price.items)),
            Source::Mebibytes => Found::Measured(Decimal::mebibytes(self.bytes)),
            Source::Seconds => Found::Measured(Decimal::seconds(self.millis)),
            Source::Json(_) | Source::LastEvent(_) => {
                let Body::Values(values) = &self.body else { return Found::Unreadable };
                match values.iter().find(|(other, _)| other == source).and_then(|(_, found)| found.as_ref()) {
                    Some(Scalar::Number(text)) => Found::Number(text),
                    Some(Scalar::Text(text)) => Found::Text(text.as_str().into()),
                    Some(Scalar::Bool(value)) => Found::Bool(*value),
                    None => Found::Absent,
                }
            }
        }
    }
}

impl Body {
    fn open(price: &Price, headers: &HeaderMap) -> Self {
        let mut reads: Vec<Read> = Vec::new();
        for source in price.sources() {
            if let Some(pointer) = source.pointer()
                && reads.iter().all(|read| read.source != *source)
            {
                let reader = PointerReader::new(pointer.clone());
                reads.push(Read { source: source.clone(), reader, last: None });
            }
        }
        if reads.is_empty() {
            return Self::Unread;
        }
        let content_type =
            headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let splitter = match media.as_str() {
            "text/event-stream" => Some(Splitter::events()),
            "application/x-ndjson" | "application/jsonl" | "application/x-jsonlines" => Some(Splitter::Lines),
            _ => None,
        };
        // What a job costs is read however long its results are: nothing else would settle it.
        let left = if price.done.is_some() { usize::MAX } else { MAX_PRICED_JSON };
        let values = Values { splitter, reads, left, parsed: 0 };
        Decoder::new(headers, values).map_or(Self::Unreadable, Self::Read)
    }

    fn close(mut decoder: Decoder<Values>, end: End) -> Self {
        let is_stream = decoder.get_mut().splitter.is_some();
        let is_whole = match end {
            End::Complete => decoder.finish().is_ok(),
            End::Aborted => false,
            End::Abandoned => is_stream,
        };
        if !is_whole {
            return Self::Unreadable;
        }
        decoder.get_mut().close(end).map_or(Self::Unreadable, Self::Values)
    }
}

/// The values in a body at the pointers that a price needs.
#[derive(Debug)]
struct Values {
    /// `None` if the body is one document.
    splitter: Option<Splitter>,
    reads: Vec<Read>,
    /// Bytes of a document that may still be parsed.
    left: usize,
    /// Bytes parsed of the current piece.
    parsed: usize,
}

#[derive(Debug)]
struct Read {
    source: Source,
    reader: PointerReader,
    /// The value in the documents before the current one.
    last: Option<Scalar>,
}

impl Write for Values {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.parsed += bytes.len();
        let Self { splitter, reads, left, parsed } = self;
        match splitter {
            None => {
                *left = left.checked_sub(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
                reads.iter_mut().for_each(|read| read.reader.read(bytes));
            }
            Some(_) if *parsed > MAX_DECODED_AT_ONCE => return Err(io::ErrorKind::FileTooLarge.into()),
            Some(splitter) => splitter.read(bytes, |part| match part {
                Part::Data(data) => reads.iter_mut().for_each(|read| read.reader.read(data)),
                Part::End => reads.iter_mut().for_each(Read::end_document),
            }),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Values {
    /// Takes the values at the end of the body; `None` if it is not JSON.
    fn close(&mut self, end: End) -> Option<Vec<(Source, Option<Scalar>)>> {
        let reads = std::mem::take(&mut self.reads).into_iter();
        if self.splitter.is_none() {
            return reads.map(|read| read.reader.end().ok().map(|found| (read.source, found))).collect();
        }
        let last = |mut read: Read| {
            if end == End::Complete {
                read.end_document(); // some servers leave out the last line break
            }
            (read.source, read.last)
        };
        Some(reads.map(last).collect())
    }
}

impl Read {
    /// Takes the value of an event. Events that are not JSON, such as `[DONE]`, count for nothing.
    fn end_document(&mut self) {
        let next = self.reader.again();
        let Ok(found) = std::mem::replace(&mut self.reader, next).end() else { return };
        if found.is_some() || matches!(self.source, Source::LastEvent(_)) {
            self.last = found;
        }
    }
}
