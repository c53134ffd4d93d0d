//! What the kernel says of a network interface (rtnetlink, `RTM_GETLINK`; no privilege is needed).
//!
//! Sources of the layout: `include/uapi/linux/{netlink,rtnetlink,if_link}.h` and `linux/can/netlink.h`. The
//! supervisor asks the same question for what it needs while armed; here is the rest, how the interface is set up.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, socket,
};

/// How an interface is set up and how it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// `IFF_UP`.
    pub up: bool,
    /// `IFF_ECHO`: its driver tells when a frame was acknowledged.
    pub echo: bool,
    /// What makes it, "can" or "vcan", say.
    pub kind: String,
    /// Bytes of the largest frame: 16, or 72 with CAN FD.
    pub mtu: u32,
    /// Frames that may wait.
    pub queue: u32,
    /// By what rule they wait.
    pub discipline: String,
    /// Bits per second, where it has a controller that is set up.
    pub bit_rate: Option<u32>,
    /// The same for the payload of CAN FD frames.
    pub data_bit_rate: Option<u32>,
    /// `enum can_state`.
    pub state: Option<u32>,
    /// After how many milliseconds it joins again once bus-off; 0: never.
    pub restart: Option<u32>,
}

/// Answers questions about interfaces.
pub trait Links {
    /// The interface with that name; `None` when there is none.
    ///
    /// # Errors
    /// The kernel does not answer.
    fn look_at(&self, interface: &str) -> io::Result<Option<Link>>;
}

/// The kernel of this machine.
pub struct Kernel;

impl Links for Kernel {
    fn look_at(&self, interface: &str) -> io::Result<Option<Link>> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, Some(SockProtocol::NetlinkRoute))?;
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        send(socket.as_raw_fd(), &question(interface), MsgFlags::MSG_DONTWAIT)?;
        let mut answer = [0; ROOM];
        // The kernel answers before the question's system call returns.
        let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
        understand(&answer[..length])
    }
}

/// An answer with every attribute has some 1.5 kB.
const ROOM: usize = 16 * 1024;
const HEADER: usize = 16;
const LINK_HEADER: usize = 16;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
const IFF_UP: u32 = 1;
const IFF_ECHO: u32 = 1 << 18;
const ENODEV: i32 = 19;
/// Attributes of a link, of its LINK_INFO, and of a CAN controller in that.
const NAME: u16 = 3;
const MTU: u16 = 4;
const DISCIPLINE: u16 = 6;
const QUEUE: u16 = 13;
const LINK_INFO: u16 = 18;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const CAN_BIT_TIMING: u16 = 1;
const CAN_STATE: u16 = 4;
const CAN_RESTART: u16 = 6;
const CAN_DATA_BIT_TIMING: u16 = 9;

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
            Some(code) if -code == ENODEV => Ok(None),
            Some(code) => Err(io::Error::from_raw_os_error(-code)),
            None => Err(nonsense()),
        },
        _ => Err(nonsense()),
    }
}

fn link(answer: &[u8]) -> Option<Link> {
    let flags = word_at(answer, HEADER + 8)?;
    let attributes = answer.get(HEADER + LINK_HEADER..)?;
    let word = |bytes, wanted| attribute(bytes, wanted).and_then(|content| word_at(content, 0));
    let text = |bytes, wanted| attribute(bytes, wanted).map(text_of).unwrap_or_default();
    let info = attribute(attributes, LINK_INFO).unwrap_or_default();
    let can = attribute(info, INFO_DATA).unwrap_or_default();
    // A bit rate of 0 is none.
    let rate = |wanted| word(can, wanted).filter(|rate| *rate > 0);
    Some(Link {
        up: flags & IFF_UP != 0,
        echo: flags & IFF_ECHO != 0,
        kind: text(info, INFO_KIND),
        mtu: word(attributes, MTU).unwrap_or(0),
        queue: word(attributes, QUEUE).unwrap_or(0),
        discipline: text(attributes, DISCIPLINE),
        bit_rate: rate(CAN_BIT_TIMING),
        data_bit_rate: rate(CAN_DATA_BIT_TIMING),
        state: word(can, CAN_STATE),
        restart: word(can, CAN_RESTART),
    })
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

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

fn short_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{Kernel, Link, Links, understand};

    #[test]
    fn the_loopback_is_there_and_another_is_not() {
        let link = Kernel.look_at("lo").expect("an answer").expect("every machine has lo");
        assert!(!link.echo && link.bit_rate.is_none() && link.mtu > 0 && !link.discipline.is_empty());
        assert_eq!(Kernel.look_at("no-such-thing").expect("an answer"), None);
    }

    /// An answer as a CAN controller's driver gives it, cut down to what matters.
    #[test]
    fn everything_of_a_controller_is_read_from_its_place() {
        let attribute = |kind: u16, content: &[u8]| {
            let mut bytes = Vec::new();
            bytes.extend(u16::try_from(4 + content.len()).expect("short").to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(content);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let word = |kind: u16, number: u32| attribute(kind, &number.to_ne_bytes());
        // struct can_bittiming: the bit rate, then seven more words.
        let timing = |rate: u32| [rate, 875, 125, 6, 7, 2, 1, 4].map(u32::to_ne_bytes).concat();
        let can =
            [attribute(1, &timing(500_000)), word(4, 1), word(6, 100), attribute(9, &timing(2_000_000))];
        let info = [attribute(1, b"can\0"), attribute(2 | 0x8000, &can.concat())];
        let mut answer = vec![0; 16];
        answer[4..6].copy_from_slice(&16_u16.to_ne_bytes());
        for header in [0_u32, 5, 1 | 1 << 18, 0] {
            answer.extend(header.to_ne_bytes());
        }
        answer.extend(attribute(3, b"can0\0"));
        answer.extend(word(13, 10));
        answer.extend(word(4, 72));
        answer.extend(attribute(6, b"pfifo_fast\0"));
        answer.extend(attribute(18, &info.concat()));
        let expected = Link {
            up: true,
            echo: true,
            kind: "can".to_owned(),
            mtu: 72,
            queue: 10,
            discipline: "pfifo_fast".to_owned(),
            bit_rate: Some(500_000),
            data_bit_rate: Some(2_000_000),
            state: Some(1),
            restart: Some(100),
        };
        assert_eq!(understand(&answer).expect("an answer"), Some(expected));
        // Whatever is cut off, nothing panics, and a cut header is an error.
        for length in 0..answer.len() {
            assert!(understand(&answer[..length]).is_ok() || length < 32, "{length} bytes");
        }
    }
}
