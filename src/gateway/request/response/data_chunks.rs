//! Splits a response body into the DATA chunks that are passed to h2.
//!
//! h2 accepts a whole chunk when the client has opened its window for all chunks before and for one more byte.
//! It buffers the chunk until the client reads, and after the last chunk of a response no deadline would apply
//! any more. So chunks are small, and the last byte of a long response is a chunk of its own: when h2 accepts
//! it, the client has opened its window for all bytes before.

use bytes::Bytes;
use http_body::Frame;

/// Largest chunk in bytes: one DATA frame, unless the client allows larger ones.
const MAX_CHUNK: usize = 16 * 1024;
/// A final frame up to this size is not split: one more DATA frame would cost more than buffering it.
const MAX_UNSPLIT: usize = 1024;

/// The rest of a body frame that was split.
#[derive(Debug, Default)]
pub(super) struct DataChunks(Bytes);

impl DataChunks {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// The next chunk of the rest. `is_last`: the response ends with the frame.
    pub(super) fn next(&mut self, is_last: bool) -> Option<Frame<Bytes>> {
        let rest = std::mem::take(&mut self.0);
        (!rest.is_empty()).then(|| self.split_data(rest, is_last, 1))
    }

    /// The first chunk of a frame. `is_last`: the response ends with the frame.
    pub(super) fn split(&mut self, frame: Frame<Bytes>, is_last: bool) -> Frame<Bytes> {
        match frame.into_data() {
            Ok(data) => self.split_data(data, is_last, MAX_UNSPLIT),
            Err(trailers) => trailers,
        }
    }

    fn split_data(&mut self, mut data: Bytes, is_last: bool, max_unsplit: usize) -> Frame<Bytes> {
        let most = if is_last && data.len() > max_unsplit { data.len() - 1 } else { data.len() };
        if most.min(MAX_CHUNK) < data.len() {
            self.0 = data.split_off(most.min(MAX_CHUNK));
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
        fn chunks_are_the_frame_and_a_long_responses_last_byte_is_a_chunk_of_its_own(
            size in prop_oneof![0_usize..3000, 0_usize..200_000],
            is_last: bool,
        ) {
            let data: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let mut chunks = DataChunks::default();
            let first = chunks.split(Frame::data(data.clone().into()), is_last);
            let mut all = vec![first.into_data().unwrap()];
            while let Some(chunk) = chunks.next(is_last) {
                all.push(chunk.into_data().unwrap());
            }
            prop_assert!(chunks.is_empty());
            prop_assert_eq!(all.concat(), data);
            prop_assert!(all.iter().all(|chunk| chunk.len() <= MAX_CHUNK));
            let last = all.last().unwrap().len();
            prop_assert_eq!(is_last && size > MAX_UNSPLIT, all.len() > 1 && last == 1 && is_last);
            prop_assert!(size == 0 || last > 0);
        }
    }
}
