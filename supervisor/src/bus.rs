//! CAN interfaces: opened before arming, then only non-blocking sends and receives.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use config::{Bus, BusFormat, Config};
use drivers::{ArbitrationId, Drive, Frame};
use nix::sys::socket::{setsockopt, sockopt::Priority};
use nix::unistd::write;
use shm_proto::Nanos;
use socketcan::{CanFdSocket, CanFilter, Socket, SocketOptions};

use crate::core::{Origin, Report, SendError, Wire};
use crate::kernel_frame::{self, Delivered, KernelFrame};
use crate::runtime::Ports;
use crate::sys::{self, Sender};

/// The highest priority that needs no privilege. Stop frames go through their own band of the
/// interface's queue and overtake motion frames that wait there (sent with the default priority 0).
const STOP_PRIORITY: libc::c_int = 6;
/// The kernel's limit of filters per socket (CAN_RAW_FILTER_MAX); with more ids than that the socket
/// takes every frame.
const MOST_FILTERS: usize = 512;
/// MTU of an interface that carries CAN FD.
const FD_MTU: u64 = 72;

/// All buses of the configuration, in its order.
#[derive(Debug)]
pub struct Buses {
    sockets: Vec<CanFdSocket>,
}

/// Opens the socket of one bus.
///
/// # Errors
///
/// When the interface is missing, no CAN interface, down, or cannot carry CAN FD where it must; the
/// text says which and what to do.
pub fn open(config: &Config, index: usize) -> Result<CanFdSocket, String> {
    let bus = &config.buses[index];
    check_interface(bus)?;
    let explain = |error: io::Error| {
        let hint = match error.raw_os_error() {
            Some(libc::EAFNOSUPPORT) => "; this kernel has no CAN: load the module can_raw",
            _ => "",
        };
        format!("bus \"{}\": interface \"{}\": {error}{hint}", bus.name, bus.interface)
    };
    let socket = CanFdSocket::open(&bus.interface).map_err(explain)?;
    socket.set_nonblocking(true).map_err(explain)?;
    setsockopt(&socket, Priority, &STOP_PRIORITY).map_err(|error| explain(error.into()))?;
    socket.set_filters(&filters(config, index)).map_err(explain)?;
    Ok(socket)
}

/// Asks for what the real-time thread needs to know besides frames of others: the interface's own reports,
/// and, where they mean something, the echoes of what this socket sends.
fn listen_to_the_bus(socket: &CanFdSocket, confirms: Confirms) -> io::Result<()> {
    socket.set_error_filter_accept_all()?;
    socket.set_recv_own_msgs(confirms == Confirms::OnTheWire)
}

/// What an echo of a sent frame means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirms {
    /// The frame was acknowledged on the wire: the driver says so (IFF_ECHO).
    OnTheWire,
    /// Nothing: the kernel makes it up when the frame is queued (vcan, slcan).
    Nothing,
}

/// Whether the echoes of an interface mean anything. Source: `net/can/af_can.c`, `can_send`.
#[must_use]
pub fn confirms(interface: &str) -> Confirms {
    const IFF_ECHO: u64 = libc::IFF_ECHO as u64;
    match number_in(&Path::new("/sys/class/net").join(interface).join("flags")) {
        Some(flags) if flags & IFF_ECHO != 0 => Confirms::OnTheWire,
        _ => Confirms::Nothing,
    }
}

/// What wakes the real-time thread: the ids on which a drive of the bus reports or takes commands, each with
/// a filter of its own. Where these are more than the kernel takes, a drive whose ids are one block gets one
/// filter for all of them; not one that also reports, or is commanded, on ids it has in common with others.
fn filters(config: &Config, bus: usize) -> Vec<CanFilter> {
    let drives = || config.motors.iter().filter(|motor| motor.is_on(bus)).map(|motor| &motor.drive);
    let wanted = |drive: &Drive| drive.reports.iter().chain(&drive.commands).map(exact).collect::<Vec<_>>();
    // What wakes a drive goes out by the id by which it is made deaf.
    let mut wakes: Vec<ArbitrationId> =
        drives().filter_map(|drive| Some(drive.protocol.wake()?.id())).collect();
    wakes.dedup();
    let wakes = || wakes.iter().map(exact);
    let each: Vec<CanFilter> = drives().flat_map(wanted).chain(wakes()).collect();
    if each.len() <= MOST_FILTERS {
        return each;
    }
    let all_own =
        |drive: &Drive| drive.reports.iter().chain(&drive.commands).all(|id| drive.owns.contains(id));
    let whole = |drive: &Drive| block(&drive.owns).filter(|_| all_own(drive));
    let blocks: Vec<CanFilter> = drives()
        .flat_map(|drive| whole(drive).map_or_else(|| wanted(drive), |one| vec![one]))
        .chain(wakes())
        .collect();
    if blocks.len() <= MOST_FILTERS { blocks } else { vec![CanFilter::new(0, 0)] }
}

/// Remote frames pass too: a remote frame to a command id may be a command.
fn exact(id: &ArbitrationId) -> CanFilter {
    match id {
        ArbitrationId::Standard(id) => {
            CanFilter::new(u32::from(*id), libc::CAN_SFF_MASK | libc::CAN_EFF_FLAG)
        }
        ArbitrationId::Extended(id) => {
            CanFilter::new(id | libc::CAN_EFF_FLAG, libc::CAN_EFF_MASK | libc::CAN_EFF_FLAG)
        }
    }
}

/// One filter for exactly these ids, if they are an aligned block of standard ids.
fn block(ids: &[ArbitrationId]) -> Option<CanFilter> {
    let numbers: Option<Vec<u16>> = ids
        .iter()
        .map(|id| match id {
            ArbitrationId::Standard(id) => Some(*id),
            ArbitrationId::Extended(_) => None,
        })
        .collect();
    let mut numbers = numbers?;
    numbers.sort_unstable();
    let (first, size) = (*numbers.first()?, u16::try_from(numbers.len()).ok()?);
    let whole = size.is_power_of_two()
        && first.is_multiple_of(size)
        && (first..first + size).eq(numbers.iter().copied());
    let mask = libc::CAN_SFF_MASK & !u32::from(size - 1);
    whole.then(|| CanFilter::new(u32::from(first), mask | libc::CAN_EFF_FLAG))
}

/// Whether the interface is there, up, and of the right kind.
fn check_interface(bus: &Bus) -> Result<(), String> {
    let (name, interface) = (&bus.name, &bus.interface);
    let folder = Path::new("/sys/class/net").join(interface);
    if !folder.exists() {
        let known = can_interfaces();
        let known =
            if known.is_empty() { "there is no CAN interface at all".to_owned() } else { known.join(", ") };
        return Err(format!(
            "bus \"{name}\": interface \"{interface}\" does not exist; CAN interfaces here: {known}"
        ));
    }
    let number = |file: &str| number_in(&folder.join(file));
    // ARPHRD_CAN.
    if number("type") != Some(280) {
        return Err(format!("bus \"{name}\": interface \"{interface}\" is not a CAN interface"));
    }
    if !is_up(interface) {
        return Err(format!(
            "bus \"{name}\": interface \"{interface}\" is down; bring it up first: \
             ip link set {interface} up (a real bus needs its bit rate before: \
             ip link set {interface} type can bitrate 500000)"
        ));
    }
    if bus.format == BusFormat::Fd && number("mtu").is_some_and(|mtu| mtu < FD_MTU) {
        return Err(format!(
            "bus \"{name}\": interface \"{interface}\" carries classic CAN only, but fd = true; \
             set it to CAN FD: ip link set {interface} type can ... dbitrate ... fd on \
             (vcan: ip link set {interface} mtu 72)"
        ));
    }
    Ok(())
}

fn can_interfaces() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/class/net") else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| number_in(&entry.path().join("type")) == Some(280))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A number in a sysfs file, decimal or with 0x.
fn number_in(path: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim();
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Whether an interface exists and is administratively up.
fn is_up(interface: &str) -> bool {
    // IFF_UP.
    number_in(&Path::new("/sys/class/net").join(interface).join("flags")).is_some_and(|flags| flags & 1 == 1)
}

/// The number the kernel gives an interface; another number under the same name is another interface.
#[must_use]
pub fn interface_number(interface: &str) -> Option<u32> {
    let number = number_in(&Path::new("/sys/class/net").join(interface).join("ifindex"))?;
    u32::try_from(number).ok()
}

/// What came of trying to receive.
#[derive(Debug)]
pub enum Received {
    /// A frame of somebody else's.
    Frame(Origin, Frame),
    /// A frame of ours that the interface reports as acknowledged on the wire.
    Confirmed(Frame),
    /// An error frame: a report of the interface about the bus, if it comes from there.
    Report(Origin, Report),
    /// Something that is no frame for us.
    Other,
    /// Nothing is waiting.
    Nothing,
    /// The interface does not work; the error number.
    Broken(i32),
}

impl Buses {
    /// Opens every bus.
    ///
    /// # Errors
    ///
    /// With the problems of all buses that cannot be opened.
    pub fn open(config: &Config) -> Result<Self, Vec<String>> {
        let mut sockets = Vec::new();
        let mut problems = Vec::new();
        for index in 0..config.buses.len() {
            match open(config, index) {
                Ok(socket) => sockets.push(socket),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(Self { sockets }) } else { Err(problems) }
    }

    /// Makes these sockets receive nothing: they are for sending only.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the empty filter.
    pub fn deafen(&self) -> io::Result<()> {
        self.sockets.iter().try_for_each(SocketOptions::set_filter_drop_all)
    }

    /// Makes these sockets hear, besides the frames of the drives, the interfaces' own reports and the
    /// echoes of what they send. Says of each bus what its echoes mean.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn listen(&self, config: &Config) -> io::Result<Vec<Confirms>> {
        let buses = self.sockets.iter().zip(&config.buses);
        buses
            .map(|(socket, bus)| {
                let confirms = confirms(&bus.interface);
                listen_to_the_bus(socket, confirms).map(|()| confirms)
            })
            .collect()
    }

    /// Number of buses.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Whether there is no bus.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// The socket of a bus.
    #[must_use]
    pub fn socket(&self, bus: usize) -> Option<BorrowedFd<'_>> {
        self.sockets.get(bus).map(AsFd::as_fd)
    }

    /// Hands a frame to a bus without waiting.
    ///
    /// # Errors
    ///
    /// When the kernel did not take it.
    pub fn hand_over(&self, bus: usize, frame: &Frame) -> Result<(), SendError> {
        let socket = self.sockets.get(bus).ok_or(SendError::Other(libc::EINVAL))?;
        // A frame goes out whole or not at all.
        match write(socket, KernelFrame::new(frame).as_bytes()) {
            Ok(_) => Ok(()),
            Err(error) => Err(SendError::from_errno(error as i32)),
        }
    }
}

/// Second descriptors of CAN sockets, by bus: when an interface vanishes and another comes back under its
/// name, its sockets are bound to that one. The real-time thread keeps using the descriptors it has.
#[derive(Debug, Default)]
pub struct Rebind {
    sockets: Vec<Vec<Second>>,
}

/// A second descriptor of a CAN socket, and what it listens to: the kernel throws the filters away with the
/// interface (`net/can/raw.c`, `raw_notify`), and a socket without filters hears nothing.
struct Second {
    socket: OwnedFd,
    filters: Vec<libc::can_filter>,
}

impl std::fmt::Debug for Second {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} with {} filters", self.socket, self.filters.len())
    }
}

impl Rebind {
    /// Adds the sockets of all these buses, as they listen now.
    ///
    /// # Errors
    ///
    /// When there are no descriptors left, or the kernel does not tell the filters.
    pub fn add(&mut self, buses: &Buses) -> io::Result<()> {
        self.sockets.resize_with(self.sockets.len().max(buses.sockets.len()), Vec::new);
        for (place, socket) in self.sockets.iter_mut().zip(&buses.sockets) {
            let filters = sys::can_filters(socket.as_fd(), MOST_FILTERS)?;
            place.push(Second { socket: socket.as_fd().try_clone_to_owned()?, filters });
        }
        Ok(())
    }

    /// Whether every socket of the bus belongs to the interface of that number. One that was removed leaves its sockets
    /// without any, and the next one may have the same number.
    #[must_use]
    pub fn is_bound(&self, bus: usize, interface: u32) -> bool {
        let sockets = self.sockets.get(bus).map_or(&[][..], Vec::as_slice);
        sockets.iter().all(|second| {
            // A question that is not answered is no reason to do anything.
            sys::interface_of(second.socket.as_fd()).map_or(true, |bound| bound == interface)
        })
    }

    /// Binds the sockets of a bus to the interface with that number.
    ///
    /// # Errors
    ///
    /// When it is no CAN interface, or gone again.
    pub fn rebind(&self, bus: usize, interface: u32) -> io::Result<()> {
        let sockets = self.sockets.get(bus).map_or(&[][..], Vec::as_slice);
        sockets.iter().try_for_each(|Second { socket, filters }| {
            // Before binding, so that nothing is missed after it.
            sys::set_can_filters(socket.as_fd(), filters)?;
            sys::bind_can(socket.as_fd(), interface)
        })
    }
}

/// Where a frame came from that others have sent; `None` for one of ours.
fn origin(sender: Sender, bytes: &[u8]) -> Option<Origin> {
    match sender {
        Sender::ThisSocket => None,
        Sender::AnotherSocket if kernel_frame::is_of_a_job(bytes) => Some(Origin::Job),
        Sender::AnotherSocket => Some(Origin::Local),
        Sender::NoSocket => Some(Origin::Wire),
    }
}

impl Wire for Buses {
    fn send(&mut self, bus: usize, frame: &Frame) -> Result<(), SendError> {
        self.hand_over(bus, frame)
    }

    fn now(&mut self) -> Nanos {
        Nanos::now()
    }
}

impl Ports for Buses {
    fn count(&self) -> usize {
        self.sockets.len()
    }

    fn fd(&self, bus: usize) -> Option<BorrowedFd<'_>> {
        self.sockets.get(bus).map(AsFd::as_fd)
    }

    fn receive(&mut self, bus: usize) -> Received {
        let Some(socket) = self.sockets.get(bus) else { return Received::Nothing };
        let mut bytes = [0; kernel_frame::FD];
        match sys::receive_frame(socket.as_fd(), &mut bytes) {
            Ok(arrival) => match (
                kernel_frame::read(&bytes[..arrival.length]),
                origin(arrival.sender, &bytes[..arrival.length]),
            ) {
                (Some(Delivered::Frame(frame)), Some(origin)) => Received::Frame(origin, frame),
                (Some(Delivered::Frame(frame)), None) => Received::Confirmed(frame),
                (Some(Delivered::Error { classes, details }), Some(origin)) => {
                    Received::Report(origin, Report::new(classes, details))
                }
                // This socket sends no error frames.
                (Some(Delivered::Error { .. }), None) | (None, _) => Received::Other,
            },
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR) => Received::Nothing,
                Some(errno) => Received::Broken(errno),
                None => Received::Other,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many drives whose ids are blocks, and one that owns a single id but answers on another.
    #[test]
    fn a_drive_that_answers_on_a_shared_id_is_heard_on_a_full_bus_too() {
        let mut robot = String::from("[[bus]]\nname = \"can0\"\n");
        for node in 16..63 {
            robot += &format!(
                "[[motor]]\nname = \"o{node}\"\nbus = \"can0\"\ndriver = \"odrive\"\nnode = {node}\n\
                 firmware = \"0.6\"\nafter_stop = \"release\"\nmax_rpm = 300\n"
            );
        }
        robot += "[[motor]]\nname = \"ak\"\nbus = \"can0\"\ndriver = \"cubemars-mit\"\nid = 7\n\
                  model = \"AK80-9\"\nafter_stop = \"release\"\nmax_rpm = 60\n";
        let config = Config::parse(Path::new("test.toml"), &robot).expect("valid");
        let filters = format!("{:?}", filters(&config, 0));
        for id in [0, 7] {
            let wanted = format!("{:?}", exact(&ArbitrationId::standard(id)));
            assert!(filters.contains(&wanted), "{id}: {wanted} is not in {filters}");
        }
    }
}
