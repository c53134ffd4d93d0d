//! Jobs of the kernel on an interface that comes back while no supervisor lives.
//!
//! A job of CAN_BCM belongs to the interface of one number. When that is removed, an adapter that falls off USB for instance,
//! the kernel lets the job's timer run and sends nothing; the interface that comes back under the name has
//! another number. A living supervisor arms its jobs there again. When it is dead, its holder does.
//!
//! What lives here: looking for such an interface, and arming once. What must never: putting a job off that is armed. Its
//! timer is what stops the motors.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::write;
use shm_proto::verdicts::BusHealth;

use crate::netlink::Netlink;
use crate::{log, sys};

/// One bus as the holder needs it.
#[derive(Debug)]
pub struct Spare {
    /// A second descriptor of the socket that the jobs belong to.
    pub socket: OwnedFd,
    /// The name of its interface.
    pub interface: String,
    /// Its jobs.
    pub jobs: Vec<Words>,
}

/// One job, as the words it is looked for and armed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// Asks the kernel for it.
    pub ask: Vec<u8>,
    /// Arm it, written one after the other.
    pub arm: Vec<Vec<u8>>,
}

/// A bus, and the interface on which its jobs are known to be.
#[derive(Debug)]
struct Watched {
    spare: Spare,
    armed_on: Option<u32>,
}

/// The interfaces of a supervisor that is dead.
#[derive(Debug)]
pub struct Rearm {
    /// `None`: the kernel tells nothing of interfaces, and nothing is armed again.
    netlink: Option<Netlink>,
    buses: Vec<Watched>,
}

impl Rearm {
    /// Watches these buses as soon as it is asked to look.
    #[must_use]
    pub fn new(spares: Vec<Spare>) -> Self {
        let buses = spares.into_iter().map(|spare| Watched { spare, armed_on: None }).collect();
        let netlink = Netlink::open().inspect_err(|error| {
            log::line(&format!(
                "WARNING: the kernel cannot be asked about CAN interfaces ({error}): if this supervisor dies, nothing stops the \
                 motors on an interface that is then removed and comes back, until the next supervisor runs"
            ));
        });
        Self { netlink: netlink.ok(), buses }
    }

    /// The sockets.
    pub fn sockets(spares: &[Spare]) -> impl Iterator<Item = BorrowedFd<'_>> {
        spares.iter().map(|spare| spare.socket.as_fd())
    }

    /// Looks at each interface, and arms the jobs of one that is another since the last time.
    ///
    /// Only on one that is up: on one that is not, a job would spend the times of its gentle stop for nothing.
    pub fn look(&mut self) {
        let Some(netlink) = &self.netlink else { return };
        for Watched { spare, armed_on } in &mut self.buses {
            match netlink.look_at(&spare.interface) {
                // What is refused is tried again with the next look.
                Ok(Some(link)) if link.health != BusHealth::Down && *armed_on != Some(link.number) => {
                    *armed_on = spare.arm_on(link.number).is_ok().then_some(link.number);
                }
                Ok(None) => *armed_on = None,
                Ok(Some(_)) | Err(_) => {}
            }
        }
    }
}

impl Spare {
    /// Arms on that interface each job that is not there.
    fn arm_on(&self, interface: u32) -> io::Result<()> {
        match sys::connect_can(self.socket.as_fd(), interface) {
            // The one it was connected to exists: mostly it is this one, and its jobs were never lost.
            Err(error) if error.raw_os_error() != Some(libc::EISCONN) => return Err(error),
            _ => {}
        }
        for job in &self.jobs {
            if !self.has(job)? {
                job.arm.iter().try_for_each(|message| write(&self.socket, message).map(drop))?;
            }
        }
        Ok(())
    }

    /// Whether the kernel has the job on the interface that the socket is connected to, ended ones included.
    fn has(&self, job: &Words) -> io::Result<bool> {
        match write(&self.socket, &job.ask) {
            Ok(_) => {
                // The answer says more than was asked for. Whoever reads this socket next must not find it.
                let _ = recv(self.socket.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT);
                Ok(true)
            }
            Err(Errno::EINVAL) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
