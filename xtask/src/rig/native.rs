//! The native rig: this machine, when its kernel has CAN.
//!
//! What lives here: finding out whether the kernel has CAN, and making vcan interfaces when they are
//! missing. They stay there afterwards, and existing ones are used as they are found.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::sandbox::{Ending, Sandbox, Sink};
use super::{Request, TIMED_OUT};
use crate::install::{IP, ensure_tool, run_quietly};
use crate::workspace::{find_program, is_root, say};

/// The MTU with which a CAN interface carries CAN FD frames.
const CANFD_MTU: &str = "72";

/// Makes sure that this kernel has CAN and that the first `vcans` interfaces are there and up.
///
/// # Errors
/// With the reason why this machine cannot be used as it is, and what would help.
pub fn ensure(vcans: u32) -> Result<()> {
    let names: Vec<String> = (0..vcans).map(|n| format!("vcan{n}")).collect();
    ensure_protocol()?;
    let missing: Vec<&String> = names.iter().filter(|name| !ready(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() {
        let name = missing[0];
        bail!(
            "the interface {name} is missing, down or has no CAN FD MTU, and only root can change that \
             (`ip link add dev {name} type vcan; ip link set {name} mtu {CANFD_MTU} up`)"
        );
    }
    let ip = ensure_tool(IP)?;
    modprobe("vcan");
    for name in missing {
        say(format!("setting up {name}"));
        if !Path::new("/sys/class/net").join(name).exists() {
            run_quietly(Command::new(&ip).args(["link", "add", "dev", name, "type", "vcan"]))
                .context("this kernel cannot make a vcan interface")?;
        }
        run_quietly(Command::new(&ip).args(["link", "set", "dev", name, "down"]))?;
        run_quietly(Command::new(&ip).args(["link", "set", "dev", name, "mtu", CANFD_MTU, "up"]))?;
    }
    Ok(())
}

fn ready(name: &str) -> bool {
    let read = |file: &str| fs::read_to_string(format!("/sys/class/net/{name}/{file}")).unwrap_or_default();
    let flags = read("flags");
    let up = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).is_ok_and(|bits| bits & 1 == 1);
    up && read("mtu").trim() == CANFD_MTU
}

/// Raw CAN sockets: present, or loadable by root, or loaded by the kernel when somebody asks for one.
fn ensure_protocol() -> Result<()> {
    let present = || {
        fs::read_to_string("/proc/net/protocols")
            .is_ok_and(|text| text.lines().any(|line| line.split_whitespace().next() == Some("CAN_RAW")))
    };
    if present() {
        return Ok(());
    }
    modprobe("can-raw");
    if present() {
        return Ok(());
    }
    if let Some(python) = find_program("python3") {
        let ask = "import socket as s; s.socket(s.AF_CAN, s.SOCK_RAW, s.CAN_RAW)";
        let _ = Command::new(python).args(["-c", ask]).stdin(Stdio::null()).stderr(Stdio::null()).status();
    }
    if present() {
        return Ok(());
    }
    bail!("this machine's kernel has no CAN sockets and none can be loaded (module can-raw)")
}

fn modprobe(module: &str) {
    if let (true, Some(program)) = (is_root(), find_program("modprobe")) {
        // A failure shows in what is missing afterwards.
        let _ = Command::new(program)
            .args(["--quiet", module])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// Runs the command here, with this process's environment.
///
/// # Errors
/// When it cannot be started.
pub fn run(request: &Request, stdout: Sink<'_>) -> Result<u8> {
    let sandbox = Sandbox::new(request.timeout)?;
    let (program, args) = request.command.split_first().context("no command given")?;
    let adjust = |command: &mut Command| {
        command.current_dir(&request.cwd).envs(request.env.iter().map(|(k, v)| (k, v))).env("RIG", "native");
    };
    Ok(match sandbox.run(program, args, adjust, stdout)? {
        Ending::Exit(code) => code,
        Ending::TimedOut => {
            say(format!("rig: killed after {} s", request.timeout.as_secs()));
            TIMED_OUT
        }
    })
}
