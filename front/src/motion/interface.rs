//! Whether a network interface can carry a configured bus, and what to do when it cannot.

use std::io;
use std::path::Path;

use config::{Bus, BusFormat};

use super::error::MotionStartError;

/// Error numbers that have no `io::ErrorKind` (Linux, asm-generic).
pub mod errno {
    /// No such device or address.
    pub const ENXIO: i32 = 6;
    /// No such device.
    pub const ENODEV: i32 = 19;
    /// Here: a frame the interface does not take.
    pub const EINVAL: i32 = 22;
    /// Here: a frame longer than the interface takes.
    pub const EMSGSIZE: i32 = 90;
    /// The kernel has no such address family.
    pub const EAFNOSUPPORT: i32 = 97;
    /// The network is down.
    pub const ENETDOWN: i32 = 100;
    /// The transmit queue is full.
    pub const ENOBUFS: i32 = 105;
}

/// `ARPHRD_CAN` of `linux/if_arp.h`.
const TYPE_CAN: u32 = 280;
/// `IFF_UP` of `linux/if.h`.
const FLAG_UP: u32 = 1;
/// `CANFD_MTU` of `linux/can.h`; classic CAN has 16.
const MTU_FD: u32 = 72;

/// Checks what `/sys` tells of the interface. What it does not tell, opening the socket will.
///
/// # Errors
///
/// When it is missing, no CAN interface, down, or classic where CAN FD is configured.
pub fn check(bus: &Bus) -> Result<(), MotionStartError> {
    let class = Path::new("/sys/class/net");
    if !class.is_dir() {
        return Ok(());
    }
    let directory = class.join(&bus.interface);
    if !directory.is_dir() {
        return Err(error(bus, missing(&bus.interface)));
    }
    let number = |file: &str| read_number(&directory.join(file));
    judge(bus, number("type"), number("flags"), number("mtu")).map_or(Ok(()), |what| Err(error(bus, what)))
}

/// The kernel's number of the interface; `None` when there is none, or no `/sys`.
pub fn index(interface: &str) -> Option<u32> {
    read_number(&Path::new("/sys/class/net").join(interface).join("ifindex"))
}

/// What is wrong with an interface of that type, those flags and that MTU.
fn judge(bus: &Bus, kind: Option<u32>, flags: Option<u32>, mtu: Option<u32>) -> Option<String> {
    let interface = &bus.interface;
    if kind.is_some_and(|kind| kind != TYPE_CAN) {
        return Some(format!("{interface} is no CAN interface; see `ip -details link show type can`"));
    }
    if flags.is_some_and(|flags| flags & FLAG_UP == 0) {
        return Some(format!("{interface} is down; set its bit rate and run `ip link set {interface} up`"));
    }
    if bus.format == BusFormat::Fd && mtu.is_some_and(|mtu| mtu < MTU_FD) {
        return Some(format!(
            "the configuration says fd = true, but {interface} carries classic CAN only; run `ip link set \
             {interface} down`, set it up with `type can ... fd on` (vcan: `mtu 72`), or take fd = true away"
        ));
    }
    None
}

/// What a refused socket means.
pub fn unopened(bus: &Bus, refusal: &io::Error) -> MotionStartError {
    let what = match refusal.raw_os_error() {
        Some(errno::EAFNOSUPPORT) => "this process gets no CAN sockets: load the kernel modules can and \
                                      can-raw, and allow AF_CAN in the unit's RestrictAddressFamilies="
            .to_owned(),
        Some(errno::ENODEV | errno::ENXIO) => missing(&bus.interface),
        _ => format!("cannot open it: {refusal}"),
    };
    error(bus, what)
}

fn missing(interface: &str) -> String {
    format!(
        "there is no interface {interface}; plug the adapter in or correct \"interface\" (`ip link show` \
         lists what there is)"
    )
}

fn error(bus: &Bus, what: String) -> MotionStartError {
    MotionStartError { bus: bus.name.clone(), interface: bus.interface.clone(), what }
}

/// A decimal or 0x number.
fn read_number(path: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim();
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Bus, BusFormat, check, judge};

    fn bus(format: BusFormat) -> Bus {
        let mut bus = crate::motion::tests::configuration().buses.remove(0);
        bus.name = "arm".into();
        bus.interface = "no-such-can".into();
        bus.format = format;
        bus
    }

    #[test]
    fn problems_name_the_interface_and_the_remedy() {
        let (classic, fd) = (bus(BusFormat::Classic), bus(BusFormat::Fd));
        let text = check(&classic).map_err(|error| error.to_string());
        let expected = "CAN bus \"arm\", interface \"no-such-can\": there is no interface no-such-can; ";
        assert!(text.is_err_and(|text| text.starts_with(expected)));
        let said = |what: Option<String>, part: &str| what.is_some_and(|what| what.contains(part));
        assert!(said(judge(&classic, Some(1), Some(1), Some(1500)), "is no CAN interface"));
        assert!(said(judge(&classic, Some(280), Some(0x40080), Some(16)), "`ip link set no-such-can up`"));
        assert!(said(judge(&fd, Some(280), Some(0x40081), Some(16)), "carries classic CAN only"));
        assert_eq!(judge(&fd, Some(280), Some(0x40081), Some(72)), None);
        assert_eq!(judge(&classic, Some(280), Some(0x40081), Some(16)), None);
        assert_eq!(judge(&classic, None, None, None), None, "what cannot be read is not held against it");
    }
}
