//! What the kernel says of a network interface: number, flags, and the state of its CAN controller.
//!
//! One question over one socket that is opened before arming (rtnetlink, `RTM_GETLINK`; no privilege is
//! needed): after it nothing has to be opened any more. Used by housekeeping only. Sources of the layout:
//! `include/uapi/linux/{netlink,rtnetlink,if_link}.h` and `linux/can/netlink.h`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use drivers::unattended::BitRates;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, socket,
};
use shm_proto::verdicts::BusHealth;

/// What is known of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number: another number under the same name is another interface.
    pub number: u32,
    /// How well it is, as far as its driver tells.
    pub health: BusHealth,
    /// The controller's transmit and receive error counters, where its driver tells.
    pub counters: Option<(u16, u16)>,
    /// The bit rates, where it has a controller that is set up and a driver that tells.
    pub rates: Option<BitRates>,
}

/// The way to ask.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
}

const HEADER: usize = 16;
const LINK_HEADER: usize = 16;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
/// Attribute numbers.
const NAME: u16 = 3;
const LINK_INFO: u16 = 18;
const INFO_DATA: u16 = 2;
const CAN_BIT_TIMING: u16 = 1;
const CAN_STATE: u16 = 4;
const CAN_COUNTERS: u16 = 8;
const CAN_DATA_BIT_TIMING: u16 = 9;
/// An answer with every attribute has some 1.5 kB.
const ROOM: usize = 16 * 1024;

impl Netlink {
    /// Opens the way.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, Some(SockProtocol::NetlinkRoute))?;
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    /// Asks about the interface with that name; `None` when there is none.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer the question.
    pub fn look_at(&self, interface: &str) -> io::Result<Option<Link>> {
        let mut answer = [0; ROOM];
        // What an earlier question that failed has left behind.
        while recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT).is_ok() {}
        send(self.socket.as_raw_fd(), &question(interface), MsgFlags::MSG_DONTWAIT)?;
        // The kernel answers before the question's system call returns.
        let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
        understand(&answer[..length])
    }
}

fn question(interface: &str) -> Vec<u8> {
    let name = interface.as_bytes();
    // The name ends with a zero and is padded to four bytes.
    let attribute = 4 + name.len() + 1;
    let total = HEADER + LINK_HEADER + attribute.next_multiple_of(4);
    let short = |number: usize| u16::try_from(number).unwrap_or(u16::MAX).to_ne_bytes();
    let mut bytes = Vec::with_capacity(total);
    bytes.extend(u32::try_from(total).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend(GET_LINK.to_ne_bytes());
    bytes.extend(REQUEST.to_ne_bytes());
    bytes.resize(HEADER + LINK_HEADER, 0);
    bytes.extend(short(attribute));
    bytes.extend(NAME.to_ne_bytes());
    bytes.extend(name);
    bytes.resize(total, 0);
    bytes
}

fn understand(answer: &[u8]) -> io::Result<Option<Link>> {
    let nonsense = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is not understood");
    match short_at(answer, 4).ok_or_else(nonsense)? {
        NEW_LINK => link(answer).map(Some).ok_or_else(nonsense),
        ERROR => match word_at(answer, HEADER).map(u32::cast_signed) {
            Some(code) if -code == libc::ENODEV => Ok(None),
            Some(code) => Err(io::Error::from_raw_os_error(-code)),
            None => Err(nonsense()),
        },
        _ => Err(nonsense()),
    }
}

fn link(answer: &[u8]) -> Option<Link> {
    let number = word_at(answer, HEADER + 4)?;
    let up = word_at(answer, HEADER + 8)? & libc::IFF_UP.cast_unsigned() != 0;
    let can = attribute(answer.get(HEADER + LINK_HEADER..)?, LINK_INFO)
        .and_then(|info| attribute(info, INFO_DATA))
        .unwrap_or_default();
    let state = attribute(can, CAN_STATE).and_then(|state| word_at(state, 0));
    let health = if up { state.map_or(BusHealth::Unknown, health_of) } else { BusHealth::Down };
    let counters =
        attribute(can, CAN_COUNTERS).and_then(|both| Some((short_at(both, 0)?, short_at(both, 2)?)));
    // The first word of `struct can_bittiming`; a bit rate of 0 is none.
    let rate = |wanted| attribute(can, wanted).and_then(|timing| word_at(timing, 0)).filter(|rate| *rate > 0);
    let rates = rate(CAN_BIT_TIMING).map(|nominal| BitRates { nominal, data: rate(CAN_DATA_BIT_TIMING) });
    Some(Link { number, health, counters, rates })
}

/// `enum can_state`.
const fn health_of(state: u32) -> BusHealth {
    match state {
        0 => BusHealth::Active,
        1 => BusHealth::Warning,
        2 => BusHealth::Passive,
        3 => BusHealth::BusOff,
        // Stopped, sleeping, or a state of later days.
        _ => BusHealth::Down,
    }
}

/// The content of the first attribute of that type. The two highest bits of a type are flags.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(short_at(bytes, 0)?);
        let kind = short_at(bytes, 2)? & 0x3FFF;
        let content = bytes.get(4..length)?;
        if kind == wanted {
            return Some(content);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

fn short_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{BitRates, BusHealth, Link, Netlink, understand};

    #[test]
    fn the_loopback_is_there_and_another_is_not() {
        let netlink = Netlink::open().expect("a socket");
        let link = netlink.look_at("lo").expect("an answer").expect("every machine has lo");
        assert!(link.number > 0);
        assert_eq!(link.counters, None);
        assert_eq!(netlink.look_at("no-such-thing").expect("an answer"), None);
        assert_eq!(netlink.look_at("lo").expect("an answer"), Some(link), "after a refusal as before");
    }

    /// An answer as a CAN controller's driver gives it, cut down to what matters.
    #[test]
    fn state_and_counters_of_a_controller() {
        let attribute = |kind: u16, content: &[u8]| {
            let mut bytes = Vec::new();
            bytes.extend(u16::try_from(4 + content.len()).expect("short").to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(content);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        // Only the first words of the timings matter here.
        let can = [
            attribute(1, &500_000_u32.to_ne_bytes()),
            attribute(9, &0_u32.to_ne_bytes()),
            attribute(4, &2_u32.to_ne_bytes()),
            attribute(8, &[128_u16.to_ne_bytes(), 7_u16.to_ne_bytes()].concat()),
        ];
        let info = [attribute(1, b"can\0"), attribute(2 | 0x8000, &can.concat())];
        let mut answer = vec![0; 16];
        answer[4..6].copy_from_slice(&16_u16.to_ne_bytes());
        for word in [0_u32, 5, 1, 0] {
            answer.extend(word.to_ne_bytes());
        }
        answer.extend(attribute(3, b"can0\0"));
        answer.extend(attribute(18, &info.concat()));
        let rates = Some(BitRates { nominal: 500_000, data: None });
        let expected = Link { number: 5, health: BusHealth::Passive, counters: Some((128, 7)), rates };
        assert_eq!(understand(&answer).expect("an answer"), Some(expected));
        // Whatever is cut off, nothing panics, and a cut header is an error.
        for length in 0..answer.len() {
            assert!(understand(&answer[..length]).is_ok() || length < 32, "{length} bytes");
        }
    }
}
