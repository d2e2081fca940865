//! An answer's body in the pieces that HTTP/2 is handed.
//!
//! h2 takes each piece whole once its client has opened its window for all pieces before and for one
//! byte more. What it took it keeps for as long as the client likes; and the last of an answer is
//! nobody's concern any more. So no piece is large, and a long answer's last byte goes by itself:
//! when that is taken, the client has made room for all of it.

use bytes::Bytes;
use http_body::Frame;

/// Most bytes of a piece: a frame's, unless a client allows larger ones.
const PIECE: usize = 16 * 1024;
/// The end of an answer that need not be cut: a further frame would cost more than it is to keep these.
const SHORT: usize = 1024;

/// What is left of a frame of the body that was cut.
#[derive(Debug, Default)]
pub(super) struct Pieces(Bytes);

impl Pieces {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// The next piece of what is left.
    pub(super) fn next(&mut self, is_last: bool) -> Option<Frame<Bytes>> {
        let rest = std::mem::take(&mut self.0);
        (!rest.is_empty()).then(|| self.first(rest, is_last, 1))
    }

    /// The first piece of a frame. `is_last` where the answer ends with it.
    pub(super) fn cut(&mut self, frame: Frame<Bytes>, is_last: bool) -> Frame<Bytes> {
        match frame.into_data() {
            Ok(data) => self.first(data, is_last, SHORT),
            Err(trailers) => trailers,
        }
    }

    fn first(&mut self, mut data: Bytes, is_last: bool, short: usize) -> Frame<Bytes> {
        let most = if is_last && data.len() > short { data.len() - 1 } else { data.len() };
        if most.min(PIECE) < data.len() {
            self.0 = data.split_off(most.min(PIECE));
        }
        Frame::data(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_are_the_frame_and_a_long_answers_last_byte_goes_alone(
            size in prop_oneof![0_usize..3000, 0_usize..200_000],
            is_last: bool,
        ) {
            let data: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let mut pieces = Pieces::default();
            let mut all = vec![pieces.cut(Frame::data(data.clone().into()), is_last).into_data().unwrap()];
            while let Some(piece) = pieces.next(is_last) {
                all.push(piece.into_data().unwrap());
            }
            prop_assert!(pieces.is_empty());
            prop_assert_eq!(all.concat(), data);
            prop_assert!(all.iter().all(|piece| piece.len() <= PIECE));
            let last = all.last().unwrap().len();
            prop_assert_eq!(is_last && size > SHORT, all.len() > 1 && last == 1 && is_last);
            prop_assert!(size == 0 || last > 0);
        }
    }
}
