//! One connection to an upstream, and one request on it at a time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::io::AsyncRead;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;
use tokio_util::io::poll_read_buf;

use super::Open;
use super::answer::{self, Asks, Malformed};
use super::body::{AnswerBody, Source};
use super::decode::{Decoder, Piece};
use super::upload::{Cut, Spare, Upload};
use crate::types::NameId;

/// Room for the first read of an answer: the head, and all of a small body.
const FIRST_READ: usize = 8 * 1024;
/// Largest room for a further read.
const NEXT_READ: usize = 128 * 1024;
/// Most informational answers before the real one.
const MAX_INFORMATIONAL: usize = 32;

/// A connection. Between requests its buffer is empty, and its memory ([`FIRST_READ`] and what is
/// left of it) waits for the next answer.
#[derive(Debug)]
pub(super) struct Wire {
    reader: OwnedReadHalf,
    /// Not here while a body that outlives its answer's head is still being written.
    writer: Option<OwnedWriteHalf>,
    buffer: BytesMut,
    /// How much of the buffer was searched for the end of a head.
    searched: usize,
    _open: Open,
}

/// The upstream's answer: its head, and the body that still has to come.
#[derive(Debug)]
pub struct Answer {
    /// The status; never informational but for 101.
    pub status: StatusCode,
    /// All fields, as they came.
    pub headers: HeaderMap,
    /// The body.
    pub body: AnswerBody,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Broken<B> {
    /// The connection was closed before a byte of the request was written.
    Unsent(Upload<B>),
    /// It broke, or spoke no HTTP.
    Sent(Fault),
}

/// Why an answer, or its body, ended early.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// What came is not an answer.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The upstream closed before its answer was whole.
    #[error("the upstream closed the connection early")]
    Closed,
    /// The client's body broke off, or outgrew its bound.
    #[error("the request's body ended early")]
    Body,
    /// Nothing of the body came for as long as its route waits.
    #[error("the upstream was silent for too long")]
    Silent,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, open: Open) -> Self {
        let (reader, writer) = stream.into_split();
        Self { reader, writer: Some(writer), buffer: BytesMut::new(), searched: 0, _open: open }
    }

    /// Whether an idle connection still stands, as far as the kernel told: no end, and no byte that
    /// nobody asked for.
    pub(super) fn is_idle(&self) -> bool {
        // Asks the kernel only where it told of something.
        self.reader.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a request and reads the head of its answer.
    pub(super) async fn exchange<B>(
        mut self,
        mut upload: Upload<B>,
        asks: Asks,
        server: NameId,
        spare: &Spare,
    ) -> Result<Answer, Broken<B>>
    where
        B: Body<Data = Bytes> + Unpin + 'static,
    {
        let mut uploaded = false;
        let mut informational = 0;
        let head = std::future::poll_fn(|context| {
            if !upload.is_started() && !self.is_idle() {
                return Poll::Ready(Err(Fault::Closed)); // no answer to a request that was not sent
            }
            if !uploaded {
                uploaded = self.poll_upload(&mut upload, context)?;
            }
            if !upload.is_started() {
                return Poll::Pending;
            }
            loop {
                let head = ready!(self.poll_head(context, asks))?;
                if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                    return Poll::Ready(Ok(head));
                }
                informational += 1;
                if informational > MAX_INFORMATIONAL {
                    return Poll::Ready(Err(Fault::Malformed(Malformed::TooLarge)));
                }
            }
        });
        match head.await {
            Ok(head) => {
                let uploading = if uploaded {
                    spare.put(upload.into_memory());
                    None
                } else {
                    self.upload_on(upload)
                };
                let answer::Head { status, headers, decoder, persistent } = head;
                let body = WireBody { wire: Some(self), decoder, persistent, uploading, server };
                let body = AnswerBody(Source::Wire(body));
                Ok(Answer { status, headers, body })
            }
            Err(Fault::Io(_) | Fault::Closed) if !upload.is_started() => Err(Broken::Unsent(upload)),
            Err(fault) => Err(Broken::Sent(fault)),
        }
    }

    /// Whether the request is written to its end. An upstream that takes no more of it may have
    /// answered all the same: that is for the reading side to see.
    fn poll_upload<B>(&mut self, upload: &mut Upload<B>, context: &mut Context<'_>) -> Result<bool, Fault>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let Some(writer) = &mut self.writer else { return Ok(false) };
        match upload.poll(writer, context) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(Cut::Body)) => Err(Fault::Body),
            Poll::Ready(Err(Cut::Upstream(error))) if !upload.is_started() => Err(Fault::Io(error)),
            Poll::Ready(Err(Cut::Upstream(_))) => {
                self.writer = None;
                Ok(false)
            }
        }
    }

    fn poll_head(&mut self, context: &mut Context<'_>, asks: Asks) -> Poll<Result<answer::Head, Fault>> {
        loop {
            if !self.buffer.is_empty()
                && let Some(head) = answer::take(&mut self.buffer, &mut self.searched, asks)?
            {
                return Poll::Ready(Ok(head));
            }
            if ready!(self.poll_fill(context, FIRST_READ))? == 0 {
                return Poll::Ready(Err(Fault::Closed));
            }
        }
    }

    fn poll_fill(&mut self, context: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        self.buffer.reserve(room);
        poll_read_buf(Pin::new(&mut self.reader), context, &mut self.buffer)
    }

    /// A request whose answer began before it was sent to its end is written on by a task of its
    /// own: who reads the answer may wait for the client, and the client for this. Ends with the
    /// answer's body, or with the request's.
    fn upload_on<B>(&mut self, mut upload: Upload<B>) -> Option<JoinHandle<Result<(), Cut>>>
    where
        B: Body<Data = Bytes> + Unpin + 'static,
    {
        let mut writer = self.writer.take()?;
        Some(tokio::task::spawn_local(async move {
            std::future::poll_fn(|context| upload.poll(&mut writer, context)).await?;
            writer.forget(); // the reading half closes the connection; a request that is cut closes this one
            Ok(())
        }))
    }
}

/// The body of an answer, and the connection that it comes on.
#[derive(Debug)]
pub(super) struct WireBody {
    wire: Option<Wire>,
    decoder: Decoder,
    persistent: bool,
    /// The rest of the request, where it is still being sent.
    uploading: Option<JoinHandle<Result<(), Cut>>>,
    pub(super) server: NameId,
}

impl WireBody {
    /// The connection, if it may serve another request: the answer was read to its end, the request
    /// was sent to its end, and nothing came behind.
    pub(super) fn into_wire(mut self) -> Option<Wire> {
        let reusable = self.persistent && self.decoder.is_over() && self.uploading.is_none();
        let mut wire = self.wire.take().filter(|wire| reusable && wire.buffer.is_empty())?;
        wire.writer.as_ref()?;
        if wire.buffer.capacity() > FIRST_READ {
            wire.buffer = BytesMut::new(); // grown for a large body
        }
        Some(wire)
    }

    /// All of the body, if its length is known and it has come; nothing is left then.
    pub(super) fn take_whole(&mut self) -> Option<Bytes> {
        let left = self.decoder.left().filter(|left| *left > 0)?;
        let wire = self.wire.as_mut().filter(|wire| wire.buffer.len() as u64 >= left)?;
        self.decoder = Decoder::Length(0);
        Some(wire.buffer.split_to(usize::try_from(left).ok()?).freeze())
    }

    /// Both directions of a connection that switched protocols, and what came behind the head.
    pub(super) fn into_tunnel(mut self) -> Option<(Bytes, impl AsyncRead + Unpin, OwnedWriteHalf)> {
        let wire = self.wire.take()?;
        let Wire { reader, writer, buffer, _open, .. } = wire;
        Some((buffer.freeze(), Counted { reader, _open }, writer?))
    }
}

impl Drop for WireBody {
    fn drop(&mut self) {
        if let Some(uploading) = self.uploading.take() {
            uploading.abort();
        }
    }
}

/// The reading half of a tunnel, which counts as a connection until its end.
struct Counted {
    reader: OwnedReadHalf,
    _open: Open,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(context, buffer)
    }
}

impl Body for WireBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let Self { wire, decoder, uploading, .. } = &mut *self;
        if let Some(task) = uploading
            && let Poll::Ready(ended) = Pin::new(task).poll(context)
        {
            *uploading = None;
            if let Ok(Err(Cut::Body)) = ended {
                return Poll::Ready(Some(Err(Fault::Body)));
            }
        }
        let Some(wire) = wire else { return Poll::Ready(None) };
        loop {
            match decoder.next(&mut wire.buffer)? {
                Piece::Data(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Piece::Trailers(fields) => return Poll::Ready(Some(Ok(Frame::trailers(fields)))),
                Piece::Over => return Poll::Ready(None),
                Piece::More => {}
            }
            let left = decoder.left().and_then(|left| usize::try_from(left).ok()).unwrap_or(FIRST_READ);
            if ready!(wire.poll_fill(context, left.clamp(1, NEXT_READ)))? == 0 {
                if *decoder != Decoder::UntilClose {
                    return Poll::Ready(Some(Err(Fault::Closed)));
                }
                *decoder = Decoder::Length(0);
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.decoder.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.decoder.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
