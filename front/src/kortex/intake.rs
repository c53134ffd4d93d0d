//! When each piece of a byte stream arrived.
//!
//! What a read has brought is taken apart at once, and each frame or packet in it gets its place in the order of arrival
//! there. Answering one of them may take seconds, if its client does not read; those behind it are no younger for that.

use bytes::BytesMut;

use super::channel::Channel;
use crate::order::{Arrival, Origin, Sender};
use crate::sessions::Entity;

/// Pieces that are taken at a time. More than that are the smallest packets there are in a flood of them, which must not
/// take memory; those behind are only later for it.
const AT_ONCE: usize = 256;

/// The arrival of a piece: of its first bytes and of its last.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// Its first bytes.
    pub began: Arrival,
    /// Its last bytes.
    pub complete: Arrival,
}

impl Heard {
    /// Something has just arrived as a whole.
    #[must_use]
    pub fn now() -> Self {
        let arrival = Arrival::now();
        Self { began: arrival, complete: arrival }
    }

    /// The context of what arrived then over that channel, for that entity.
    #[must_use]
    pub fn origin(self, entity: &Entity, channel: &Channel) -> Origin {
        Origin::between(self.began, self.complete, Sender::new(entity.clone(), &channel.connection))
    }
}

/// Takes a stream apart.
#[derive(Debug, Default)]
pub struct Intake {
    /// When the first bytes of the piece arrived that is not whole yet.
    begun: Option<Arrival>,
}

impl Intake {
    /// Takes apart what has come, to be called after each read and until nothing comes of it: pieces in their order, and
    /// what is wrong behind them.
    pub fn take_apart<T, E>(
        &mut self,
        come: &mut BytesMut,
        take: impl Fn(&mut BytesMut) -> Result<Option<T>, E>,
    ) -> (Vec<(T, Heard)>, Result<(), E>) {
        let mut pieces = Vec::new();
        while pieces.len() < AT_ONCE {
            match take(come) {
                Ok(Some(piece)) => {
                    let complete = Arrival::now();
                    let began = self.begun.take().unwrap_or(complete);
                    pieces.push((piece, Heard { began, complete }));
                }
                Ok(None) => {
                    if !come.is_empty() {
                        self.begun.get_or_insert_with(Arrival::now);
                    }
                    break;
                }
                Err(error) => return (pieces, Err(error)),
            }
        }
        (pieces, Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream;
    use super::{AT_ONCE, BytesMut, Intake};

    #[test]
    fn pieces_are_numbered_in_their_order_and_a_late_end_leaves_the_beginning_where_it_was() {
        let frame = stream::put(b"abc");
        let mut intake = Intake::default();
        let mut come = BytesMut::new();
        come.extend_from_slice(&frame);
        come.extend_from_slice(&frame[..5]);
        let (first, _) = intake.take_apart(&mut come, stream::take);
        let before = super::Arrival::now();
        come.extend_from_slice(&frame[5..]);
        come.extend_from_slice(&frame);
        let (rest, ended) = intake.take_apart(&mut come, stream::take);
        assert!(ended.is_ok());
        let [(_, first)] = first[..] else { panic!("{first:?}") };
        let [(_, halved), (_, last)] = rest[..] else { panic!("{rest:?}") };
        assert!(first.complete.is_before(halved.began) && halved.began.is_before(before));
        assert!(before.is_before(halved.complete) && halved.complete.is_before(last.began));
    }

    #[test]
    fn what_came_before_an_error_is_handed_over() {
        let mut come = BytesMut::from(&stream::put(b"abc")[..]);
        come.extend_from_slice(b"nonsense");
        let (pieces, ended) = Intake::default().take_apart(&mut come, stream::take);
        assert_eq!((pieces.len(), ended), (1, Err(stream::StreamError::Magic)));
    }

    #[test]
    fn a_flood_is_taken_in_parts() {
        let (mut intake, mut come) = (Intake::default(), BytesMut::new());
        for _ in 0..=AT_ONCE {
            come.extend_from_slice(&stream::put(b"a"));
        }
        let counts = [(); 3].map(|()| intake.take_apart(&mut come, stream::take).0.len());
        assert_eq!(counts, [AT_ONCE, 1, 0]);
    }
}
