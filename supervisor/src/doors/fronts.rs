//! The hand-over: how a front gets its segments, and how it is told that it is watched.

use std::os::fd::AsFd;

use shm_proto::beats::BeatView;
use shm_proto::handover::{Message, send};
use shm_proto::layout::{BeatLayout, layout_hash};

use super::door::{Connection, Door, Keep, Stage, refuse};
use crate::queue::Command;
use crate::sys;

impl Door {
    /// Whether a front is attached or about to be, other than through the connection that is served.
    fn front_is_taken(&self) -> bool {
        let (_, pid) = self.verdicts.front();
        pid != 0 || self.connections.iter().any(|c| matches!(c.stage, Stage::Attaching))
    }

    /// Offers a front its segments.
    pub(super) fn offer(&mut self, connection: &mut Connection, layout: u64, config: u64) -> Keep {
        if layout != layout_hash() {
            return refuse(
                connection,
                "the shared-memory layouts differ: front and supervisor are of different versions; install \
                 both from one package",
            );
        }
        if config != self.config.hash {
            return refuse(
                connection,
                &format!(
                    "the configuration differs from the one this supervisor started with ({}); restart the \
                     supervisor, or start the front with the same file",
                    self.config.path.display()
                ),
            );
        }
        if self.front_is_taken() {
            return self.refuse_second(connection);
        }
        if connection.pid == 0 {
            return refuse(
                connection,
                "the process id of the front is not visible here (another namespace?)",
            );
        }
        self.generation.0 += 1;
        let capacity = self.config.supervisor.capacity;
        let words = BeatLayout::new(capacity).words();
        let beats = match shm_proto::memory::create("lanyard-beats", words) {
            Ok(beats) => beats,
            Err(error) => return refuse(connection, &format!("no shared memory: {error}")),
        };
        let offer = Message::Offer { generation: self.generation, capacity };
        let fds = [beats.as_fd(), self.verdicts_fd.as_fd()];
        if send(connection.socket.as_fd(), &offer, &fds).is_err() {
            return Keep::No;
        }
        connection.stage = Stage::Offered { beats, generation: self.generation };
        Keep::Yes
    }

    fn refuse_second(&self, connection: &Connection) -> Keep {
        let (_, pid) = self.verdicts.front();
        refuse(connection, &format!("another front is attached (process {pid}); stop it first"))
    }

    /// Seals what the front has mapped: from now on no process may map it for writing or resize it. Has it watched.
    pub(super) fn attach(&mut self, connection: &mut Connection) -> Keep {
        // Two may have been offered a segment; the first to map it is the front.
        if self.front_is_taken() {
            return self.refuse_second(connection);
        }
        let Stage::Offered { beats, generation } = std::mem::replace(&mut connection.stage, Stage::Attaching)
        else {
            return Keep::No;
        };
        let capacity = self.config.supervisor.capacity;
        let view = shm_proto::memory::seal(beats.as_fd())
            .and_then(|()| BeatView::map(beats.as_fd(), capacity, generation));
        let process = sys::pidfd_open(connection.pid);
        let (view, pidfd) = match (view, process) {
            (Ok(view), Ok(pidfd)) => (view, pidfd),
            (Err(error), _) | (_, Err(error)) => {
                return refuse(connection, &format!("the hand-over failed: {error}"));
            }
        };
        self.command(connection, Command::Attach { view, pid: connection.pid, pidfd })
    }
}
