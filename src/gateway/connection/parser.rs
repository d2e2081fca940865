//! Which parser of heads a connection of HTTP/1.1 needs, see [`ManyFields`](crate::gateway::head::ManyFields).

use bytes::Bytes;

use super::{Connection, Inner, Phase, Scanner};

impl Connection {
    /// A parser of heads begins, which takes those with many fields or not.
    pub(in crate::gateway) fn begin_parser(&self, many_fields: bool) {
        if let Scanner::Heads(heads) = &mut self.inner.lock().scanner {
            heads.many_fields().set_taken(many_fields);
        }
    }

    /// Whether the parser has nothing more to do before a head comes that it does not take.
    pub(in crate::gateway) fn needs_other_parser(&self) -> bool {
        let inner = self.inner.lock();
        let keeps = matches!(&inner.scanner, Scanner::Heads(heads) if heads.keeps_many_fields());
        keeps && inner.phase != Phase::Busy && !inner.writing.is_on()
    }
}

impl Inner {
    /// Bytes that came before and that hyper is to have now, up to `most`; `None` where it is to have nothing.
    pub(in crate::gateway) fn reread(&mut self, most: usize) -> Option<Bytes> {
        match &mut self.scanner {
            Scanner::Heads(heads) if heads.keeps_many_fields() => None,
            Scanner::Heads(heads) => Some(heads.many_fields().take(most)),
            Scanner::Frames(_) => Some(Bytes::new()),
        }
    }
}
