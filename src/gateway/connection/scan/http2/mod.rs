//! Scans HTTP/2 frames before h2 parses them, to limit unproductive frames.
//!
//! h2 limits the size of each frame and the memory that a peer can make it use. It does not limit how
//! often a client makes it work without a request: PING and SETTINGS that must be answered, PRIORITY,
//! streams opened and reset (CVE-2023-44487, CVE-2019-9512 and related, CVE-2025-8671), rejected header
//! blocks, or frames on closed streams. This scanner reads frame headers (RFC 9113, section 4.1), nine bytes
//! each, and charges the client for unproductive frames: a rate limit (GCRA) with a debt in time.

use std::time::Duration;

use crate::gateway::connection::protocol::{MAX_STREAMS, PREFACE};
use crate::types::{Moment, nanos};

/// Cost of an unproductive frame: 500 a second are free.
const FRAME_COST: Duration = Duration::from_millis(2);
/// Longest debt: a burst of 500 frames, five for each stream that a client may have.
const MAX_DEBT: Duration = Duration::from_secs(1);
/// How much of the debt each byte that the client reads pays back, so that one frame is free for each 512 bytes:
/// a client that reads much sends many WINDOW_UPDATE frames.
const PAID_BY_BYTE: Duration = Duration::from_nanos(3_906);
/// Further frames that each request makes free: grpc-go sends a PING and a WINDOW_UPDATE for each response, to
/// estimate its bandwidth.
const FRAMES_PER_REQUEST: u32 = 4;
/// Frames that each DATA chunk of a response makes free.
const FRAMES_PER_CHUNK: u32 = 2;

/// A rejected header block costs one frame for each so many bytes, at most [`MAX_BLOCK_COST`] frames, so that
/// five are free at the same time. Parsing 2,000 bytes that each name an indexed field takes 90 µs. A rejected
/// block from a trusted proxy costs one frame: the proxy has many clients.
const BLOCK_BYTES_PER_FRAME: usize = 32;
const MAX_BLOCK_COST: u32 = 100;
/// Bytes of trailers that are free if the end of a request is due.
const FREE_TRAILERS: usize = 64;
/// Most frames, bytes, and bytes of header blocks, which take longest, that one poll of a connection reads
/// before other connections are polled. With 16 KiB instead of 256 KiB an upload took 50 % more, since every
/// poll sends WINDOW_UPDATE.
const MAX_POLL_FRAMES: u32 = 256;
const MAX_POLL_BYTES: usize = 256 * 1024;
const MAX_POLL_BLOCK_BYTES: usize = 4 * 1024;
/// Most ends of requests (END_STREAM on DATA or trailers) that are free because requests began: as many as can
/// be in flight.
const MAX_FREE_ENDS: u32 = MAX_STREAMS;

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

/// The client sends unproductive frames faster than it may: its connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client sends too many frames that serve no request")]
pub(in crate::gateway::connection) struct Flood;

/// Scans the bytes of one HTTP/2 connection.
#[derive(Debug)]
pub(in crate::gateway::connection) struct FrameScanner {
    /// The header of the current frame, as far as it arrived.
    header: [u8; FRAME_HEADER],
    /// How many bytes of `header` arrived.
    header_len: usize,
    /// Bytes to skip until the next frame header: of a payload, or of the connection preface.
    skip: usize,
    /// When the header block that is arriving began.
    block_since: Option<Moment>,
    /// The payload that is being skipped ends a header block.
    ends_block: bool,
    /// Bytes of the header block that is arriving, if it opens a stream.
    block_bytes: usize,
    /// When the client's debt will be paid.
    paid_at: Moment,
    /// Bytes of acknowledgements that the client requested with PING and SETTINGS.
    ack_bytes: usize,
    /// The newest stream's identifier.
    last_stream: u32,
    /// Requests that began and whose end is due.
    ends_due: u32,
    poll: PollCounts,
    /// The number of rejected header blocks so far, and their cost in frames.
    rejected: (u32, u32),
    /// The client is a trusted proxy, with clients of its own.
    is_proxy: bool,
}

/// Counts of what arrived in the current poll of the connection.
#[derive(Clone, Copy, Debug, Default)]
struct PollCounts {
    frames: u32,
    bytes: usize,
    /// Complete header blocks that open a stream.
    blocks: u32,
    block_bytes: usize,
    /// Requests that began: their header blocks were not rejected.
    requests: u32,
}

impl FrameScanner {
    pub(in crate::gateway::connection) fn new(now: Moment, is_proxy: bool) -> Self {
        Self {
            header: [0; FRAME_HEADER],
            header_len: 0,
            skip: PREFACE.len(),
            block_since: None,
            ends_block: false,
            block_bytes: 0,
            paid_at: now,
            ack_bytes: 0,
            last_stream: 0,
            ends_due: 0,
            poll: PollCounts::default(),
            rejected: (0, 0),
            is_proxy,
        }
    }

    /// When the header block began that is arriving now.
    pub(in crate::gateway::connection) fn incomplete_block_since(&self) -> Option<Moment> {
        self.block_since
    }

    /// Takes the number of bytes that acknowledge PING and SETTINGS: written bytes that serve no request.
    pub(in crate::gateway::connection) fn take_ack_bytes(&mut self) -> usize {
        std::mem::take(&mut self.ack_bytes)
    }

    /// The client read so many bytes.
    pub(in crate::gateway::connection) fn bytes_written(&mut self, bytes: usize) {
        self.pay(PAID_BY_BYTE * u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// A request began: its header block was productive, and its end will be.
    pub(in crate::gateway::connection) fn request_began(&mut self) {
        self.poll.requests += 1;
        self.ends_due = MAX_FREE_ENDS.min(self.ends_due + 1);
        self.pay(FRAME_COST * FRAMES_PER_REQUEST);
    }

    /// A DATA chunk of a response was passed to h2.
    pub(in crate::gateway::connection) fn chunk_given(&mut self) {
        self.pay(FRAME_COST * FRAMES_PER_CHUNK);
    }

    /// True if the current poll must read no more.
    pub(in crate::gateway::connection) fn has_read_enough(&self) -> bool {
        let PollCounts { frames, bytes, block_bytes, .. } = self.poll;
        frames >= MAX_POLL_FRAMES || bytes >= MAX_POLL_BYTES || block_bytes >= MAX_POLL_BLOCK_BYTES
    }

    /// Ends a poll, after h2 read the bytes that arrived in it. Rejected header blocks are charged by their mean
    /// size. A flood is reported one poll after the debt exceeded its limit, so that h2's responses to those
    /// blocks are still sent.
    ///
    /// # Errors
    /// [`Flood`] if the connection must be closed.
    pub(in crate::gateway::connection) fn end_poll(&mut self, now: Moment) -> Result<(), Flood> {
        let PollCounts { blocks, block_bytes, requests, .. } = std::mem::take(&mut self.poll);
        let (rejected, cost) = &mut self.rejected;
        let late = requests.saturating_sub(blocks).min(*rejected);
        if late > 0 {
            // h2 stops reading while it cannot write: these blocks arrived in an earlier poll.
            let refund = *cost / *rejected * late;
            (*rejected, *cost) = (*rejected - late, *cost - refund);
            self.pay(FRAME_COST.saturating_mul(refund));
        } else if blocks > requests {
            let more = blocks - requests;
            let by_size = if self.is_proxy { 0 } else { cost_by_size(block_bytes / blocks as usize) };
            let costs = more.saturating_mul(1 + by_size);
            (*rejected, *cost) = (rejected.saturating_add(more), cost.saturating_add(costs));
            let was_flood = self.paid_at.since(now) > MAX_DEBT;
            self.paid_at = self.paid_after(costs, now);
            if was_flood {
                return Err(Flood);
            }
        }
        Ok(())
    }

    fn pay(&mut self, paid: Duration) {
        self.paid_at = Moment(self.paid_at.0.saturating_sub(nanos(paid)));
    }

    /// Scans bytes that arrived, split anywhere.
    ///
    /// # Errors
    /// [`Flood`] if the connection must be closed.
    pub(in crate::gateway::connection) fn scan(
        &mut self,
        mut bytes: &[u8],
        now: Moment,
    ) -> Result<(), Flood> {
        self.poll.bytes += bytes.len();
        loop {
            let here = self.skip.min(bytes.len());
            self.skip -= here;
            bytes = &bytes[here..];
            if self.skip == 0 && std::mem::take(&mut self.ends_block) {
                self.end_block();
            }
            if bytes.is_empty() {
                return Ok(());
            }
            let take = (FRAME_HEADER - self.header_len).min(bytes.len());
            self.header[self.header_len..self.header_len + take].copy_from_slice(&bytes[..take]);
            self.header_len += take;
            bytes = &bytes[take..];
            if self.header_len == FRAME_HEADER {
                self.header_len = 0;
                self.begin_frame(now)?;
            }
        }
    }

    fn begin_frame(&mut self, now: Moment) -> Result<(), Flood> {
        let [high, middle, low, kind, flags, stream @ ..] = self.header;
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff; // without the reserved bit
        self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.poll.frames += 1;
        let opens_stream = kind == HEADERS && stream > self.last_stream;
        if opens_stream {
            self.last_stream = stream;
            self.block_bytes = 1; // counts the fragments that follow too
        }
        if kind == HEADERS || kind == CONTINUATION {
            self.block_since.get_or_insert(now);
            self.ends_block = flags & END_HEADERS != 0;
            self.block_bytes += if self.block_bytes > 0 { self.skip } else { 0 };
        }
        self.ack_bytes += match kind {
            PING if flags & ACK == 0 => FRAME_HEADER + 8,
            SETTINGS if flags & ACK == 0 => FRAME_HEADER,
            _ => 0,
        };
        match kind {
            HEADERS if opens_stream => Ok(()), // see `end_poll`
            HEADERS => {
                self.charge(cost_by_size(self.skip.saturating_sub(FREE_TRAILERS)), now)?;
                self.end_request(now)
            }
            DATA if flags & END_STREAM != 0 => self.end_request(now),
            DATA if self.skip > 0 => Ok(()),
            RST_STREAM => self.charge(1 + FRAMES_PER_REQUEST, now),
            _ => self.charge(1, now),
        }
    }

    /// Ends a header block; one that opens a stream may become a request.
    fn end_block(&mut self) {
        self.block_since = None;
        let bytes = std::mem::take(&mut self.block_bytes);
        if bytes > 0 {
            self.poll.blocks += 1;
            self.poll.block_bytes += bytes;
        }
    }

    fn end_request(&mut self, now: Moment) -> Result<(), Flood> {
        match self.ends_due.checked_sub(1) {
            Some(left) => self.ends_due = left,
            None => self.charge(1, now)?,
        }
        Ok(())
    }

    /// When the debt will be paid if this many frames are added to it.
    fn paid_after(&self, frames: u32, now: Moment) -> Moment {
        Moment(self.paid_at.0.max(now.0)).plus(FRAME_COST.saturating_mul(frames))
    }

    fn charge(&mut self, frames: u32, now: Moment) -> Result<(), Flood> {
        let paid_at = self.paid_after(frames, now);
        if paid_at.since(now) > MAX_DEBT {
            return Err(Flood);
        }
        self.paid_at = paid_at;
        Ok(())
    }
}

/// Cost of a header block of this many bytes, in frames, besides its own frame.
fn cost_by_size(bytes: usize) -> u32 {
    u32::try_from(bytes / BLOCK_BYTES_PER_FRAME).unwrap_or(u32::MAX).min(MAX_BLOCK_COST - 1)
}

#[cfg(test)]
mod tests;
