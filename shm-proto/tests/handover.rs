//! Messages survive their packets, and a front attaches only to a supervisor that keeps to the protocol.

use std::io::{Read, pipe};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, listen,
    send as send_bytes, socket, socketpair,
};
use proptest::prelude::*;
use shm_proto::beats::{BeatView, Look, SlotReader};
use shm_proto::handover::{Error, Message, PACKET, attach, estop, observe, receive, reset, send};
use shm_proto::layout::{BeatLayout, MAGIC, layout_hash};
use shm_proto::memory;
use shm_proto::verdicts::{Identity, Phase, ResetPolicy, VerdictSegment};
use shm_proto::{Capacity, Generation, Nanos, SessionId, SlotIndex, TripId, TripSeen, Window};

const CONFIG: u64 = 0xabcd;
const GENERATION: Generation = Generation(3);
const TEXT_BYTES: usize = PACKET - 48;

fn capacity() -> Capacity {
    Capacity::new(4, 2).expect("capacity")
}

fn any_capacity() -> impl Strategy<Value = Capacity> {
    (1..=Capacity::MOST_SESSIONS, 1..=Capacity::MOST_MOTORS)
        .prop_map(|(sessions, motors)| Capacity::new(sessions, motors).expect("in range"))
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        (any::<u64>(), any::<u64>()).prop_map(|(layout, config)| Message::Attach { layout, config }),
        any::<u64>().prop_map(|layout| Message::Observe { layout }),
        Just(Message::Estop),
        (any::<u64>(), any::<u64>()).prop_map(|(trip, violations)| Message::Reset {
            seen: TripSeen { trip: TripId(trip), violations }
        }),
        (any::<u64>(), any_capacity()).prop_map(|(generation, capacity)| Message::Offer {
            generation: Generation(generation),
            capacity
        }),
        any_capacity().prop_map(|capacity| Message::View { capacity }),
        Just(Message::Mapped),
        Just(Message::Armed),
        any::<u64>().prop_map(|trip| Message::Done { trip: TripId(trip) }),
        "[^\0]{0,52}".prop_map(Message::Refused),
    ]
}

proptest! {
    #[test]
    fn every_message_survives_its_packet(message in message()) {
        prop_assert_eq!(Message::from_bytes(&message.to_bytes()), Some(message));
    }

    #[test]
    fn no_packet_does_harm(
        mut bytes in proptest::collection::vec(any::<u8>(), PACKET), genuine in any::<bool>(), kind in 0_u8..12,
    ) {
        if genuine {
            bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
            bytes[8..16].copy_from_slice(&u64::from(kind).to_le_bytes());
        }
        // What is understood is understood again when it is passed on, but for text that was no text.
        if let Some(message) = Message::from_bytes(&bytes) {
            let again = Message::from_bytes(&message.to_bytes());
            prop_assert!(again == Some(message.clone()) || matches!(message, Message::Refused(_)));
        }
    }

    #[test]
    fn a_packet_of_another_length_is_none(message in message(), length in 0..2 * PACKET) {
        let mut bytes = message.to_bytes().to_vec();
        bytes.resize(length, 0);
        prop_assert_eq!(Message::from_bytes(&bytes).is_some(), length == PACKET);
    }

    #[test]
    fn a_long_refusal_is_cut_not_lost(text in "[a-zü€😀]{50,300}") {
        let cut = Message::from_bytes(&Message::Refused(text.clone()).to_bytes());
        let Some(Message::Refused(cut)) = cut else { panic!("not a refusal: {cut:?}") };
        let whole = cut.trim_end_matches('\u{fffd}');
        prop_assert!(text.starts_with(whole));
        prop_assert!(whole.len() > TEXT_BYTES.min(text.len()) - 4, "{} of {}", whole.len(), text.len());
    }
}

#[test]
fn a_packet_without_the_magic_word_or_with_a_strange_kind_is_none() {
    let good = Message::Mapped.to_bytes();
    for byte in 0..8 {
        let mut bad = good;
        bad[byte] ^= 1;
        assert_eq!(Message::from_bytes(&bad), None, "magic byte {byte}");
    }
    for kind in [0, 11, u64::MAX] {
        let mut bad = good;
        bad[8..16].copy_from_slice(&kind.to_le_bytes());
        assert_eq!(Message::from_bytes(&bad), None, "kind {kind}");
    }
}

#[test]
fn an_impossible_capacity_is_none() {
    let good = Message::Offer { generation: GENERATION, capacity: capacity() }.to_bytes();
    for (sessions, motors) in
        [(0_u64, 1_u64), (1, 0), (1025, 1), (1, 257), (1 << 16 | 4, 2), (4, 1 << 32 | 2)]
    {
        let mut bad = good;
        bad[24..32].copy_from_slice(&sessions.to_le_bytes());
        bad[32..40].copy_from_slice(&motors.to_le_bytes());
        assert_eq!(Message::from_bytes(&bad), None, "{sessions} x {motors}");
    }
}

/// A supervisor's socket in a directory of its own.
struct Socket {
    listener: OwnedFd,
    directory: PathBuf,
    path: PathBuf,
}

impl Socket {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("lanyard-handover-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).expect("directory");
        let path = directory.join("socket");
        let flags = SockFlag::SOCK_CLOEXEC;
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("socket");
        bind(listener.as_raw_fd(), &UnixAddr::new(&path).expect("path")).expect("bind");
        listen(&listener, Backlog::new(4).expect("backlog")).expect("listen");
        Self { listener, directory, path }
    }

    fn accept(&self) -> OwnedFd {
        let raw = accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC).expect("a client");
        // SAFETY: the kernel has just made this descriptor and nobody else knows of it.
        unsafe { std::os::fd::FromRawFd::from_raw_fd(raw) }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Plays the supervisor with `server` while `client` runs.
fn play<T>(server: impl FnOnce(OwnedFd) + Send, client: impl FnOnce(&Path) -> T) -> T {
    let socket = Socket::new();
    thread::scope(|scope| {
        let served = scope.spawn(|| server(socket.accept()));
        let result = client(&socket.path);
        served.join().expect("the server keeps to its part");
        result
    })
}

/// Takes one message and checks that it is the expected one.
fn expect(connection: &OwnedFd, expected: &Message) {
    let (message, fds) = receive(connection.as_fd()).expect("a packet").expect("a client");
    assert_eq!((&message, fds.len()), (expected, 0));
}

fn answer(connection: &OwnedFd, message: &Message, fds: &[BorrowedFd<'_>]) {
    send(connection.as_fd(), message, fds).expect("sent");
}

fn attach_request() -> Message {
    Message::Attach { layout: layout_hash(), config: CONFIG }
}

fn offer() -> Message {
    Message::Offer { generation: GENERATION, capacity: capacity() }
}

fn beats() -> OwnedFd {
    memory::create("lanyard-beats", BeatLayout::new(capacity()).words()).expect("memfd")
}

fn verdicts() -> (VerdictSegment, OwnedFd) {
    let identity = Identity { config_hash: CONFIG, pid: 1, started: Nanos(1), policy: ResetPolicy::Auto };
    VerdictSegment::create(capacity(), &identity, &["left", "right"], &["can0"]).expect("segment")
}

#[test]
fn a_front_attaches_beats_and_is_told_the_verdict() {
    let attached = play(
        |connection| {
            expect(&connection, &attach_request());
            let (beats, (segment, verdicts)) = (beats(), verdicts());
            answer(&connection, &offer(), &[beats.as_fd(), verdicts.as_fd()]);
            expect(&connection, &Message::Mapped);
            memory::seal(beats.as_fd()).expect("seals");
            let view = BeatView::map(beats.as_fd(), capacity(), GENERATION).expect("view");
            segment.phase(Phase::Armed);
            answer(&connection, &Message::Armed, &[]);

            // The front beats once and hangs up.
            assert!(receive(connection.as_fd()).expect("the end").is_none());
            let context = shm_proto::beat::Context {
                slot: SlotIndex(1),
                generation: GENERATION,
                now: Nanos::now(),
                bound: None,
                newest: shm_proto::Incarnation::NONE,
                shortest: Window(1),
                longest: Window::from_millis(1_000),
            };
            let mut found = Vec::new();
            SlotReader::default().look(&view, Look::Onward, context, |one| found.push(one));
            let sessions: Vec<_> = found.iter().map(|one| one.map(|beat| beat.session)).collect();
            assert_eq!(sessions, [Ok(SessionId(5))]);
        },
        |path| {
            let attached = attach(path, CONFIG).expect("attached");
            assert_eq!(attached.beats.capacity(), capacity());
            assert_eq!(attached.verdicts.phase(), Some(Phase::Armed));
            assert_eq!(attached.verdicts.config_hash(), CONFIG);
            let flags = fcntl(&attached.connection, FcntlArg::F_GETFD).map(FdFlag::from_bits_retain);
            assert_eq!(flags, Ok(FdFlag::FD_CLOEXEC));
            let mut writer = attached.beats.writer(SlotIndex(1)).expect("slot");
            writer.open(SessionId(5), Window::from_millis(100));
            (attached.beats, attached.verdicts)
        },
    );
    assert_eq!(attached.1.motor_count(), 2, "the mappings outlive the connection");
}

#[test]
fn a_refusal_arrives_with_its_text() {
    let why = "another front is attached (process 17); stop it first";
    let refuse = |connection: OwnedFd| {
        receive(connection.as_fd()).expect("a packet");
        answer(&connection, &Message::Refused(why.to_owned()), &[]);
    };
    let refusals = [
        play(refuse, |path| attach(path, CONFIG).map(drop)),
        play(refuse, |path| observe(path).map(drop)),
        play(refuse, |path| estop(path).map(drop)),
        play(refuse, |path| reset(path, TripId(1).into()).map(drop)),
    ];
    for refusal in refusals {
        let error = refusal.expect_err("refused");
        assert!(matches!(&error, Error::Refused(text) if text == why), "{error:?}");
        assert_eq!(error.to_string(), format!("the supervisor refused: {why}"));
    }
}

#[test]
fn a_refusal_after_mapping_arrives_too() {
    let result = play(
        |connection| {
            expect(&connection, &attach_request());
            answer(&connection, &offer(), &[beats().as_fd(), verdicts().1.as_fd()]);
            expect(&connection, &Message::Mapped);
            answer(&connection, &Message::Refused("no".to_owned()), &[]);
        },
        |path| attach(path, CONFIG),
    );
    assert!(matches!(result, Err(Error::Refused(_))), "{result:?}");
}

#[test]
fn an_answer_out_of_turn_is_unexpected() {
    let (beats, verdicts) = (beats(), verdicts().1);
    let (beats, verdicts) = (beats.as_fd(), verdicts.as_fd());
    let cases: [(Message, &[BorrowedFd<'_>]); 7] = [
        (Message::Armed, &[]),
        (Message::Mapped, &[]),
        (Message::Done { trip: TripId(1) }, &[]),
        (offer(), &[]),
        (offer(), &[beats]),
        (offer(), &[beats, verdicts, verdicts]),
        (Message::View { capacity: capacity() }, &[beats, verdicts]),
    ];
    for (message, fds) in cases {
        let server = |connection: OwnedFd| {
            expect(&connection, &attach_request());
            answer(&connection, &message, fds);
        };
        let result = play(server, |path| attach(path, CONFIG));
        assert!(matches!(result, Err(Error::Unexpected)), "{message:?} with {}: {result:?}", fds.len());
    }
    let server = |connection: OwnedFd| {
        expect(&connection, &attach_request());
        answer(&connection, &offer(), &[beats, verdicts]);
        expect(&connection, &Message::Mapped);
        answer(&connection, &offer(), &[beats, verdicts]);
    };
    let result = play(server, |path| attach(path, CONFIG));
    assert!(matches!(result, Err(Error::Unexpected)), "{result:?}");
}

#[test]
fn segments_that_do_not_fit_are_not_mapped() {
    let small = memory::create("lanyard-beats", 8).expect("memfd");
    let (beats, verdicts) = (beats(), verdicts().1);
    let cases = [
        ("beats too small", small.as_fd(), verdicts.as_fd()),
        ("swapped", verdicts.as_fd(), beats.as_fd()),
        ("verdicts unsealed", beats.as_fd(), beats.as_fd()),
    ];
    for (name, first, second) in cases {
        let server = |connection: OwnedFd| {
            expect(&connection, &attach_request());
            answer(&connection, &offer(), &[first, second]);
            // The front must hang up instead of claiming that it mapped.
            assert!(receive(connection.as_fd()).expect("the end").is_none(), "{name}");
        };
        let result = play(server, |path| attach(path, CONFIG));
        assert!(matches!(&result, Err(Error::Io(what, _)) if what.contains("mapping")), "{name}: {result:?}");
    }
}

#[test]
fn a_supervisor_that_hangs_up_or_babbles_is_an_error() {
    let hangs_up = |connection: OwnedFd| drop(connection);
    let hangs_up_later = |connection: OwnedFd| {
        expect(&connection, &attach_request());
        answer(&connection, &offer(), &[beats().as_fd(), verdicts().1.as_fd()]);
        expect(&connection, &Message::Mapped);
    };
    let babbles = |connection: OwnedFd| {
        receive(connection.as_fd()).expect("a packet");
        send_bytes(connection.as_raw_fd(), b"hello", MsgFlags::MSG_NOSIGNAL).expect("sent");
    };
    let results = [
        play(hangs_up, |path| attach(path, CONFIG)),
        play(hangs_up_later, |path| attach(path, CONFIG)),
        play(babbles, |path| attach(path, CONFIG)),
    ];
    for result in results {
        assert!(matches!(&result, Err(Error::Io(..))), "{result:?}");
    }
}

#[test]
fn without_a_supervisor_the_error_says_so() {
    let socket = Socket::new();
    let nowhere = socket.directory.join("nowhere");
    let error = estop(&nowhere).expect_err("nobody listens");
    let text = error.to_string();
    assert!(text.contains("nowhere") && text.contains("does lanyard-supervisor run?"), "{text}");
    let too_long = PathBuf::from("/").join("x".repeat(200));
    assert!(matches!(estop(&too_long), Err(Error::Io(..))));
}

#[test]
fn a_supervisor_that_accepts_nobody_is_an_error_in_time() {
    let socket = Socket::new();
    let (sender, receiver) = std::sync::mpsc::channel();
    // The kernel's queue of the listener takes a few; who comes later waits for a place in it.
    for _ in 0..8 {
        let (path, sender) = (socket.path.clone(), sender.clone());
        thread::spawn(move || sender.send(estop(&path).err()));
    }
    for _ in 0..8 {
        let error = receiver.recv_timeout(Duration::from_secs(20)).expect("an answer in time");
        assert!(matches!(error, Some(Error::Io(..))), "{error:?}");
    }
}

#[test]
fn commands_bring_back_their_trip() {
    let server = |request: Message, trip| {
        move |connection: OwnedFd| {
            expect(&connection, &request);
            answer(&connection, &Message::Done { trip }, &[]);
        }
    };
    let stopped = play(server(Message::Estop, TripId(8)), estop);
    assert_eq!(stopped.expect("done"), TripId(8));
    let seen = TripSeen { trip: TripId(8), violations: 3 };
    let cleared = play(server(Message::Reset { seen }, TripId(8)), move |path| reset(path, seen));
    assert_eq!(cleared.expect("done"), TripId(8));
}

#[test]
fn an_observer_sees_the_verdicts() {
    let server = |connection: OwnedFd| {
        expect(&connection, &Message::Observe { layout: layout_hash() });
        answer(&connection, &Message::View { capacity: capacity() }, &[verdicts().1.as_fd()]);
    };
    let view = play(server, observe).expect("observed");
    assert_eq!(view.motor_name(shm_proto::MotorIndex(1)), "right");
}

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("sockets")
}

#[test]
fn received_descriptors_end_with_the_program() {
    let (a, b) = pair();
    let beats = beats();
    send(a.as_fd(), &offer(), &[beats.as_fd(), beats.as_fd()]).expect("sent");
    let (message, fds) = receive(b.as_fd()).expect("a packet").expect("a message");
    assert_eq!((message, fds.len()), (offer(), 2));
    for fd in fds {
        let flags = fcntl(&fd, FcntlArg::F_GETFD).map(FdFlag::from_bits_retain);
        assert_eq!(flags, Ok(FdFlag::FD_CLOEXEC));
    }
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed() {
    // A client that sends many must not fill the supervisor's table.
    for count in [1, 2, 3, 4, 17, 253] {
        let (a, b) = pair();
        let (mut reader, writer) = pipe().expect("pipe");
        send(a.as_fd(), &Message::Estop, &vec![writer.as_fd(); count]).expect("sent");
        drop(writer);
        drop(receive(b.as_fd()));
        let mut rest = Vec::new();
        fcntl(&reader, FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).expect("non-blocking");
        let end = reader.read_to_end(&mut rest);
        assert!(matches!(end, Ok(0)), "of {count} descriptors some are still open: {end:?}");
    }
}

#[test]
fn a_packet_that_is_no_message_is_an_error() {
    for bytes in [&[0_u8; 1][..], &[0; PACKET - 1], &[0; PACKET], &[0; PACKET + 1]] {
        let (a, b) = pair();
        send_bytes(a.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).expect("sent");
        let error = receive(b.as_fd()).expect_err("not a message");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{} bytes", bytes.len());
    }
    let (a, b) = pair();
    drop(a);
    assert!(receive(b.as_fd()).expect("the end").is_none());
}

#[test]
fn a_full_socket_refuses_instead_of_blocking() {
    let (a, _b) = pair();
    let error = (0..100_000).find_map(|_| send(a.as_fd(), &Message::Estop, &[]).err());
    assert_eq!(error.map(|error| error.kind()), Some(std::io::ErrorKind::WouldBlock));
}
