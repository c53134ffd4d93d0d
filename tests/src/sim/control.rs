//! The control socket: a Unix stream socket that takes one command a line and answers each with a line of JSON.
//!
//! ```text
//! status                              all drives
//! NODE status                         one drive
//! NODE ignore KIND on|off             KIND: controlled, quick, torque-off, all
//! NODE ignore-velocity-zero on|off
//! NODE mute|offline|feedback-loss|jam [on|off]
//! NODE push VELOCITY|off              something turns the shaft, rev/s
//! NODE fault CODE                     decimal or 0x...; 0 takes all faults away
//! NODE power-cycle
//! NODE mark                           the first stop of each kind is noted anew
//! ```

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::frame::Frame;
use super::inject::{Ignore, Order};
use super::{Drive, Time};

/// A client that sends a longer line than this is not one of ours.
const LINE_LIMIT: usize = 4096;

/// What a line asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Command {
    /// A report about one drive, or about all.
    Status(Option<u8>),
    /// An order to one drive.
    Order(u8, Order),
}

impl Command {
    /// Reads one line.
    ///
    /// # Errors
    /// Says which word is not understood.
    pub fn parse(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (node, rest) = match words.as_slice() {
            ["status"] => return Ok(Self::Status(None)),
            [node, rest @ ..] if !rest.is_empty() => (*node, rest),
            _ => bail!("expected \"status\" or \"NODE COMMAND ...\", found {line:?}"),
        };
        let node: u8 = node.parse().with_context(|| format!("{node:?} is not a node id"))?;
        let order = match rest {
            ["status"] => return Ok(Self::Status(Some(node))),
            ["ignore", kind, state] => Order::Ignore(kinds(kind)?, switch(state)?),
            ["ignore-velocity-zero", state] => Order::IgnoreVelocityZero(switch(state)?),
            ["mute"] => Order::Mute(true),
            ["mute", state] => Order::Mute(switch(state)?),
            ["offline"] => Order::Offline(true),
            ["offline", state] => Order::Offline(switch(state)?),
            ["feedback-loss"] => Order::FeedbackLoss(true),
            ["feedback-loss", state] => Order::FeedbackLoss(switch(state)?),
            ["jam"] => Order::Jam(true),
            ["jam", state] => Order::Jam(switch(state)?),
            ["push", "off"] => Order::Push(None),
            ["push", velocity] => Order::Push(Some(speed(velocity)?)),
            ["fault", code] => Order::Fault(number(code)?),
            ["power-cycle"] => Order::PowerCycle,
            ["mark"] => Order::Mark,
            _ => bail!("unknown command {:?}", rest.join(" ")),
        };
        Ok(Self::Order(node, order))
    }

    fn run(self, now: Time, drives: &mut [Drive], out: &mut Vec<Frame>) -> Result<Value> {
        let find = |drives: &mut [Drive], node: u8| -> Result<usize> {
            drives.iter().position(|d| d.node() == node).with_context(|| format!("no drive has node {node}"))
        };
        let status = |drives: &mut [Drive], at: usize| drives.get_mut(at).map(|d| d.status(now));
        Ok(match self {
            Self::Status(None) => {
                let all: Vec<Value> = drives.iter_mut().map(|d| d.status(now)).collect();
                json!({ "ok": true, "time": now.as_secs_f64(), "drives": all })
            }
            Self::Status(Some(node)) => {
                let at = find(drives, node)?;
                let mut report = status(drives, at).unwrap_or_default();
                report["ok"] = json!(true);
                report["time"] = json!(now.as_secs_f64());
                report
            }
            Self::Order(node, order) => {
                let at = find(drives, node)?;
                if let Some(drive) = drives.get_mut(at) {
                    drive.order(now, &order, out);
                }
                json!({ "ok": true })
            }
        })
    }
}

fn switch(word: &str) -> Result<bool> {
    match word {
        "on" => Ok(true),
        "off" => Ok(false),
        other => bail!("expected on or off, found {other:?}"),
    }
}

fn kinds(word: &str) -> Result<Ignore> {
    let none = Ignore::default();
    Ok(match word {
        "controlled" => Ignore { controlled: true, ..none },
        "quick" => Ignore { quick: true, ..none },
        "torque-off" => Ignore { torque_off: true, ..none },
        "all" => Ignore { controlled: true, quick: true, torque_off: true },
        other => bail!("expected controlled, quick, torque-off or all, found {other:?}"),
    })
}

fn number(word: &str) -> Result<u32> {
    let parsed = match word.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => word.parse(),
    };
    parsed.with_context(|| format!("{word:?} is not a fault code"))
}

fn speed(word: &str) -> Result<f64> {
    let velocity: f64 = word.parse().with_context(|| format!("{word:?} is not a velocity or off"))?;
    if !velocity.is_finite() || velocity.abs() > 1e6 {
        bail!("{word} is not a velocity that a shaft can have");
    }
    Ok(velocity)
}

/// One connected client and what it has sent of its next line.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    pending: Vec<u8>,
}

impl Client {
    /// Reads what is there and answers every complete line; false when the client has gone.
    fn serve(&mut self, mut answer: impl FnMut(&str) -> Value) -> bool {
        let mut buffer = [0; 1024];
        let open = loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break false,
                Ok(n) => self.pending.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break true,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        };
        while let Some(end) = self.pending.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let reply = format!("{}\n", answer(line));
            // A client that does not read its answers is dropped: drives must not wait for it.
            if self.stream.write_all(reply.as_bytes()).is_err() {
                return false;
            }
        }
        open && self.pending.len() <= LINE_LIMIT
    }
}

/// The listening socket and its clients.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    clients: Vec<Client>,
    path: PathBuf,
}

impl Control {
    /// Listens at `path`. A socket left behind by a program that has ended is replaced.
    ///
    /// # Errors
    /// The path is in use by a running program or cannot be created.
    pub fn listen(path: &Path) -> Result<Self> {
        let explain = || format!("cannot listen on control socket {}", path.display());
        if UnixStream::connect(path).is_ok() {
            bail!("{}: another program listens there", explain());
        }
        if fs::symlink_metadata(path).is_ok_and(|m| std::os::unix::fs::FileTypeExt::is_socket(&m.file_type()))
        {
            fs::remove_file(path).with_context(explain)?;
        }
        let listener = UnixListener::bind(path).with_context(explain)?;
        listener.set_nonblocking(true).with_context(explain)?;
        Ok(Self { listener, clients: Vec::new(), path: path.to_owned() })
    }

    /// The descriptors that may have something to read.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.listener.as_fd()).chain(self.clients.iter().map(|c| c.stream.as_fd()))
    }

    /// Accepts new clients and carries out what clients ask; never waits.
    pub fn serve(&mut self, now: Time, drives: &mut [Drive], out: &mut Vec<Frame>) {
        while let Ok((stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client { stream, pending: Vec::new() });
            }
        }
        self.clients.retain_mut(|client| {
            client.serve(|line| {
                Command::parse(line)
                    .and_then(|command| command.run(now, drives, out))
                    .unwrap_or_else(|e| json!({ "ok": false, "error": format!("{e:#}") }))
            })
        });
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Best effort: the next run replaces a socket that nobody listens on.
        drop(fs::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        let order = |line| match Command::parse(line) {
            Ok(Command::Order(node, order)) => (node, order),
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(Command::parse("status").ok(), Some(Command::Status(None)));
        assert_eq!(Command::parse(" 3  status ").ok(), Some(Command::Status(Some(3))));
        let quick = Ignore { quick: true, ..Ignore::default() };
        assert_eq!(order("3 ignore quick on"), (3, Order::Ignore(quick, true)));
        assert_eq!(order("5 fault 0x3210"), (5, Order::Fault(0x3210)));
        assert_eq!(order("5 jam"), (5, Order::Jam(true)));
        assert_eq!(order("5 push -1.5"), (5, Order::Push(Some(-1.5))));
        for bad in ["", "3", "x status", "300 status", "3 mute maybe", "3 fly", "3 fault", "3 push nan"] {
            assert!(Command::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn answers_are_json() {
        let mut drives = [Drive::from_spec("odrive:node=3").expect("valid")];
        let mut out = Vec::new();
        let mut run = |line: &str| Command::parse(line)?.run(Time::ZERO, &mut drives, &mut out);
        assert!(run("4 status").is_err());
        assert_eq!(run("3 mute on").expect("done")["ok"], true);
        let status = run("3 status").expect("a report");
        assert!(status["mute"] == true && status["node"] == 3 && status["velocity"] == 0.0);
        assert_eq!(run("status").expect("a report")["drives"].as_array().map(Vec::len), Some(1));
    }
}
