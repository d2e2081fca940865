//! Which parser a connection of HTTP/1.1 needs, see [`ManyFields`](crate::gateway::head::ManyFields).

use bytes::Bytes;

use super::{Connection, Inner, Phase, Scanner};

impl Connection {
    /// A parser begins, which takes heads with many fields or does not.
    pub(in crate::gateway) fn begin_parser(&self, many_fields: bool) {
        if let Scanner::Heads(heads) = &mut self.inner.lock().scanner {
            heads.many_fields().set_taken(many_fields);
        }
    }
}

impl Inner {
    /// Whether a head waits for another parser, and this one has answered all that came before. One that
    /// is about to end the connection gets no successor.
    pub(super) fn needs_other_parser(&self) -> bool {
        let rests = self.phase != Phase::Busy && !self.told && !self.writing.is_on();
        rests && matches!(&self.scanner, Scanner::Heads(heads) if heads.keeps_head())
    }

    /// What the parser is to read before the socket, up to `most` bytes; `None` where it is to wait.
    pub(in crate::gateway) fn reread(&mut self, most: usize) -> Option<Bytes> {
        match &mut self.scanner {
            Scanner::Heads(heads) if heads.keeps_head() => None,
            Scanner::Heads(heads) => Some(heads.many_fields().take(most)),
            Scanner::Frames(_) => Some(Bytes::new()),
        }
    }

    /// The parser ends the connection: what the client still asks for gets no answer.
    pub(in crate::gateway) fn ends(&mut self) {
        self.told |= matches!(self.scanner, Scanner::Heads(_));
    }
}
