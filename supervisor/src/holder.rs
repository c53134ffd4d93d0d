//! The holder: a tiny second process that keeps the kernel-armed stop alive when the supervisor is killed.
//!
//! The kernel drops its jobs with the last descriptor of their socket. So a process split off before anything
//! is armed holds the descriptors, too: while the supervisor lives it sleeps; when the
//! supervisor dies without a word it goes on holding, and the kernel sends the stops; when the next
//! supervisor has armed jobs of its own, it lets go on that one's word and ends. Until then it looks whether an
//! interface has come back that had gone, and has the kernel send the stops there, too ([`Rearm`]).
//!
//! ```text
//! supervisor                                   holder
//!   Hold  (a pair of sockets)  ------------->    from now on the end of the supervisor is no reason to end
//!   End                        ------------->    a clean end: ends
//!   (dies)                                       holds
//! next supervisor
//!   connects to SOCKET.holder  ------------->    same user or root?
//!   Verdicts                   ------------->
//!   <--------------------------------------     what the dead one had published, for the next one to take over
//!   is armed; LetGo            ------------->    passes it on to the holder before it, if any; ends
//! ```
//!
//! What lives here: that process, and the supervisor's end of the pair. What must never: sending a frame, or touching a CAN
//! socket while the supervisor lives. Its death changes nothing while the supervisor lives, because the supervisor holds the same
//! descriptors.
//!
//! It is the same executable, in a session of its own, with every signal blocked that can be: Ctrl-C in the
//! terminal of the supervisor, or a `kill` meant for it, must not take the stops away. Only within a service of
//! systemd does SIGTERM end it once the supervisor is dead: systemd then empties the service before it
//! starts the supervisor again, would wait for long, and holds the descriptors itself meanwhile.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, accept4, getsockopt,
    recv, recvmsg, send, sendmsg, socketpair, sockopt::PeerCredentials,
};
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, geteuid, setsid};

use crate::privileges::Become;
use crate::rearm::{Rearm, Spare};
use crate::sys;

/// Connections held at once: there is one next supervisor; the rest is somebody's mistake.
const MOST_GUESTS: usize = 4;
/// Segments it is given to keep: its own supervisor's, and that of the one before, which counts until its own has begun.
const MOST_VERDICTS: usize = 2;
/// How often it looks at the interfaces of a dead supervisor, milliseconds: as often as that one's housekeeping did.
const LOOK_MS: u8 = 50;
/// How long the next supervisor waits for them, milliseconds: no longer than a start may be delayed by a holder that
/// is older than the question.
const PATIENCE: u16 = 500;

/// What a holder is told: one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Word {
    /// From its own supervisor: what you hold is about to be armed.
    Hold = b'H',
    /// From its own supervisor: every motor is proven to stand still.
    End = b'E',
    /// From the supervisor after its own has died: my jobs are armed.
    LetGo = b'L',
    /// From the same: what had the dead one published?
    Verdicts = b'V',
}

impl Word {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Hold, Self::End, Self::LetGo, Self::Verdicts].into_iter().find(|word| *word as u8 == byte)
    }
}

/// What came of listening for a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A word.
    Word(Word),
    /// Nothing, or nothing that makes sense.
    Nothing,
    /// The other side has ended.
    End,
}

/// Says a word without waiting.
///
/// # Errors
///
/// When the other side has ended, or does not read.
pub fn say(socket: BorrowedFd<'_>, word: Word) -> io::Result<()> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    send(socket.as_raw_fd(), &[word as u8], flags)?;
    Ok(())
}

/// Listens for a word without waiting.
#[must_use]
pub fn hear(socket: BorrowedFd<'_>) -> Heard {
    let mut byte = [0];
    match recv(socket.as_raw_fd(), &mut byte, MsgFlags::MSG_DONTWAIT) {
        Ok(0) => Heard::End,
        Ok(_) => Word::from_byte(byte[0]).map_or(Heard::Nothing, Heard::Word),
        Err(Errno::EAGAIN | Errno::EINTR) => Heard::Nothing,
        Err(_) => Heard::End,
    }
}

/// Asks a holder whose supervisor is dead for what that one had published.
///
/// # Errors
///
/// When it does not answer in time, or with something else.
pub fn ask_for_verdicts(holder: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    say(holder, Word::Verdicts)?;
    let mut fds = [PollFd::new(holder, PollFlags::POLLIN)];
    if poll(&mut fds, PollTimeout::from(PATIENCE))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut control = nix::cmsg_space!([RawFd; MOST_VERDICTS]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let answer = recvmsg::<()>(holder.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let mut verdicts = Vec::new();
    for item in answer.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = item {
            verdicts.extend(raw.into_iter().map(sys::own));
        }
    }
    if verdicts.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(verdicts) }
}

/// Who else holds the descriptors, which decides what SIGTERM means once the supervisor is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nobody.
    Alone,
    /// systemd, which also wants the service empty before it starts it again.
    Service,
}

/// What the new process is given.
#[derive(Debug)]
pub struct Duties {
    /// What it holds.
    pub held: Vec<Spare>,
    /// What its supervisor publishes, and perhaps what the one before had: for the next one.
    pub verdicts: Vec<OwnedFd>,
    /// Where the next supervisor finds it, listening.
    pub listener: OwnedFd,
    /// The holder of the supervisor before, if it has not let go yet.
    pub predecessor: Option<OwnedFd>,
    /// Whom it becomes: holding takes no privilege.
    pub whom: Become,
    /// What SIGTERM means.
    pub place: Place,
}

/// Splits off a holder and returns the supervisor's end of the pair; its end of file is the holder's end.
///
/// The new process never returns from here. To be called before this process has threads.
///
/// # Errors
///
/// When there can be no new process.
pub fn start(duties: Duties) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    if sys::fork()?.is_child() {
        let ended = Holder::settle(duties, theirs).map(Holder::hold);
        std::process::exit(i32::from(ended.is_err()));
    }
    Ok(ours)
}

/// Whether it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Stay,
    Leave,
}

/// What is known of the supervisor it was split off from.
#[derive(Debug)]
enum Parent {
    /// It lives and has armed nothing: what is held is not worth holding.
    Preparing(OwnedFd),
    /// It lives and its jobs are armed, or about to be.
    Armed(OwnedFd),
    /// It has died without a word.
    Dead,
}

impl Parent {
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Preparing(socket) | Self::Armed(socket) => Some(socket.as_fd()),
            Self::Dead => None,
        }
    }

    /// What becomes of it by what was heard from it; `None`: nothing is left to hold.
    fn after(self, heard: Heard) -> Option<Self> {
        match (self, heard) {
            (Self::Preparing(socket) | Self::Armed(socket), Heard::Word(Word::Hold)) => {
                Some(Self::Armed(socket))
            }
            (Self::Preparing(_) | Self::Armed(_), Heard::Word(Word::End)) => None,
            (Self::Preparing(_), Heard::End) => None,
            (Self::Armed(_) | Self::Dead, Heard::End) => Some(Self::Dead),
            (parent, Heard::Nothing | Heard::Word(_)) => Some(parent),
        }
    }
}

#[derive(Debug)]
struct Holder {
    parent: Parent,
    held: Rearm,
    verdicts: Vec<OwnedFd>,
    listener: OwnedFd,
    predecessor: Option<OwnedFd>,
    place: Place,
    signals: SignalFd,
    guests: Vec<OwnedFd>,
}

impl Holder {
    /// Leaves everything behind that was the supervisor's.
    fn settle(duties: Duties, parent: OwnedFd) -> io::Result<Self> {
        // Whatever goes wrong from here on, no signal meant for the supervisor's group ends it half-way.
        SigSet::all().thread_block()?;
        let Duties { held, verdicts, listener, predecessor, whom, place } = duties;
        let mut kept = vec![listener.as_fd(), parent.as_fd()];
        kept.extend(Rearm::sockets(&held).chain(verdicts.iter().chain(&predecessor).map(AsFd::as_fd)));
        // Among what is closed is the hand-over socket: it must not seem to be served when nobody is there.
        sys::close_all_but(&kept)?;
        drop(kept);
        prctl::set_name(c"lanyard-holder")?;
        setsid()?;
        chdir("/")?;
        whom.take_effect()?;
        let nowhere = std::fs::File::options().read(true).write(true).open("/dev/null")?;
        dup2_stdin(&nowhere)?;
        dup2_stdout(&nowhere)?;
        dup2_stderr(&nowhere)?;
        let mut set = SigSet::empty();
        set.add(Signal::SIGTERM);
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let (parent, held) = (Parent::Preparing(parent), Rearm::new(held));
        Ok(Self { parent, held, verdicts, listener, predecessor, place, signals, guests: Vec::new() })
    }

    fn hold(mut self) {
        while self.wait() == Then::Stay {}
    }

    /// Waits for something to happen, and does what it asks for. The parent is heard first: what a guest or
    /// a signal means depends on whether it lives.
    fn wait(&mut self) -> Then {
        let mut fds = vec![
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(self.guests.iter().map(|guest| PollFd::new(guest.as_fd(), PollFlags::POLLIN)));
        fds.extend(self.parent.socket().map(|socket| PollFd::new(socket, PollFlags::POLLIN)));
        let patience = match self.parent {
            Parent::Dead => PollTimeout::from(LOOK_MS),
            Parent::Preparing(_) | Parent::Armed(_) => PollTimeout::NONE,
        };
        if poll(&mut fds, patience).is_err() {
            return Then::Stay;
        }
        let called = fds[0].any().unwrap_or(false);
        if self.hear_parent() == Then::Leave || self.read_signals() == Then::Leave {
            return Then::Leave;
        }
        if called {
            self.welcome();
        }
        let then = self.hear_guests();
        if then == Then::Stay && matches!(self.parent, Parent::Dead) {
            self.held.look();
        }
        then
    }

    fn hear_parent(&mut self) -> Then {
        let Some(heard) = self.parent.socket().map(hear) else { return Then::Stay };
        match std::mem::replace(&mut self.parent, Parent::Dead).after(heard) {
            Some(parent) => {
                self.parent = parent;
                Then::Stay
            }
            None => Then::Leave,
        }
    }

    fn read_signals(&mut self) -> Then {
        let told = matches!(self.signals.read_signal(), Ok(Some(_)));
        match (told, self.place, &self.parent) {
            (true, Place::Service, Parent::Dead) => Then::Leave,
            _ => Then::Stay,
        }
    }

    /// Only the same user and root may have it let go.
    fn welcome(&mut self) {
        let Ok(raw) = accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) else { return };
        let guest = sys::own(raw);
        let user = getsockopt(&guest, PeerCredentials).map(|peer| peer.uid());
        let trusted = user.is_ok_and(|user| user == 0 || user == geteuid().as_raw());
        if trusted && self.guests.len() < MOST_GUESTS {
            self.guests.push(guest);
        }
    }

    /// Lets go on the word of a next supervisor. While its own lives there is no next one.
    fn hear_guests(&mut self) -> Then {
        let mut told = false;
        let verdicts = &self.verdicts;
        self.guests.retain(|guest| match hear(guest.as_fd()) {
            Heard::Word(Word::LetGo) => {
                told = true;
                true
            }
            Heard::Word(Word::Verdicts) => hand_out(guest.as_fd(), verdicts).is_ok(),
            Heard::Word(_) | Heard::Nothing => true,
            Heard::End => false,
        });
        if !told || !matches!(self.parent, Parent::Dead) {
            return Then::Stay;
        }
        if let Some(predecessor) = &self.predecessor {
            // Its own supervisor died before it could say so. If that one did, there is nobody to tell.
            let _ = say(predecessor.as_fd(), Word::LetGo);
        }
        Then::Leave
    }
}

/// Without waiting: a guest that does not read is one too many.
fn hand_out(guest: BorrowedFd<'_>, verdicts: &[OwnedFd]) -> io::Result<()> {
    let numbers: Vec<RawFd> = verdicts.iter().take(MOST_VERDICTS).map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(guest.as_raw_fd(), &[IoSlice::new(&[Word::Verdicts as u8])], &rights, flags, None)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    /// Fails if a holder goes on holding what is worth nothing, or lets go of what is armed.
    #[test]
    fn only_a_word_or_an_end_before_arming_lets_go() {
        let preparing = || Parent::Preparing(pair().0);
        let armed = || Parent::Armed(pair().0);
        assert!(preparing().after(Heard::End).is_none(), "nothing was armed");
        assert!(matches!(armed().after(Heard::End), Some(Parent::Dead)), "the kernel must go on sending");
        assert!(matches!(preparing().after(Heard::Word(Word::Hold)), Some(Parent::Armed(_))));
        assert!(preparing().after(Heard::Word(Word::End)).is_none());
        assert!(armed().after(Heard::Word(Word::End)).is_none());
        for nothing in [Heard::Nothing, Heard::Word(Word::LetGo), Heard::Word(Word::Verdicts)] {
            assert!(matches!(preparing().after(nothing), Some(Parent::Preparing(_))));
            assert!(matches!(armed().after(nothing), Some(Parent::Armed(_))));
        }
    }

    #[test]
    fn words_arrive_as_they_were_said_and_rubbish_means_nothing() {
        let (ours, theirs) = pair();
        assert_eq!(hear(theirs.as_fd()), Heard::Nothing);
        for word in [Word::Hold, Word::End, Word::LetGo, Word::Verdicts] {
            say(ours.as_fd(), word).unwrap();
            assert_eq!(hear(theirs.as_fd()), Heard::Word(word));
        }
        send(ours.as_raw_fd(), b"rubbish", MsgFlags::empty()).unwrap();
        assert_eq!(hear(theirs.as_fd()), Heard::Nothing);
        drop(ours);
        assert_eq!(hear(theirs.as_fd()), Heard::End);
        assert!(say(theirs.as_fd(), Word::Hold).is_err());
    }

    /// Fails if what the dead supervisor published does not come through, or a holder that does not know the question
    /// holds up the start for ever.
    #[test]
    fn verdicts_are_handed_out_on_demand() {
        let (ours, theirs) = pair();
        let memfd = |name| shm_proto::memory::create(name, 1).unwrap();
        let kept = [memfd("newer"), memfd("older")];
        let holder = std::thread::spawn(move || {
            let mut fds = [PollFd::new(theirs.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::NONE).unwrap();
            assert_eq!(hear(theirs.as_fd()), Heard::Word(Word::Verdicts));
            hand_out(theirs.as_fd(), &kept).unwrap();
            theirs
        });
        let found = ask_for_verdicts(ours.as_fd()).unwrap();
        assert_eq!(found.len(), 2);
        let _theirs = holder.join().unwrap();
        let silent = ask_for_verdicts(ours.as_fd()).unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::TimedOut);
    }
}
