//! The hand-over: how front and `lanyard` get their segments from the supervisor.
//!
//! A Unix socket of fixed-size packets (SOCK_SEQPACKET), descriptors by SCM_RIGHTS. The front's way:
//!
//! ```text
//! front                                supervisor
//!   Attach{layout, config}  -------->    same layout and configuration? no front yet?
//!   <--------  Offer{generation, capacity} + beat memfd + verdict memfd
//!   maps the beats for writing
//!   Mapped  ------------------------>    seals (nobody can map for writing or resize any more),
//!                                        checks, maps for reading, hands to the real-time thread
//!   <--------  Armed
//! ```
//!
//! The connection then stays open; its end is one of the signs that the front is gone.

use core::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, connect,
    recvmsg, sendmsg, setsockopt, socket, sockopt::ReceiveTimeout, sockopt::SendTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::beats::BeatSegment;
use crate::ids::{Generation, TripId, TripSeen};
use crate::layout::{Capacity, MAGIC, layout_hash};
use crate::verdicts::VerdictView;

/// Bytes of every packet.
pub const PACKET: usize = 256;
const WORDS: usize = 6;
const TEXT: usize = PACKET - WORDS * 8;
/// Descriptors the kernel passes with one packet at most (SCM_MAX_FD). There is room for all of them
/// although two are meant: of those that find no room some would stay open and belong to nobody.
const MOST_DESCRIPTORS: usize = 253;
/// How long a client waits for an answer. The supervisor's housekeeping answers within a loop of
/// 50 ms; a machine that needs a hundred times as long should say so.
const PATIENCE_SECONDS: i64 = 5;

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A front asks for its segments.
    Attach {
        /// [`layout_hash`] of the program that asks.
        layout: u64,
        /// Hash of the configuration file it read.
        config: u64,
    },
    /// `lanyard` asks for the verdict segment.
    Observe {
        /// [`layout_hash`] of the program that asks.
        layout: u64,
    },
    /// Stop every motor and keep it stopped.
    Estop,
    /// Clear a trip.
    Reset {
        /// Which one, as the operator saw it: a blind or late reset must clear nothing that has happened since.
        seen: TripSeen,
    },
    /// Here are beats and verdicts (two descriptors).
    Offer {
        /// Generation of the beat segment.
        generation: Generation,
        /// Capacity of both segments.
        capacity: Capacity,
    },
    /// Here are the verdicts (one descriptor).
    View {
        /// Capacity of the segment.
        capacity: Capacity,
    },
    /// The beat segment is mapped; it may be sealed now.
    Mapped,
    /// The real-time thread watches the beats.
    Armed,
    /// The command was carried out.
    Done {
        /// The trip it caused or cleared.
        trip: TripId,
    },
    /// No, and why, and what to do.
    Refused(String),
}

impl Message {
    /// The packet's bytes; a text too long is cut.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; PACKET] {
        let (kind, a, b, c, text) = match self {
            Self::Attach { layout, config } => (1, *layout, *config, 0, ""),
            Self::Observe { layout } => (2, *layout, 0, 0, ""),
            Self::Estop => (3, 0, 0, 0, ""),
            Self::Reset { seen } => (4, seen.trip.0, seen.violations, 0, ""),
            Self::Offer { generation, capacity } => {
                (5, generation.0, capacity.sessions().into(), capacity.motors().into(), "")
            }
            Self::View { capacity } => (6, 0, capacity.sessions().into(), capacity.motors().into(), ""),
            Self::Mapped => (7, 0, 0, 0, ""),
            Self::Armed => (8, 0, 0, 0, ""),
            Self::Done { trip } => (9, trip.0, 0, 0, ""),
            Self::Refused(text) => (10, 0, 0, 0, text.as_str()),
        };
        let mut bytes = [0; PACKET];
        for (place, word) in bytes.chunks_exact_mut(8).zip([MAGIC, kind, a, b, c, 0_u64]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        for (place, byte) in bytes[WORDS * 8..].iter_mut().zip(text.bytes()) {
            *place = byte;
        }
        bytes
    }

    /// The message in a packet; `None` for anything that is not one, whatever it holds.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != PACKET {
            return None;
        }
        let word = |index: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[index * 8..index * 8 + 8]);
            u64::from_le_bytes(word)
        };
        if word(0) != MAGIC {
            return None;
        }
        let (a, b, c) = (word(2), word(3), word(4));
        let capacity = || Capacity::new(u16::try_from(b).ok()?, u16::try_from(c).ok()?);
        Some(match word(1) {
            1 => Self::Attach { layout: a, config: b },
            2 => Self::Observe { layout: a },
            3 => Self::Estop,
            4 => Self::Reset { seen: TripSeen { trip: TripId(a), violations: b } },
            5 => Self::Offer { generation: Generation(a), capacity: capacity()? },
            6 => Self::View { capacity: capacity()? },
            7 => Self::Mapped,
            8 => Self::Armed,
            9 => Self::Done { trip: TripId(a) },
            10 => {
                let text = &bytes[WORDS * 8..];
                let end = text.iter().position(|byte| *byte == 0).unwrap_or(TEXT);
                Self::Refused(String::from_utf8_lossy(&text[..end]).into_owned())
            }
            _ => return None,
        })
    }
}

/// Why a hand-over failed.
#[derive(Debug)]
pub enum Error {
    /// Nobody listens at the socket, or the connection broke.
    Io(String, io::Error),
    /// The supervisor said no, and why.
    Refused(String),
    /// The supervisor answered something that makes no sense at that point.
    Unexpected,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::Refused(why) => write!(f, "the supervisor refused: {why}"),
            Self::Unexpected => {
                write!(f, "the supervisor answered out of turn; are both programs of one version?")
            }
        }
    }
}

impl std::error::Error for Error {}

/// Sends a packet, with descriptors if any.
///
/// # Errors
///
/// When the socket is gone or full; it never blocks.
pub fn send(socket: BorrowedFd<'_>, message: &Message, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = message.to_bytes();
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], control, flags, None)?;
    Ok(())
}

/// Receives a packet and its descriptors. `Ok(None)`: the other side is gone.
///
/// # Errors
///
/// When nothing came in time, or what came is not a message.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
    let mut bytes = [0; PACKET];
    let mut control = nix::cmsg_space!([RawFd; MOST_DESCRIPTORS]);
    let mut places = [IoSliceMut::new(&mut bytes)];
    let received =
        recvmsg::<()>(socket.as_raw_fd(), &mut places, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let length = received.bytes;
    let mut fds = Vec::new();
    for item in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = item {
            // SAFETY: the kernel has just made these descriptors for this process; nobody else here
            // knows of them, so each gets exactly one owner.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if length == 0 {
        return Ok(None);
    }
    let Some(message) = Message::from_bytes(&bytes[..length]) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a packet of this hand-over"));
    };
    Ok(Some((message, fds)))
}

struct Client {
    socket: OwnedFd,
    path: String,
}

impl Client {
    fn connect(path: &Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        let fail = |error: nix::Error| {
            Error::Io(
                format!("cannot reach the supervisor at {name} (does lanyard-supervisor run?)"),
                error.into(),
            )
        };
        let socket =
            socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).map_err(fail)?;
        // Connecting waits too, when a supervisor that hangs has a full queue.
        let patience = TimeVal::seconds(PATIENCE_SECONDS);
        setsockopt(&socket, SendTimeout, &patience).map_err(fail)?;
        setsockopt(&socket, ReceiveTimeout, &patience).map_err(fail)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path).map_err(fail)?).map_err(fail)?;
        Ok(Self { socket, path: name })
    }

    fn ask(&self, message: &Message) -> Result<(Message, Vec<OwnedFd>), Error> {
        let fail = |error| Error::Io(format!("talking to the supervisor at {}", self.path), error);
        send(self.socket.as_fd(), message, &[]).map_err(fail)?;
        match receive(self.socket.as_fd()).map_err(fail)? {
            Some((Message::Refused(why), _)) => Err(Error::Refused(why)),
            Some(answer) => Ok(answer),
            None => Err(fail(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// What a front holds after the hand-over.
#[derive(Debug)]
pub struct Attached {
    /// The beats, for writing.
    pub beats: Arc<BeatSegment>,
    /// The verdicts, for reading.
    pub verdicts: VerdictView,
    /// The connection; when it ends, the supervisor is gone, and the other way round.
    pub connection: OwnedFd,
}

/// A front's hand-over.
///
/// # Errors
///
/// When the supervisor is not there, refuses, or hands over something that does not fit.
pub fn attach(path: &Path, config_hash: u64) -> Result<Attached, Error> {
    let client = Client::connect(path)?;
    let mapping = |error| Error::Io("mapping the shared memory".to_owned(), error);
    let (offer, fds) = client.ask(&Message::Attach { layout: layout_hash(), config: config_hash })?;
    let (Message::Offer { generation, capacity }, [beats, verdicts]) = (offer, fds.as_slice()) else {
        return Err(Error::Unexpected);
    };
    let beats = BeatSegment::map(beats.as_fd(), capacity, generation).map_err(mapping)?;
    let verdicts = VerdictView::map(verdicts.as_fd(), capacity).map_err(mapping)?;
    match client.ask(&Message::Mapped)? {
        (Message::Armed, _) => Ok(Attached { beats, verdicts, connection: client.socket }),
        _ => Err(Error::Unexpected),
    }
}

/// Maps the verdicts for looking on.
///
/// # Errors
///
/// When the supervisor is not there, refuses, or hands over something that does not fit.
pub fn observe(path: &Path) -> Result<VerdictView, Error> {
    let client = Client::connect(path)?;
    let (view, fds) = client.ask(&Message::Observe { layout: layout_hash() })?;
    let (Message::View { capacity }, [verdicts]) = (view, fds.as_slice()) else {
        return Err(Error::Unexpected);
    };
    VerdictView::map(verdicts.as_fd(), capacity)
        .map_err(|error| Error::Io("mapping the shared memory".to_owned(), error))
}

/// Stops every motor; the trip stays until it is reset.
///
/// # Errors
///
/// When the supervisor is not there or refuses.
pub fn estop(path: &Path) -> Result<TripId, Error> {
    command(path, &Message::Estop)
}

/// Clears a trip.
///
/// # Errors
///
/// When the supervisor is not there, or refuses: not that trip, it was violated since, or a motor does not stand still.
pub fn reset(path: &Path, seen: TripSeen) -> Result<TripId, Error> {
    command(path, &Message::Reset { seen })
}

fn command(path: &Path, message: &Message) -> Result<TripId, Error> {
    match Client::connect(path)?.ask(message)? {
        (Message::Done { trip }, _) => Ok(trip),
        _ => Err(Error::Unexpected),
    }
}
