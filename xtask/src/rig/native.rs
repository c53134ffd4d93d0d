//! The native rig: this machine, when its kernel has CAN.
//!
//! What lives here: finding out whether the kernel has CAN, and making pairs of CAN interfaces (vxcan) when they
//! are missing. They stay there afterwards, and existing ones are used as they are found.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::sandbox::{Ending, Sandbox, Sink};
use super::{Request, TIMED_OUT};
use crate::install::{IP, ensure_tool, run_quietly};
use crate::workspace::{find_program, is_root, say};

/// Where the kernel tells of network interfaces.
const INTERFACES: &str = "/sys/class/net";

/// The MTU with which a CAN interface carries CAN FD frames.
const CANFD_MTU: &str = "72";

/// Makes sure that this kernel has CAN and that the first `vcans` pairs of interfaces are there and up.
///
/// # Errors
/// With the reason why this machine cannot be used as it is, and what would help.
pub fn ensure(vcans: u32) -> Result<()> {
    let pairs: Vec<[String; 2]> = (0..vcans).map(|n| [format!("vcan{n}"), format!("wire{n}")]).collect();
    ensure_protocol()?;
    let missing: Vec<_> = pairs.iter().filter(|[near, far]| !ready(near) || !ready(far)).collect();
    let Some([near, far]) = missing.first() else { return check(&pairs) };
    if !is_root() {
        bail!(
            "the interface {near} or {far} is missing, down or has no CAN FD MTU, and only root can change that \
             (`ip link add dev {near} type vxcan peer name {far}`, and for both `ip link set ... mtu {CANFD_MTU} up`)"
        );
    }
    let ip = ensure_tool(IP)?;
    modprobe("vxcan");
    for [near, far] in missing {
        say(format!("setting up {near} and {far}"));
        if !exists(near) && !exists(far) {
            run_quietly(
                Command::new(&ip).args(["link", "add", "dev", near, "type", "vxcan", "peer", "name", far]),
            )
            .context("this kernel cannot make a pair of CAN interfaces (module vxcan)")?;
        }
        check(&[[near.clone(), far.clone()]])?;
        for end in [far, near] {
            run_quietly(Command::new(&ip).args(["link", "set", "dev", end, "down"]))?;
            run_quietly(Command::new(&ip).args(["link", "set", "dev", end, "mtu", CANFD_MTU, "up"]))?;
        }
    }
    check(&pairs)
}

/// Checks that what is sent at one end arrives at the other: on a plain vcan, the drives would be local programs.
fn check(pairs: &[[String; 2]]) -> Result<()> {
    let number = |name: &str, file: &str| fs::read_to_string(format!("{INTERFACES}/{name}/{file}")).ok();
    for [near, far] in pairs {
        let (other, own) = (number(near, "iflink"), number(far, "ifindex"));
        if own.is_none() || other != own {
            bail!(
                "{near} and {far} are not the two ends of one pair; the rig makes them if they are away \
                 (`ip link del {near}`)"
            );
        }
    }
    Ok(())
}

fn exists(name: &str) -> bool {
    Path::new(INTERFACES).join(name).exists()
}

fn ready(name: &str) -> bool {
    let read = |file: &str| fs::read_to_string(format!("{INTERFACES}/{name}/{file}")).unwrap_or_default();
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
