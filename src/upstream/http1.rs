//! One HTTP/1.1 connection to an upstream, with one request at a time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use tokio::io::AsyncRead;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;
use tokio_util::io::poll_read_buf;

use super::body_decoder::{BodyDecoder, Decoded};
use super::connection_count::CountedConnection;
use super::request::{HeadBuffers, Upload, UploadError};
use super::response::{ResponseFault, ResponseOf};
use super::response_head::{FramingContext, Malformed, ResponseHead, take_head};
use crate::types::NameId;

/// Buffer for the first read of a response: the head, and all of a small body.
const FIRST_READ: usize = 8 * 1024;
/// Largest buffer for a further read.
const NEXT_READ: usize = 128 * 1024;
/// Most informational (1xx) responses before the final one.
const MAX_INFORMATIONAL: usize = 32;

/// An HTTP/1.1 connection. Between requests its buffer is empty, and its memory is kept for the next response.
#[derive(Debug)]
pub(super) struct Http1Connection {
    reader: OwnedReadHalf,
    /// `None` while a separate task writes the rest of a request whose response has begun, or if a write failed.
    writer: Option<OwnedWriteHalf>,
    buffer: BytesMut,
    /// How many bytes of the buffer were searched for the end of a head.
    searched: usize,
    _counted: CountedConnection,
}

/// Why an exchange has no response.
#[derive(Debug)]
pub(super) enum ExchangeError<B> {
    /// The connection was closed before a byte of the request was written.
    Unsent(Upload<B>),
    /// The exchange failed otherwise: the connection broke, the response is malformed, or the request body ended early.
    Sent(ResponseFault),
}

impl Http1Connection {
    pub(super) fn new(stream: TcpStream, counted: CountedConnection) -> Self {
        let (reader, writer) = stream.into_split();
        Self { reader, writer: Some(writer), buffer: BytesMut::new(), searched: 0, _counted: counted }
    }

    /// True if an idle connection is still open, as far as the kernel knows, and no unrequested byte arrived.
    pub(super) fn is_idle(&self) -> bool {
        // This makes a system call only if the kernel has reported an event on the socket.
        self.reader.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a request and reads the response head.
    pub(super) async fn exchange<B>(
        mut self,
        mut upload: Upload<B>,
        framing: FramingContext,
        server: NameId,
        buffers: &HeadBuffers,
    ) -> Result<ResponseOf<Http1Body>, ExchangeError<B>>
    where
        B: Body<Data = Bytes> + Unpin + 'static,
    {
        let mut uploaded = false;
        let mut informational = 0;
        let head = std::future::poll_fn(|context| {
            if !upload.is_started() && !self.is_idle() {
                return Poll::Ready(Err(ResponseFault::Closed)); // closed, or it sent bytes before the request
            }
            if !uploaded {
                uploaded = self.poll_upload(&mut upload, context)?;
            }
            if !upload.is_started() {
                return Poll::Pending;
            }
            loop {
                let head = ready!(self.poll_head(context, framing))?;
                if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                    return Poll::Ready(Ok(head));
                }
                informational += 1;
                if informational > MAX_INFORMATIONAL {
                    return Poll::Ready(Err(ResponseFault::Malformed(Malformed::TooLarge)));
                }
            }
        });
        match head.await {
            Ok(head) => {
                let uploading = if uploaded {
                    buffers.put(upload.into_memory());
                    None
                } else {
                    self.spawn_upload(upload)
                };
                let ResponseHead { status, headers, decoder, persistent } = head;
                let body = Http1Body { connection: Some(self), decoder, persistent, uploading, server };
                Ok(ResponseOf { status, headers, body })
            }
            Err(ResponseFault::Io(_) | ResponseFault::Closed) if !upload.is_started() => {
                Err(ExchangeError::Unsent(upload))
            }
            Err(fault) => Err(ExchangeError::Sent(fault)),
        }
    }

    /// Writes the request; true once it is written to its end. If the upstream stops reading, its response is still
    /// awaited.
    fn poll_upload<B>(
        &mut self,
        upload: &mut Upload<B>,
        context: &mut Context<'_>,
    ) -> Result<bool, ResponseFault>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let Some(writer) = &mut self.writer else { return Ok(false) };
        match upload.poll(writer, context) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(UploadError::Body)) => Err(ResponseFault::Body),
            Poll::Ready(Err(UploadError::Upstream(error))) if !upload.is_started() => {
                Err(ResponseFault::Io(error))
            }
            Poll::Ready(Err(UploadError::Upstream(_))) => {
                self.writer = None;
                Ok(false)
            }
        }
    }

    fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        framing: FramingContext,
    ) -> Poll<Result<ResponseHead, ResponseFault>> {
        loop {
            if !self.buffer.is_empty()
                && let Some(head) = take_head(&mut self.buffer, &mut self.searched, framing)?
            {
                return Poll::Ready(Ok(head));
            }
            if ready!(self.poll_fill(context, FIRST_READ))? == 0 {
                return Poll::Ready(Err(ResponseFault::Closed));
            }
        }
    }

    fn poll_fill(&mut self, context: &mut Context<'_>, size: usize) -> Poll<io::Result<usize>> {
        self.buffer.reserve(size);
        poll_read_buf(Pin::new(&mut self.reader), context, &mut self.buffer)
    }

    /// Spawns a task that writes the rest of a request whose response has begun: the reader of the response may wait
    /// for the client, and the client may wait until its request is read. The task ends with the request body, and is
    /// aborted with the response body.
    fn spawn_upload<B>(&mut self, mut upload: Upload<B>) -> Option<JoinHandle<Result<(), UploadError>>>
    where
        B: Body<Data = Bytes> + Unpin + 'static,
    {
        let mut writer = self.writer.take()?;
        Some(tokio::task::spawn_local(async move {
            std::future::poll_fn(|context| upload.poll(&mut writer, context)).await?;
            writer.forget(); // the reading half closes the connection; after an error, dropping `writer` does
            Ok(())
        }))
    }
}

/// The body of a response, and the connection that it comes from.
#[derive(Debug)]
pub(super) struct Http1Body {
    connection: Option<Http1Connection>,
    decoder: BodyDecoder,
    persistent: bool,
    /// The task that writes the rest of the request.
    uploading: Option<JoinHandle<Result<(), UploadError>>>,
    pub(super) server: NameId,
}

impl Http1Body {
    /// The connection, if it can serve another request: the response was read and the request written to its end,
    /// and no further byte arrived.
    pub(super) fn into_connection(mut self) -> Option<Http1Connection> {
        let reusable = self.persistent && self.decoder.is_at_end() && self.uploading.is_none();
        let mut connection = self.connection.take().filter(|it| reusable && it.buffer.is_empty())?;
        connection.writer.as_ref()?;
        if connection.buffer.capacity() > FIRST_READ {
            connection.buffer = BytesMut::new(); // grown for a large body
        }
        Some(connection)
    }

    /// Takes the whole body, if its length is known and all of it arrived.
    pub(super) fn take_whole(&mut self) -> Option<Bytes> {
        let left = self.decoder.left().filter(|left| *left > 0)?;
        let connection = self.connection.as_mut().filter(|it| it.buffer.len() as u64 >= left)?;
        self.decoder = BodyDecoder::Length(0);
        Some(connection.buffer.split_to(usize::try_from(left).ok()?).freeze())
    }

    /// The two directions of a connection that switched protocols, and the bytes that arrived after the head.
    pub(super) fn into_tunnel(mut self) -> Option<(Bytes, impl AsyncRead + Unpin, OwnedWriteHalf)> {
        let Http1Connection { reader, writer, buffer, _counted, .. } = self.connection.take()?;
        Some((buffer.freeze(), CountedReader { reader, _counted }, writer?))
    }
}

impl Drop for Http1Body {
    fn drop(&mut self) {
        if let Some(uploading) = self.uploading.take() {
            uploading.abort();
        }
    }
}

/// The reading half of a tunnel, which counts as a connection until it is closed.
struct CountedReader {
    reader: OwnedReadHalf,
    _counted: CountedConnection,
}

impl AsyncRead for CountedReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(context, buffer)
    }
}

impl Body for Http1Body {
    type Data = Bytes;
    type Error = ResponseFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseFault>>> {
        let Self { connection, decoder, uploading, .. } = &mut *self;
        if let Some(task) = uploading
            && let Poll::Ready(ended) = Pin::new(task).poll(context)
        {
            *uploading = None;
            if let Ok(Err(UploadError::Body)) = ended {
                return Poll::Ready(Some(Err(ResponseFault::Body)));
            }
        }
        let Some(connection) = connection else { return Poll::Ready(None) };
        loop {
            match decoder.next(&mut connection.buffer)? {
                Decoded::Data(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Decoded::Trailers(fields) => return Poll::Ready(Some(Ok(Frame::trailers(fields)))),
                Decoded::End => return Poll::Ready(None),
                Decoded::Incomplete => {}
            }
            let left = decoder.left().and_then(|left| usize::try_from(left).ok()).unwrap_or(FIRST_READ);
            if ready!(connection.poll_fill(context, left.clamp(1, NEXT_READ)))? == 0 {
                if *decoder != BodyDecoder::UntilClose {
                    return Poll::Ready(Some(Err(ResponseFault::Closed)));
                }
                *decoder = BodyDecoder::Length(0);
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.decoder.is_at_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.decoder.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
