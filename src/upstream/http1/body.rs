//! The body of a response over HTTP/1.1.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::body_decoder::BodyDecoder;
use super::connection::{Exchange, Http1Connection};
use super::duplex::Duplex;
use super::response_head::ResponseHead;
use crate::upstream::connection_count::CountedConnection;
use crate::upstream::fault::ResponseFault;
use crate::upstream::io::Io;
use crate::upstream::request::OutgoingBody;
use crate::upstream::response::ResponseOf;

/// The body of a response, and where it comes from.
#[derive(Debug)]
pub(in crate::upstream) enum Http1Body {
    /// The connection, after its request was written to the end.
    Direct {
        connection: Box<Http1Connection>,
        decoder: BodyDecoder,
        /// The connection can serve another request after this response.
        persistent: bool,
    },
    /// A task that still writes the request.
    Duplex(Duplex),
}

impl Http1Body {
    /// The response of an exchange.
    pub(in crate::upstream) fn of<B: OutgoingBody>(exchange: Exchange<B>) -> ResponseOf<Self> {
        let Exchange { connection, head, rest } = exchange;
        let ResponseHead { status, headers, decoder, persistent, .. } = head;
        let body = match rest {
            None => Self::Direct { connection, decoder, persistent },
            Some(upload) => Self::Duplex(Duplex::start(connection, decoder, upload)),
        };
        ResponseOf { status, headers, body }
    }

    /// The connection, if it can serve another request: the response was read and the request written to its end,
    /// and no further byte arrived.
    pub(in crate::upstream) fn into_connection(self) -> Option<Box<Http1Connection>> {
        match self {
            Self::Direct { connection, decoder, persistent: true } if decoder.is_at_end() => {
                connection.reset()
            }
            _ => None,
        }
    }

    /// Takes the whole body, if its length is known and all of it arrived.
    pub(in crate::upstream) fn take_whole(&mut self) -> Option<Bytes> {
        let Self::Direct { connection, decoder, .. } = self else { return None };
        let left = decoder.left().filter(|&left| left > 0 && connection.buffer.len() as u64 >= left)?;
        *decoder = BodyDecoder::Length(0);
        Some(connection.buffer.split_to(usize::try_from(left).ok()?).freeze())
    }

    /// The connection after it switched protocols, and the bytes that arrived after the head.
    pub(in crate::upstream) fn into_switched(self) -> Option<(Bytes, Io, CountedConnection)> {
        match self {
            Self::Direct { connection, .. } => Some(connection.into_parts()),
            Self::Duplex(_) => None,
        }
    }
}

impl Body for Http1Body {
    type Data = Bytes;
    type Error = ResponseFault;

    #[inline]
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseFault>>> {
        match &mut *self {
            Self::Direct { connection, decoder, .. } => connection.poll_body(context, decoder),
            Self::Duplex(duplex) => duplex.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Direct { decoder, .. } => decoder.is_at_end(),
            Self::Duplex(duplex) => duplex.is_at_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let left = match self {
            Self::Direct { decoder, .. } => decoder.left(),
            Self::Duplex(duplex) => duplex.left(),
        };
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
