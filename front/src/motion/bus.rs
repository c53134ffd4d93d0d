//! One CAN bus: the socket that motion frames go out on, and the task that reads the drives' feedback.
//!
//! The socket keeps the default priority: the supervisor's stops have a higher one and overtake
//! whatever waits here. It takes the reports of the configured drives only, so that other traffic does
//! not wake the process.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drivers::socket::{from_socket, to_socket};
use drivers::{ArbitrationId, Drive, Frame};
use socketcan::tokio::CanFdSocket;
use socketcan::{CanFilter, SocketOptions as _};
use tokio::time::{sleep, timeout};

use super::Station;
use super::error::MotionStartError;
use super::interface::{self, errno};
use super::wire::{SendError, Wire};

/// How often an interface that vanished is looked for.
const REOPEN: Duration = Duration::from_millis(500);
/// Silence after which the interface is looked at: its end does not wake a reader.
const SILENCE: Duration = Duration::from_millis(500);
/// Pause after a failed read, so that an interface that is down does not keep the process busy.
const PAUSE: Duration = Duration::from_millis(100);
/// `CAN_RAW_FILTER_MAX` of `linux/can/raw.h`.
const MOST_FILTERS: usize = 512;
/// `CAN_EFF_FLAG` and `CAN_RTR_FLAG` of `linux/can.h`.
const EXTENDED: u32 = 1 << 31;
const REMOTE: u32 = 1 << 30;

/// A drive on the bus and where its feedback goes.
pub struct Listener {
    /// The drive.
    pub drive: Drive,
    /// Where its feedback goes.
    pub station: Arc<Station>,
}

/// One CAN bus.
pub struct Bus {
    settings: config::Bus,
    filters: Vec<CanFilter>,
    /// Replaced when an interface that vanished is back; locked to copy the pointer only.
    open: Mutex<Arc<Open>>,
}

/// A socket on an interface.
struct Open {
    socket: CanFdSocket,
    /// An interface that comes back has another number.
    index: Option<u32>,
}

impl Bus {
    /// Opens the bus and starts reading.
    ///
    /// # Errors
    ///
    /// When the interface is missing, down or not what the configuration says.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn open(settings: &config::Bus, listeners: Vec<Listener>) -> Result<Arc<Self>, MotionStartError> {
        interface::check(settings)?;
        let filters = filters(&listeners);
        let open = Open::new(&settings.interface, &filters)
            .map_err(|refusal| interface::unopened(settings, &refusal))?;
        let bus = Arc::new(Self { settings: settings.clone(), filters, open: Mutex::new(Arc::new(open)) });
        tokio::spawn(Arc::clone(&bus).read(listeners));
        Ok(bus)
    }

    fn current(&self) -> Arc<Open> {
        Arc::clone(&self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn read(self: Arc<Self>, listeners: Vec<Listener>) {
        let mut by_id: HashMap<ArbitrationId, Vec<&Listener>> = HashMap::new();
        for listener in &listeners {
            for id in &listener.drive.reports {
                by_id.entry(*id).or_default().push(listener);
            }
        }
        loop {
            match self.receive().await {
                Ok(Some(frame)) => {
                    for listener in by_id.get(&frame.id()).into_iter().flatten() {
                        if let Some(observation) = listener.drive.decode(&frame) {
                            listener.station.feedback.take_in(&observation);
                        }
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    let interface = &self.settings.interface;
                    tracing::warn!(%interface, %error, "cannot read from the CAN interface");
                    if matches!(error.raw_os_error(), Some(errno::ENODEV | errno::ENXIO)) {
                        self.reopen().await;
                    } else {
                        sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    /// The next frame, or none for a while.
    async fn receive(&self) -> io::Result<Option<Frame>> {
        let open = self.current();
        let frame = match timeout(SILENCE, open.socket.read_frame()).await {
            Ok(frame) => frame?,
            Err(_) => match open.socket.try_read_frame() {
                Ok(frame) => frame,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let index = interface::index(&self.settings.interface);
                    return if index == open.index { Ok(None) } else { Err(vanished()) };
                }
                Err(error) => return Err(error),
            },
        };
        Ok(from_socket(&frame))
    }

    /// Waits until the interface is there again, and up.
    async fn reopen(&self) {
        loop {
            sleep(REOPEN).await;
            if interface::check(&self.settings).is_err() {
                continue;
            }
            if let Ok(open) = Open::new(&self.settings.interface, &self.filters) {
                *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(open);
                tracing::info!(interface = %self.settings.interface, "the CAN interface is back");
                return;
            }
        }
    }

    fn explain(&self, error: &io::Error) -> SendError {
        let interface = &self.settings.interface;
        SendError::Down(match error.raw_os_error() {
            Some(errno::ENOBUFS) => return SendError::Busy,
            _ if error.kind() == io::ErrorKind::WouldBlock => return SendError::Busy,
            Some(errno::ENETDOWN) => format!(
                "{interface} is down, or off the bus after too many errors; check cable and termination, then \
                 run `ip link set {interface} up` (restart-ms brings it back by itself)"
            ),
            Some(errno::ENODEV | errno::ENXIO) => {
                format!("{interface} has vanished; plug the adapter in again, it is then taken up by itself")
            }
            Some(errno::EINVAL | errno::EMSGSIZE) => {
                format!("{interface} does not take this frame; an FD drive needs it set up with `fd on`")
            }
            _ => format!("{interface}: {error}"),
        })
    }
}

impl Wire for Bus {
    fn send(&self, frame: &Frame) -> Result<(), SendError> {
        let Some(frame) = to_socket(frame) else {
            return Err(SendError::Down(format!("{frame} is no CAN frame")));
        };
        let open = self.current();
        let sent = match open.socket.try_write_frame(&frame) {
            // The socket may still owe the news of an interface that was down meanwhile; told once, it
            // goes on.
            Err(error) if error.raw_os_error() == Some(errno::ENETDOWN) => {
                open.socket.try_write_frame(&frame)
            }
            sent => sent,
        };
        sent.map_err(|error| self.explain(&error))
    }
}

impl Open {
    fn new(interface: &str, filters: &[CanFilter]) -> io::Result<Self> {
        let index = interface::index(interface);
        let socket = CanFdSocket::open(interface)?;
        if filters.len() <= MOST_FILTERS {
            socket.set_filters(filters)?;
        }
        Ok(Self { socket, index })
    }
}

fn vanished() -> io::Error {
    io::Error::from_raw_os_error(errno::ENODEV)
}

/// Data frames with exactly the ids on which the drives report.
fn filters(listeners: &[Listener]) -> Vec<CanFilter> {
    let ids = listeners.iter().flat_map(|listener| &listener.drive.reports);
    ids.map(|id| match id {
        ArbitrationId::Standard(id) => CanFilter::new(u32::from(*id), 0x7FF | EXTENDED | REMOTE),
        ArbitrationId::Extended(id) => CanFilter::new(id | EXTENDED, 0x1FFF_FFFF | EXTENDED | REMOTE),
    })
    .collect()
}
