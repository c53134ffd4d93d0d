//! What cannelloni sends (reference: hopr.md, 6): datagrams, version 2 of its format, over UDP; over TCP version 1 of its
//! stream, a greeting and then frames without a head.
//!
//! What lives here: where a frame begins and ends, and whether it may go on. Over UDP a datagram passes whole or not at all:
//! the real receiver puts the frames before a defect on the bus, copies up to 127 bytes into room for 64, and ignores what
//! comes after the last frame; here one defect, or one frame that must not pass, refuses the datagram. Over TCP frames go on
//! whole: the real receiver keeps the half frame of a connection that broke, and reads the next one behind it. What must
//! never live here: the sequence number, which the receiver does not look at either.

use std::sync::Arc;

use drivers::{ArbitrationId, Frame};

use super::content::{Content, Fault};
use super::reach::{Reach, Refusal, Standing};

const VERSION: u8 = 2;
const DATA: u8 = 0;
/// How a connection begins, from either side (`tcpthread.cpp` of 2.1.2).
const GREETING: &[u8] = b"CANNELLONIv1";
/// In the identifier: extended form, remote request, error frame. (`linux/can.h`)
const EXTENDED: u32 = 0x8000_0000;
const REMOTE: u32 = 0x4000_0000;
const ERROR: u32 = 0x2000_0000;
const HIGHEST: u32 = 0x7FF;
/// In the length: a frame of CAN FD, after which comes a byte of flags.
const FD: u8 = 0x80;
const LONGEST: u8 = 8;
const LONGEST_FD: u8 = 64;

/// What is in a datagram whose client stands to the motors as told. One without frames is neither a sign of life nor a
/// command. Without a `reach` each frame is a command, remote requests too, which some drives take for one.
///
/// # Errors
/// It is none of cannelloni's, or must not go on.
pub fn frames(datagram: &[u8], reach: Option<&Reach>, standing: Standing) -> Result<Content, Fault> {
    let short = || Fault::Short(datagram.len());
    let Some((&[version, operation, _sequence, high, low], mut rest)) = datagram.split_first_chunk() else {
        return Err(short());
    };
    if version != VERSION {
        return Err(Fault::Version(version));
    }
    if operation != DATA {
        return Err(Fault::Operation(operation));
    }
    let mut content = Content::default();
    for _ in 0..u16::from_be_bytes([high, low]) {
        let (frame, after) = first_frame(rest)?.ok_or_else(short)?;
        note(&frame, reach, standing, &mut content).map_err(Fault::Refused)?;
        rest = after;
    }
    if rest.is_empty() { Ok(content) } else { Err(Fault::Trailing(rest.len())) }
}

/// Notes what a frame does that goes on.
fn note(
    frame: &Frame,
    reach: Option<&Reach>,
    standing: Standing,
    content: &mut Content,
) -> Result<(), Refusal> {
    match reach {
        None => content.unjudged(),
        Some(reach) => content.frame(&reach.judge(frame, standing)?),
    }
    Ok(())
}

/// One client's stream over TCP.
#[derive(Debug)]
pub struct Stream {
    /// What its frames may reach; `None`: nothing is known of what is behind the target.
    reach: Option<Arc<Reach>>,
    greeted: bool,
    /// The beginning of a greeting or a frame whose end has not come.
    held: Vec<u8>,
}

impl Stream {
    /// A client that has sent nothing.
    #[must_use]
    pub const fn new(reach: Option<Arc<Reach>>) -> Self {
        Self { reach, greeted: false, held: Vec::new() }
    }

    /// One read of the client's, who stands to the motors as told. Appends to `on` what goes to the target: the greeting,
    /// and whole frames that may go on, as they came. The greeting is no sign of life.
    ///
    /// # Errors
    /// The link must be cut: what follows a defect cannot be told apart.
    pub fn pass(&mut self, come: &[u8], standing: Standing, on: &mut Vec<u8>) -> Result<Content, Fault> {
        let mut content = Content::default();
        self.held.extend_from_slice(come);
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_slice();
        if !self.greeted {
            let (begun, after) = rest.split_at(rest.len().min(GREETING.len()));
            if !GREETING.starts_with(begun) {
                return Err(Fault::Greeting);
            }
            if begun.len() < GREETING.len() {
                self.held = held;
                return Ok(content);
            }
            self.greeted = true;
            on.extend_from_slice(begun);
            rest = after;
        }
        while let Some((frame, after)) = first_frame(rest)? {
            match note(&frame, self.reach.as_deref(), standing, &mut content) {
                Ok(()) => on.extend_from_slice(rest.get(..rest.len() - after.len()).unwrap_or_default()),
                Err(refusal @ Refusal::TooFast { .. }) => return Err(Fault::Refused(refusal)),
                Err(refusal) => content.refuse(refusal),
            }
            rest = after;
        }
        self.held.extend_from_slice(rest);
        Ok(content)
    }
}

/// The first frame and what follows it; `None` if it is not complete.
fn first_frame(bytes: &[u8]) -> Result<Option<(Frame, &[u8])>, Fault> {
    let Some((id, bytes)) = bytes.split_first_chunk() else { return Ok(None) };
    let number = u32::from_be_bytes(*id);
    let bare = number & !(EXTENDED | REMOTE);
    let highest = if number & EXTENDED == 0 { HIGHEST } else { u32::MAX };
    if number & ERROR != 0 || bare > highest {
        return Err(Fault::Identifier(number));
    }
    let Some((&length, bytes)) = bytes.split_first() else { return Ok(None) };
    let (is_fd, is_remote) = (length & FD != 0, number & REMOTE != 0);
    // CAN FD has no remote requests.
    if is_fd && is_remote {
        return Err(Fault::Identifier(number));
    }
    let data = length & !FD;
    if data > if is_fd { LONGEST_FD } else { LONGEST } {
        return Err(Fault::Length(length));
    }
    let id = match u16::try_from(bare) {
        Ok(bare) if number & EXTENDED == 0 => ArbitrationId::standard(bare),
        _ => ArbitrationId::extended(bare),
    };
    // A remote request says how much it asks for, and has none of it.
    let data = if is_remote { 0 } else { usize::from(data) };
    let flags = usize::from(is_fd);
    let Some((payload, after)) = bytes.split_at_checked(flags + data) else { return Ok(None) };
    let payload = payload.get(flags..).unwrap_or_default();
    let frame = match (is_remote, is_fd) {
        (true, _) => Frame::remote(id),
        (false, true) => Frame::fd(id, payload),
        (false, false) => Frame::classic(id, payload),
    };
    Ok(Some((frame, after)))
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

    /// Of a target of whose motors nothing is known.
    fn frames(datagram: &[u8]) -> Result<Content, Fault> {
        super::frames(datagram, None, Standing::Free)
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
        let content = frames(&datagram(4, &all)).unwrap();
        assert!(content.beats && content.needs_grant);
        assert_eq!((content.commands, content.motion), (4, 4));
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

    /// Reads a stream as the real receiver does, and tells what that puts on the bus: identifiers and lengths. A half frame
    /// is left over.
    fn received_by_tcp(stream: &[u8]) -> Option<(Vec<(u32, u8)>, usize)> {
        let mut sent = Vec::new();
        let mut rest = stream.strip_prefix(b"CANNELLONIv1")?;
        while rest.len() >= 5 {
            let id = u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]);
            let flags = usize::from(rest[4] >> 7);
            let data = if id & REMOTE == 0 { usize::from(rest[4] & 0x7F) } else { 0 };
            let Some(after) = rest.get(5 + flags + data..) else { break };
            sent.push((id, rest[4]));
            rest = after;
        }
        Some((sent, rest.len()))
    }

    /// What went on of a stream in these reads, and whether it ended the link.
    fn passed(reach: Option<Arc<Reach>>, reads: &[&[u8]]) -> (Vec<u8>, Option<Fault>) {
        let (mut stream, mut on) = (Stream::new(reach), Vec::new());
        let fault = reads.iter().find_map(|read| stream.pass(read, Standing::Free, &mut on).err());
        (on, fault)
    }

    #[test]
    fn a_stream_begins_with_its_greeting_and_goes_on_frame_by_frame() {
        let velocity = frame(0x02D, 4, &[0, 0, 0, 0x40]);
        let whole = [GREETING, &velocity, &frame(0x4000_0029, 8, &[])].concat();
        let robot = || Some(crate::tunnel::parsers::robot());
        for cut in 0..=whole.len() {
            let (first, second) = whole.split_at(cut);
            assert_eq!(passed(robot(), &[first, second]), (whole.clone(), None), "cut at {cut}");
            let (on, _) = passed(robot(), &[first]);
            assert_eq!(
                received_by_tcp(&on).map_or(0, |(_, over)| over),
                0,
                "half a frame goes on, cut at {cut}"
            );
        }
        let mut stream = Stream::new(robot());
        let greeted = stream.pass(GREETING, Standing::Free, &mut Vec::new()).unwrap();
        assert_eq!(greeted, Content::default(), "a greeting is no command and no sign of life");
        for (bytes, fault) in [
            (&b"CANNELLONIv2"[..], Fault::Greeting),
            (b"\x02\0\0\0\0", Fault::Greeting),
            (&[GREETING, &frame(0x2000_0001, 8, &[0; 8])].concat(), Fault::Identifier(0x2000_0001)),
            (&[GREETING, &frame(0x800, 0, &[])].concat(), Fault::Identifier(0x800)),
            (&[GREETING, &frame(0x123, 9, &[0; 9])].concat(), Fault::Length(9)),
            (&[GREETING, &frame(0x123, 0x80 | 65, &[0; 66])].concat(), Fault::Length(0xC1)),
            (&[GREETING, &frame(0x4000_0001, 0x81, &[0; 2])].concat(), Fault::Identifier(0x4000_0001)),
        ] {
            assert_eq!(passed(None, &[bytes]).1, Some(fault), "{bytes:x?}");
        }
    }

    #[test]
    fn frames_of_others_are_left_out_of_a_stream_and_refuse_a_datagram() {
        let (ours, theirs) = (frame(0x02D, 4, &[0, 0, 0, 0x40]), frame(0x04D, 4, &[0, 0, 0, 0x40]));
        let fast = frame(0x02D, 4, &1e3f32.to_le_bytes());
        let robot = crate::tunnel::parsers::robot();
        let mut stream = Stream::new(Some(Arc::clone(&robot)));
        let mut on = Vec::new();
        let read = [GREETING, &theirs, &ours, &theirs].concat();
        let content = stream.pass(&read, Standing::Free, &mut on).unwrap();
        assert_eq!(on, [GREETING, &ours].concat());
        assert_eq!((content.refused, content.motion), (2, 1));
        assert!(matches!(
            stream.pass(&fast, Standing::Drives, &mut on),
            Err(Fault::Refused(Refusal::TooFast { .. }))
        ));
        let judged = |frames: &[Vec<u8>]| {
            let count = u16::try_from(frames.len()).unwrap();
            super::frames(&datagram(count, frames), Some(&robot), Standing::Free)
        };
        assert_eq!(judged(std::slice::from_ref(&ours)).unwrap().motion, 1);
        assert!(matches!(judged(&[ours.clone(), theirs]), Err(Fault::Refused(Refusal::Foreign { .. }))));
        assert!(matches!(judged(&[ours, fast]), Err(Fault::Refused(Refusal::TooFast { .. }))));
    }

    proptest! {
        /// What passes of a stream, the real receiver reads to its end; however it is split, it is the same.
        #[test]
        fn what_passes_of_a_stream_is_what_is_received(
            frames in vec(likely(), 0..4),
            cuts in vec(any::<usize>(), 0..10),
            greets in any::<bool>(),
        ) {
            // Frames without the head of a datagram.
            let frames = frames.iter().flat_map(|datagram| datagram[5..].to_vec());
            let greeting = if greets { GREETING.to_vec() } else { Vec::new() };
            let stream: Vec<u8> = greeting.into_iter().chain(frames).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let reads: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            for reach in [None, Some(crate::tunnel::parsers::robot())] {
                let (whole, split) = (passed(reach.clone(), &[&stream]), passed(reach.clone(), &reads));
                prop_assert_eq!(&whole, &split);
                let (on, _) = whole;
                let Some((received, over)) = received_by_tcp(&on) else {
                    prop_assert!(on.is_empty());
                    continue;
                };
                prop_assert_eq!(over, 0);
                for (id, length) in received {
                    prop_assert!(id & ERROR == 0 && length & 0x7F <= 64 && (length & FD != 0 || length <= 8));
                    prop_assert!(reach.is_none() || id & !REMOTE == 0x7A0 || (id & !REMOTE) >> 5 == 1, "{:x}", id);
                }
            }
        }
    }
}
