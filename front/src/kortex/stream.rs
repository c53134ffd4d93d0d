//! Frames on a byte stream: eight bytes that never change, a length, the frame. (Reference: kortex.md, 1.1.)

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use thiserror::Error;

/// What every frame begins with.
pub const MAGIC: [u8; 8] = [0x07, b'x', b'E', b't', b'R', b'o', b'K', 0x07];
/// That and the length.
pub const HEAD: usize = 12;
/// Longest frame that is taken. Every call that is served here fits into a hundredth of it.
pub const MOST_FRAME: usize = 64 * 1024;

/// What is no stream of frames. Nobody knows where the next one would begin, so that the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StreamError {
    /// Something else begins.
    #[error("it does not speak Kortex: a frame begins with 07 78 45 74 52 6f 4b 07")]
    Magic,
    /// A frame of no bytes.
    #[error("a frame of no bytes")]
    Empty,
    /// A frame that is too long.
    #[error("a frame of {0} bytes; at most {MOST_FRAME} are taken")]
    TooLong(u32),
}

/// Takes the next frame off what has come; `None` while it is not whole.
///
/// # Errors
///
/// When what has come is no stream of frames: as soon as that shows, not when more of it has come.
pub fn take(come: &mut BytesMut) -> Result<Option<Bytes>, StreamError> {
    let seen = come.len().min(MAGIC.len());
    if come[..seen] != MAGIC[..seen] {
        return Err(StreamError::Magic);
    }
    let Some(length) = come.get(MAGIC.len()..HEAD) else { return Ok(None) };
    let alleged = u32::from_be_bytes([length[0], length[1], length[2], length[3]]);
    let length = match usize::try_from(alleged) {
        Ok(0) => return Err(StreamError::Empty),
        Ok(length) if length <= MOST_FRAME => length,
        _ => return Err(StreamError::TooLong(alleged)),
    };
    if come.len() < HEAD + length {
        return Ok(None);
    }
    come.advance(HEAD);
    Ok(Some(come.split_to(length).freeze()))
}

/// A frame with its head, as one piece: clients read the head with one call, and lose it when it comes in two.
#[must_use]
pub fn put(frame: &[u8]) -> Bytes {
    let mut whole = BytesMut::with_capacity(HEAD + frame.len());
    whole.put_slice(&MAGIC);
    // Our own frames have at most 16 MiB.
    whole.put_u32(u32::try_from(frame.len()).unwrap_or(u32::MAX));
    whole.put_slice(frame);
    whole.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::vectors;
    use super::*;

    #[test]
    fn golden_streams_come_apart_wherever_they_are_cut() {
        let golden = vectors::tcp();
        let stream: Vec<u8> = golden.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
        for piece in [1, 7, 12, 13, 1000, stream.len()] {
            let mut come = BytesMut::new();
            let mut taken = Vec::new();
            for chunk in stream.chunks(piece) {
                come.extend_from_slice(chunk);
                while let Some(frame) = take(&mut come).unwrap() {
                    taken.push(frame);
                }
            }
            assert!(come.is_empty());
            assert_eq!(taken.len(), golden.len());
            for (frame, (what, whole)) in taken.iter().zip(&golden) {
                assert_eq!(put(frame), whole, "{what}");
            }
        }
    }

    #[test]
    fn what_is_no_stream_shows_at_once() {
        let take = |bytes: &[u8]| super::take(&mut BytesMut::from(bytes));
        assert_eq!(take(b"G"), Err(StreamError::Magic));
        assert_eq!(take(b"\x07xEtRoX"), Err(StreamError::Magic));
        assert_eq!(take(b""), Ok(None));
        assert_eq!(take(&MAGIC), Ok(None));
        let with = |length: u32| [&MAGIC[..], &length.to_be_bytes()].concat();
        assert_eq!(take(&with(0)), Err(StreamError::Empty));
        assert_eq!(take(&with(65_537)), Err(StreamError::TooLong(65_537)));
        assert_eq!(take(&with(u32::MAX)), Err(StreamError::TooLong(u32::MAX)));
        assert_eq!(take(&with(65_536)), Ok(None));
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..64), real: bool) {
            let mut come = BytesMut::new();
            if real {
                come.extend_from_slice(&MAGIC);
            }
            come.extend_from_slice(&bytes);
            while let Ok(Some(frame)) = take(&mut come) {
                prop_assert!(!frame.is_empty());
            }
        }
    }
}
