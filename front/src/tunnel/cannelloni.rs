//! Datagrams of cannelloni over UDP, version 2 of its format (reference: hopr.md, 6): how many CAN frames are in one.
//!
//! What lives here: whether a whole datagram is what a cannelloni sends. The real receiver puts the frames before a defect on
//! the bus, copies up to 127 bytes into room for 64, and ignores what comes after the last frame; here one defect refuses
//! the datagram. What must never live here: the sequence number, which the receiver does not look at either.

use super::content::{Content, Fault};

const VERSION: u8 = 2;
const DATA: u8 = 0;
/// In the identifier: extended form, remote request, error frame. (`linux/can.h`)
const EXTENDED: u32 = 0x8000_0000;
const REMOTE: u32 = 0x4000_0000;
const ERROR: u32 = 0x2000_0000;
const HIGHEST: u32 = 0x7FF;
/// In the length: a frame of CAN FD, after which comes a byte of flags.
const FD: u8 = 0x80;
const LONGEST: u8 = 8;
const LONGEST_FD: u8 = 64;

/// What is in a datagram. One without frames is neither a sign of life nor a command; each frame is a command, remote
/// requests too, which some drives take for one.
///
/// # Errors
/// It is none of cannelloni's, and must not go on.
pub fn frames(datagram: &[u8]) -> Result<Content, Fault> {
    let short = Fault::Short(datagram.len());
    let Some((&[version, operation, _sequence, high, low], mut rest)) = datagram.split_first_chunk() else {
        return Err(short);
    };
    if version != VERSION {
        return Err(Fault::Version(version));
    }
    if operation != DATA {
        return Err(Fault::Operation(operation));
    }
    let mut content = Content::default();
    for _ in 0..u16::from_be_bytes([high, low]) {
        rest = after_frame(rest)?.ok_or(short)?;
        content.command();
    }
    if rest.is_empty() { Ok(content) } else { Err(Fault::Trailing(rest.len())) }
}

/// What follows the first frame; `None` if that is not complete.
fn after_frame(bytes: &[u8]) -> Result<Option<&[u8]>, Fault> {
    let Some((id, bytes)) = bytes.split_first_chunk() else { return Ok(None) };
    let Some((&length, bytes)) = bytes.split_first() else { return Ok(None) };
    let id = u32::from_be_bytes(*id);
    let is_fd = length & FD != 0;
    let highest = if id & EXTENDED == 0 { HIGHEST } else { u32::MAX };
    // CAN FD has no remote requests.
    if id & ERROR != 0 || id & !(EXTENDED | REMOTE) > highest || (is_fd && id & REMOTE != 0) {
        return Err(Fault::Identifier(id));
    }
    let data = length & !FD;
    if data > if is_fd { LONGEST_FD } else { LONGEST } {
        return Err(Fault::Length(length));
    }
    // A remote request says how much it asks for, and has none of it.
    let data = if id & REMOTE == 0 { usize::from(data) } else { 0 };
    Ok(bytes.get(usize::from(is_fd) + data..))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any, prop_oneof};
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    /// A frame as it stands in a datagram.
    fn frame(id: u32, length: u8, rest: &[u8]) -> Vec<u8> {
        [&id.to_be_bytes()[..], &[length], rest].concat()
    }

    fn datagram(count: u16, frames: &[Vec<u8>]) -> Vec<u8> {
        [&[2, 0, 7][..], &count.to_be_bytes(), &frames.concat()].concat()
    }

    /// Reads the datagram as the real receiver does, and tells what that puts on the bus: identifiers and lengths.
    fn received(datagram: &[u8]) -> Vec<(u32, u8)> {
        let mut sent = Vec::new();
        if datagram.len() < 5 || datagram[0] != 2 || datagram[1] != 0 {
            return sent;
        }
        let mut at = 5;
        for _ in 0..u16::from_be_bytes([datagram[3], datagram[4]]) {
            let Some(head) = datagram.get(at..at + 5) else { return sent };
            let id = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            at += 5 + usize::from(head[4] >> 7);
            if id & 0x4000_0000 == 0 {
                at += usize::from(head[4] & 0x7F);
            }
            if at > datagram.len() {
                return sent;
            }
            sent.push((id, head[4]));
        }
        sent
    }

    fn commands(datagram: &[u8]) -> Result<u32, Fault> {
        frames(datagram).map(|content| content.commands)
    }

    #[test]
    fn frames_are_counted() {
        let plain = frame(0x06D, 8, &[1, 2, 3, 4, 5, 6, 7, 8]);
        let extended = frame(0x8000_0123, 0, &[]);
        let remote = frame(0x4000_0123, 8, &[]);
        let fd = frame(0x123, 0x80 | 12, &[&[1][..], &[0; 12]].concat());
        let all = [plain, extended, remote, fd];
        assert_eq!(frames(&datagram(4, &all)), Ok(Content { beats: true, commands: 4 }));
        for (place, one) in all.iter().enumerate() {
            assert_eq!(commands(&datagram(1, std::slice::from_ref(one))), Ok(1), "frame {place}");
        }
    }

    #[test]
    fn datagram_without_frames_is_no_sign_of_life() {
        assert_eq!(frames(&datagram(0, &[])), Ok(Content::default()));
    }

    #[test]
    fn defects_refuse_the_whole_datagram() {
        let good = frame(0x123, 2, &[1, 2]);
        let with = |bad: Vec<u8>| commands(&datagram(2, &[good.clone(), bad]));
        assert_eq!(commands(&[]), Err(Fault::Short(0)));
        assert_eq!(commands(&[2, 0, 0, 0]), Err(Fault::Short(4)));
        assert_eq!(commands(&[1, 0, 0, 0, 0]), Err(Fault::Version(1)));
        assert_eq!(commands(&[2, 1, 0, 0, 0]), Err(Fault::Operation(1)));
        assert_eq!(with(vec![]), Err(Fault::Short(12)));
        assert_eq!(with(frame(0x123, 2, &[1])), Err(Fault::Short(18)));
        assert_eq!(with(frame(0x123, 0x82, &[0, 1])), Err(Fault::Short(19)));
        assert_eq!(with(frame(0x123, 9, &[0; 9])), Err(Fault::Length(9)));
        assert_eq!(with(frame(0x123, 0x80 | 65, &[0; 66])), Err(Fault::Length(0xC1)));
        assert_eq!(with(frame(0x800, 0, &[])), Err(Fault::Identifier(0x800)));
        assert_eq!(with(frame(0x2000_0001, 8, &[0; 8])), Err(Fault::Identifier(0x2000_0001)));
        assert_eq!(with(frame(0x4000_0001, 0x81, &[0; 2])), Err(Fault::Identifier(0x4000_0001)));
        assert_eq!(with(frame(0x1, 1, &[0, 9])), Err(Fault::Trailing(1)));
    }

    /// Mostly right ones, so that the defects are where it matters.
    fn likely() -> impl Strategy<Value = Vec<u8>> {
        let one = (any::<u32>(), any::<u8>(), vec(any::<u8>(), 70), 0..4_u8).prop_map(
            |(id, length, data, form)| {
                let (id, length, flags) = match form {
                    0 => (id & 0x7FF, length % 9, 0),
                    1 => ((id & 0x1FFF_FFFF) | EXTENDED, length % 9, 0),
                    2 => (id & 0x7FF, (length % 65) | FD, 1),
                    _ => (id, length, usize::from(length >> 7)),
                };
                frame(id, length, &data[..flags + usize::from(length & 0x7F).min(64)])
            },
        );
        (vec(one, 0..6), any::<bool>(), any::<u16>()).prop_map(|(all, is_honest, count)| {
            let right = u16::try_from(all.len()).unwrap_or(u16::MAX);
            datagram(if is_honest { right } else { count % 8 }, &all)
        })
    }

    proptest! {
        /// What passes, the real receiver reads to its end, and finds in it just as many frames, all of them sound.
        #[test]
        fn what_passes_is_what_is_received(datagram in prop_oneof![likely(), vec(any::<u8>(), 0..80)]) {
            if let Ok(content) = frames(&datagram) {
                let received = received(&datagram);
                prop_assert_eq!(content.commands as usize, received.len());
                prop_assert_eq!(content.beats, !received.is_empty());
                for (id, length) in received {
                    prop_assert!(length & 0x7F <= 64 && id & ERROR == 0, "{:#x} {:#x}", id, length);
                    prop_assert!(length & FD != 0 || length <= 8);
                }
            }
        }
    }
}
