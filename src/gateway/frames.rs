//! A second pair of eyes on the frames of an HTTP/2 connection.
//!
//! h2 bounds what each frame can hold and what a peer can make it keep. What it does not bound is
//! how often a client has it do work that serves no request: PING and SETTINGS answered, PRIORITY
//! read, streams opened to be reset (CVE-2023-44487, CVE-2019-9512 and its siblings, CVE-2025-8671),
//! heads that are refused, or anything for a stream that is over. This scanner reads frame headers
//! (RFC 9113, section 4.1), nine bytes each, and counts those.

use std::time::Duration;

use super::arrive::PREFACE;
use crate::types::{Moment, nanos};

/// What each frame that serves no request costs its client: 500 of them a second are free.
const COST: Duration = Duration::from_millis(2);
/// How far a client may be ahead of that: 500 frames at once, five for each stream that it may have.
const AHEAD: Duration = Duration::from_secs(1);
/// What each byte that it takes pays back, so that one frame is free for each 512: who takes much
/// opens its windows often.
const PAID_BY_BYTE: Duration = Duration::from_nanos(3_906);
/// Frames that a request may have besides its own: grpc-go sends a PING and opens its window for each
/// answer, to learn how much it can take.
const WITH_REQUEST: u32 = 4;
/// The same for each piece of an answer.
const WITH_PIECE: u32 = 2;

/// What a head costs that became no request: as much as a frame for each so many bytes of it, and at
/// most as [`HEAD_MOST`] frames, so that five are free at once. To read one of 2,000 bytes, each of which
/// names a field, takes 90 µs. A trusted proxy's costs as much as one frame: it has many clients.
const HEAD_BYTES: usize = 32;
const HEAD_MOST: u32 = 100;
/// Bytes of trailers that cost nothing where a request's end is awaited.
const TRAILERS: usize = 64;
/// What a turn reads before other connections have theirs: frames, bytes, and bytes of heads, which take
/// longest. With 16 KiB instead of 256 an upload took half as much again: each turn opens the windows anew.
const TURN: (u32, usize, usize) = (256, 256 * 1024, 4 * 1024);
/// Most ends of requests, data or trailers, that are free because requests began: as many as can be
/// in flight.
const MOST_ENDS: u32 = super::serve::MAX_STREAMS;

const FRAME_HEADER: usize = 9;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// The client has had more done for nothing than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client sends more frames that serve no request than it may")]
pub(super) struct Flood;

/// Walks the bytes of one HTTP/2 connection.
#[derive(Debug)]
pub(super) struct FrameScanner {
    header: [u8; FRAME_HEADER],
    /// How much of `header` is there.
    have: usize,
    /// Bytes to come before the next frame's header: of a payload, or of the preface.
    skip: usize,
    /// Since when a head is arriving.
    head: Option<Moment>,
    /// The payload that is being skipped ends a head.
    ends_head: bool,
    /// Bytes of the head that is arriving; of a new stream's only.
    head_bytes: usize,
    /// When all frames so far are paid for.
    paid: Moment,
    /// Bytes of answers that the client asked for with PING and SETTINGS.
    acks: usize,
    /// The newest stream.
    stream: u32,
    /// Requests that began, and whose end is awaited.
    ends: u32,
    turn: Turn,
    /// Heads that became no request so far, and what they cost.
    refused: (u32, u32),
    /// The client is a proxy that has clients of its own.
    is_proxy: bool,
}

/// What came in a turn of the connection's task.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    frames: u32,
    bytes: usize,
    /// Heads of new streams that are whole, their bytes, and the requests that they became.
    heads: u32,
    head_bytes: usize,
    begun: u32,
}

impl FrameScanner {
    pub(super) fn new(now: Moment, is_proxy: bool) -> Self {
        let (header, skip) = ([0; FRAME_HEADER], PREFACE.len());
        let (head, ends_head, head_bytes) = (None, false, 0);
        let (turn, refused) = (Turn::default(), (0, 0));
        Self {
            header,
            have: 0,
            skip,
            head,
            ends_head,
            head_bytes,
            paid: now,
            acks: 0,
            stream: 0,
            ends: 0,
            turn,
            refused,
            is_proxy,
        }
    }

    /// Since when a head is arriving that is not whole yet.
    pub(super) fn head_since(&self) -> Option<Moment> {
        self.head
    }

    /// Bytes that were written, or will be, to answer PING and SETTINGS: no progress of any request.
    pub(super) fn take_acks(&mut self) -> usize {
        std::mem::take(&mut self.acks)
    }

    /// The client took so many bytes.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.pay(PAID_BY_BYTE * u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// A request began: its head served, and so will its end.
    pub(super) fn begun(&mut self) {
        self.turn.begun += 1;
        self.ends = MOST_ENDS.min(self.ends + 1);
        self.pay(COST * WITH_REQUEST);
    }

    /// A piece of an answer was handed over.
    pub(super) fn gave(&mut self) {
        self.pay(COST * WITH_PIECE);
    }

    /// Whether this turn is to read no more.
    pub(super) fn is_turn_full(&self) -> bool {
        let Turn { frames, bytes, head_bytes, .. } = self.turn;
        frames >= TURN.0 || bytes >= TURN.1 || head_bytes >= TURN.2
    }

    /// A turn is over, and h2 has looked at what came in it: heads that became no request cost their
    /// client something, by their mean size. Too much of that ends the connection with the next turn of
    /// such, so that what h2 says to these is still sent.
    ///
    /// # Errors
    /// [`Flood`]: the connection is to be closed.
    pub(super) fn end_turn(&mut self, now: Moment) -> Result<(), Flood> {
        let Turn { heads, head_bytes, begun, .. } = std::mem::take(&mut self.turn);
        let (refused, cost) = &mut self.refused;
        let late = begun.saturating_sub(heads).min(*refused);
        if late > 0 {
            // h2 reads no further while it cannot write what it has to: these came in a turn before.
            let back = *cost / *refused * late;
            (*refused, *cost) = (*refused - late, *cost - back);
            self.pay(COST.saturating_mul(back));
        } else if heads > begun {
            let more = heads - begun;
            let by_size = if self.is_proxy { 0 } else { by_size(head_bytes / heads as usize) };
            let costs = more.saturating_mul(1 + by_size);
            (*refused, *cost) = (refused.saturating_add(more), cost.saturating_add(costs));
            let was_too_much = self.paid.since(now) > AHEAD;
            self.paid = self.with(costs, now);
            if was_too_much {
                return Err(Flood);
            }
        }
        Ok(())
    }

    fn pay(&mut self, paid: Duration) {
        self.paid = Moment(self.paid.0.saturating_sub(nanos(paid)));
    }

    /// Walks bytes as they arrive, in pieces of any size.
    ///
    /// # Errors
    /// [`Flood`]: the connection is to be closed.
    pub(super) fn walk(&mut self, mut bytes: &[u8], now: Moment) -> Result<(), Flood> {
        self.turn.bytes += bytes.len();
        loop {
            let here = self.skip.min(bytes.len());
            self.skip -= here;
            bytes = &bytes[here..];
            if self.skip == 0 && std::mem::take(&mut self.ends_head) {
                self.end_head();
            }
            if bytes.is_empty() {
                return Ok(());
            }
            let take = (FRAME_HEADER - self.have).min(bytes.len());
            self.header[self.have..self.have + take].copy_from_slice(&bytes[..take]);
            self.have += take;
            bytes = &bytes[take..];
            if self.have == FRAME_HEADER {
                self.have = 0;
                self.frame(now)?;
            }
        }
    }

    fn frame(&mut self, now: Moment) -> Result<(), Flood> {
        let [high, middle, low, kind, flags, stream @ ..] = self.header;
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff; // without the reserved bit
        self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.turn.frames += 1;
        let is_new = kind == HEADERS && stream > self.stream;
        if is_new {
            self.stream = stream;
            self.head_bytes = 1; // what follows counts too
        }
        if kind == HEADERS || kind == CONTINUATION {
            self.head.get_or_insert(now);
            self.ends_head = flags & END_HEADERS != 0;
            self.head_bytes += if self.head_bytes > 0 { self.skip } else { 0 };
        }
        self.acks += match kind {
            PING if flags & ACK == 0 => FRAME_HEADER + 8,
            SETTINGS if flags & ACK == 0 => FRAME_HEADER,
            _ => 0,
        };
        match kind {
            HEADERS if is_new => Ok(()), // see `end_turn`
            HEADERS => {
                self.count(by_size(self.skip.saturating_sub(TRAILERS)), now)?;
                self.count_end(now)
            }
            DATA if flags & END_STREAM != 0 => self.count_end(now),
            DATA if self.skip > 0 => Ok(()),
            RST_STREAM => self.count(1 + WITH_REQUEST, now),
            _ => self.count(1, now),
        }
    }

    /// A head is whole; one of a new stream may become a request.
    fn end_head(&mut self) {
        self.head = None;
        let bytes = std::mem::take(&mut self.head_bytes);
        if bytes > 0 {
            self.turn.heads += 1;
            self.turn.head_bytes += bytes;
        }
    }

    fn count_end(&mut self, now: Moment) -> Result<(), Flood> {
        match self.ends.checked_sub(1) {
            Some(left) => self.ends = left,
            None => self.count(1, now)?,
        }
        Ok(())
    }

    /// When all is paid for, with so many frames more.
    fn with(&self, times: u32, now: Moment) -> Moment {
        Moment(self.paid.0.max(now.0)).plus(COST.saturating_mul(times))
    }

    fn count(&mut self, times: u32, now: Moment) -> Result<(), Flood> {
        let paid = self.with(times, now);
        if paid.since(now) > AHEAD {
            return Err(Flood);
        }
        self.paid = paid;
        Ok(())
    }
}

/// What a head of so many bytes costs besides its frame.
fn by_size(bytes: usize) -> u32 {
    u32::try_from(bytes / HEAD_BYTES).unwrap_or(u32::MAX).min(HEAD_MOST - 1)
}

#[cfg(test)]
mod tests;
