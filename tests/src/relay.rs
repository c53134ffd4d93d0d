//! A network that can fall silent: a relay of TCP that holds back what passes, and delivers it all at once later.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

/// What is read at once: more than is ever held back here.
const PIECE: usize = 1 << 18;

#[derive(Debug, Default)]
struct State {
    held: bool,
    ending: bool,
    /// What clients have sent, by connection in the order in which they were made, as it was passed on.
    passed: Vec<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while everything is held back; says whether it had to.
    fn wait(&self) -> bool {
        let mut state = self.state();
        let had_to = state.held;
        while state.held && !state.ending {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        had_to
    }
}

/// The relay. Its connections end with it.
#[derive(Debug)]
pub struct Relay {
    /// Where it listens.
    pub address: String,
    shared: Arc<Shared>,
}

impl Relay {
    /// Listens on a free port; everything that connects there is led to `target`.
    ///
    /// # Errors
    /// It cannot listen.
    pub fn start(target: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen for the relay")?;
        let address = listener.local_addr()?.to_string();
        let shared = Arc::new(Shared::default());
        let (for_thread, target) = (Arc::clone(&shared), target.to_owned());
        std::thread::Builder::new().name("relay".to_owned()).spawn(move || {
            for near in listener.incoming().flatten() {
                if for_thread.state().ending {
                    return;
                }
                // Whoever cannot be led on finds the connection closed.
                drop(lead(near, &target, &for_thread));
            }
        })?;
        Ok(Self { address, shared })
    }

    /// Holds back everything that comes from now on, in both directions. Connections stay open.
    pub fn hold(&self) {
        self.shared.state().held = true;
    }

    /// Delivers what was held back, each connection's at once, and passes on what comes.
    pub fn release(&self) {
        self.shared.state().held = false;
        self.shared.changed.notify_all();
    }

    /// What clients have sent and the target was given, by connection.
    #[must_use]
    pub fn passed(&self) -> Vec<Vec<u8>> {
        self.shared.state().passed.clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.state().ending = true;
        self.shared.changed.notify_all();
        // The thread that listens looks when somebody comes.
        drop(TcpStream::connect(&self.address));
    }
}

fn lead(near: TcpStream, target: &str, shared: &Arc<Shared>) -> Result<()> {
    let far = TcpStream::connect(target)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let connection = {
        let mut state = shared.state();
        state.passed.push(Vec::new());
        state.passed.len() - 1
    };
    let (back_from, back_to) = (far.try_clone()?, near.try_clone()?);
    let (there, back) = (Arc::clone(shared), Arc::clone(shared));
    std::thread::Builder::new()
        .name("relay there".to_owned())
        .spawn(move || pass(near, far, &there, Some(connection)))?;
    std::thread::Builder::new()
        .name("relay back".to_owned())
        .spawn(move || pass(back_from, back_to, &back, None))?;
    Ok(())
}

/// Passes bytes on until either side ends; then both do.
fn pass(mut from: TcpStream, mut to: TcpStream, shared: &Shared, record: Option<usize>) {
    let mut buffer = vec![0; PIECE];
    while let Ok(mut length @ 1..) = from.read(&mut buffer) {
        if shared.wait() {
            // What has come meanwhile goes with it, as a network delivers it after an outage: in one go.
            length += come_meanwhile(&from, &mut buffer[length..]);
        }
        let mut state = shared.state();
        if state.ending {
            break;
        }
        if let Some(passed) = record.and_then(|connection| state.passed.get_mut(connection)) {
            passed.extend_from_slice(&buffer[..length]);
        }
        drop(state);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    // Either may be closed already.
    drop(to.shutdown(std::net::Shutdown::Both));
    drop(from.shutdown(std::net::Shutdown::Both));
}

/// Reads what is there, without waiting. The socket itself stays blocking: the other direction writes to it.
fn come_meanwhile(from: &TcpStream, buffer: &mut [u8]) -> usize {
    let mut length = 0;
    while let Some(room @ [_, ..]) = buffer.get_mut(length..) {
        match recv(from.as_raw_fd(), room, MsgFlags::MSG_DONTWAIT) {
            Ok(more @ 1..) => length += more,
            Err(Errno::EINTR) => {}
            Ok(0) | Err(_) => break,
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_held_back_arrives_at_once_later() {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Relay::start(&target.local_addr().unwrap().to_string()).unwrap();
        let mut near = TcpStream::connect(&relay.address).unwrap();
        near.set_nodelay(true).unwrap();
        let (mut far, _) = target.accept().unwrap();
        near.write_all(b"a").unwrap();
        let mut buffer = [0; 16];
        assert_eq!(far.read(&mut buffer).unwrap(), 1);

        relay.hold();
        for piece in [b"b", b"c", b"d"] {
            near.write_all(piece).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        far.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(far.read(&mut buffer).is_err(), "it came through");
        relay.release();
        far.set_read_timeout(None).unwrap();
        assert_eq!(far.read(&mut buffer).unwrap(), 3);
        assert_eq!(relay.passed(), [b"abcd"]);

        far.write_all(b"e").unwrap();
        assert_eq!(near.read(&mut buffer).unwrap(), 1);
        drop(far);
        assert_eq!(near.read(&mut buffer).unwrap(), 0, "it ends with the other side");
    }
}
