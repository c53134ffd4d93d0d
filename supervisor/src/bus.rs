//! CAN interfaces: opened before arming, then only non-blocking sends and receives.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use config::{Bus, BusFormat, Config};
use drivers::{ArbitrationId, Format, Frame};
use nix::sys::socket::{setsockopt, sockopt::Priority};
use socketcan::frame::CanRawFrame;
use socketcan::{
    CanDataFrame, CanFdFrame, CanFdSocket, CanFilter, CanRemoteFrame, EmbeddedFrame, ExtendedId, Id, Socket,
    SocketOptions, StandardId,
};

use crate::core::{SendError, Wire};
use crate::runtime::Ports;

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
    let filters = filters(config, index);
    if filters.len() <= MOST_FILTERS {
        socket.set_filters(&filters).map_err(explain)?;
    }
    Ok(socket)
}

/// One exact filter per id on which a drive of the bus reports or takes commands.
fn filters(config: &Config, bus: usize) -> Vec<CanFilter> {
    let motors = config.motors.iter().filter(|motor| motor.bus == bus);
    let ids = motors.flat_map(|motor| motor.drive.reports.iter().chain(&motor.drive.commands));
    let filters = ids.map(|id| match id {
        // Remote frames pass too: a remote frame to a command id may be a command.
        ArbitrationId::Standard(id) => {
            CanFilter::new(u32::from(*id), libc::CAN_SFF_MASK | libc::CAN_EFF_FLAG)
        }
        ArbitrationId::Extended(id) => {
            CanFilter::new(id | libc::CAN_EFF_FLAG, libc::CAN_EFF_MASK | libc::CAN_EFF_FLAG)
        }
    });
    filters.collect()
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
#[must_use]
pub fn is_up(interface: &str) -> bool {
    // IFF_UP.
    number_in(&Path::new("/sys/class/net").join(interface).join("flags")).is_some_and(|flags| flags & 1 == 1)
}

/// The number the kernel gives an interface; another number under the same name is another interface.
#[must_use]
pub fn interface_number(interface: &str) -> Option<u32> {
    let number = number_in(&Path::new("/sys/class/net").join(interface).join("ifindex"))?;
    u32::try_from(number).ok()
}

/// A frame in the kernel's form.
enum KernelFrame {
    Data(CanDataFrame),
    Remote(CanRemoteFrame),
    Fd(CanFdFrame),
}

fn to_kernel(frame: &Frame) -> Option<KernelFrame> {
    let id: Id = match frame.id() {
        ArbitrationId::Standard(id) => StandardId::new(id)?.into(),
        ArbitrationId::Extended(id) => ExtendedId::new(id)?.into(),
    };
    Some(match frame.format() {
        Format::Classic => KernelFrame::Data(CanDataFrame::new(id, frame.payload())?),
        Format::Remote => KernelFrame::Remote(CanRemoteFrame::new_remote(id, 0)?),
        Format::FdBrs => {
            let mut fd = CanFdFrame::new(id, frame.payload())?;
            fd.set_brs(true);
            KernelFrame::Fd(fd)
        }
    })
}

fn id_of(word: u32) -> ArbitrationId {
    if word & libc::CAN_EFF_FLAG == 0 {
        ArbitrationId::standard((word & libc::CAN_SFF_MASK) as u16)
    } else {
        ArbitrationId::extended(word & libc::CAN_EFF_MASK)
    }
}

fn from_kernel(raw: &CanRawFrame) -> Option<Frame> {
    let (word, data, length) = match raw {
        CanRawFrame::Classic(frame) => (frame.can_id, &frame.data[..], frame.can_dlc),
        CanRawFrame::Fd(frame) => (frame.can_id, &frame.data[..], frame.len),
    };
    if word & libc::CAN_ERR_FLAG != 0 {
        return None;
    }
    let id = id_of(word);
    let payload = data.get(..usize::from(length)).unwrap_or(data);
    Some(match raw {
        _ if word & libc::CAN_RTR_FLAG != 0 => Frame::remote(id),
        CanRawFrame::Classic(_) => Frame::classic(id, payload),
        CanRawFrame::Fd(_) => Frame::fd(id, payload),
    })
}

/// What came of trying to receive.
#[derive(Debug)]
pub enum Received {
    /// A frame.
    Frame(Frame),
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

    /// Hands a frame to a bus without waiting.
    ///
    /// # Errors
    ///
    /// When the kernel did not take it.
    pub fn hand_over(&self, bus: usize, frame: &Frame) -> Result<(), SendError> {
        let (Some(socket), Some(frame)) = (self.sockets.get(bus), to_kernel(frame)) else {
            return Err(SendError::Other(libc::EINVAL));
        };
        let sent = match &frame {
            KernelFrame::Data(frame) => socket.write_frame(frame),
            KernelFrame::Remote(frame) => socket.write_frame(frame),
            KernelFrame::Fd(frame) => socket.write_frame(frame),
        };
        sent.map_err(|error| SendError::from_errno(error.raw_os_error().unwrap_or(libc::EIO)))
    }
}

/// Second descriptors of CAN sockets, by bus: when an interface vanishes and another comes back under its
/// name, its sockets are bound to that one. The real-time thread keeps using the descriptors it has.
#[derive(Debug, Default)]
pub struct Rebind {
    sockets: Vec<Vec<OwnedFd>>,
}

impl Rebind {
    /// Adds the sockets of all these buses.
    ///
    /// # Errors
    ///
    /// When there are no descriptors left.
    pub fn add(&mut self, buses: &Buses) -> io::Result<()> {
        self.sockets.resize_with(self.sockets.len().max(buses.sockets.len()), Vec::new);
        for (place, socket) in self.sockets.iter_mut().zip(&buses.sockets) {
            place.push(socket.as_fd().try_clone_to_owned()?);
        }
        Ok(())
    }

    /// Binds the sockets of a bus to the interface with that number.
    ///
    /// # Errors
    ///
    /// When it is no CAN interface, or gone again.
    pub fn rebind(&self, bus: usize, interface: u32) -> io::Result<()> {
        let sockets = self.sockets.get(bus).map_or(&[][..], Vec::as_slice);
        sockets.iter().try_for_each(|socket| crate::sys::bind_can(socket.as_fd(), interface))
    }
}

impl Wire for Buses {
    fn send(&mut self, bus: usize, frame: &Frame) -> Result<(), SendError> {
        self.hand_over(bus, frame)
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
        match socket.read_raw_frame() {
            Ok(raw) => from_kernel(&raw).map_or(Received::Other, Received::Frame),
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR) => Received::Nothing,
                Some(errno) => Received::Broken(errno),
                None => Received::Other,
            },
        }
    }
}
