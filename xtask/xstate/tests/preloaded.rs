//! What the library changes in a program into which it is preloaded, as in user-mode Linux: an extended state that is
//! cut short is written, and nothing else is different.
//!
//! The kernel of any x86-64 processor refuses what is cut short, so none with AMX is needed. Each test runs a second
//! time in a process of its own, with the library.

#![cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]

use std::ffi::{c_uint, c_void};
use std::io::Error;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::ptr::{null_mut, without_provenance_mut};

use libc::{EFAULT, ESRCH, PTRACE_GETREGSET, PTRACE_SETREGSET, iovec};

/// The numbers of two sets of registers (linux/elf.h).
const NT_PRSTATUS: usize = 1;
const NT_X86_XSTATE: usize = 0x202;

/// Where which registers are, and the bits that say in the header that they are there (Intel's manual, volume 1, 13.4).
const XMM1: usize = 160 + 16;
const HEADER: usize = 512;
const HEADER_END: usize = 576;
const SSE: u8 = 1 << 1;

/// Set in the process that has the library.
const PRELOADED: &str = "LANYARD_XSTATE_PRELOADED";

/// The library, which cargo has built for this program.
fn library() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libxstate.so")
}

/// Whether this process has the library. One that has not runs this test again in one that has.
fn is_preloaded(test: &str) -> bool {
    if std::env::var_os(PRELOADED).is_some() {
        return true;
    }
    assert!(library().is_file(), "{} is missing", library().display());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(PRELOADED, "yes")
        .env("LD_PRELOAD", library())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && printed.contains("1 passed"), "with the library:\n{printed}");
    false
}

/// A process that is traced and stands still.
struct Traced(Child);

impl Traced {
    fn start() -> Self {
        let traced = Self(Command::new("sleep").arg("60").env_remove("LD_PRELOAD").spawn().unwrap());
        // SAFETY: no memory is passed.
        let result = unsafe { libc::ptrace(libc::PTRACE_ATTACH, traced.pid(), 0, 0) };
        assert_eq!(result, 0, "{}", Error::last_os_error());
        // SAFETY: a null pointer stands for a status that is not wanted.
        assert_eq!(unsafe { libc::waitpid(traced.pid(), null_mut(), 0) }, traced.pid());
        traced
    }

    fn pid(&self) -> libc::pid_t {
        libc::pid_t::try_from(self.0.id()).unwrap()
    }

    /// Reads a set of registers.
    fn read(&self, set: usize) -> Vec<u8> {
        let mut bytes = vec![0; 64 * 1024];
        let length = transfer(PTRACE_GETREGSET, self.pid(), set, &mut bytes).unwrap();
        bytes.truncate(length);
        bytes
    }

    /// Writes a set of registers, or a part of it.
    fn write(&self, set: usize, bytes: &[u8]) -> Result<(), i32> {
        transfer(PTRACE_SETREGSET, self.pid(), set, &mut bytes.to_vec()).map(drop)
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Reads or writes a set of registers. Returns its length, or the error's number.
fn transfer(request: c_uint, pid: libc::pid_t, set: usize, bytes: &mut [u8]) -> Result<usize, i32> {
    let mut place = iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let set: *mut c_void = without_provenance_mut(set);
    // SAFETY: the place is valid for its length, and outlives the call.
    let result = unsafe { libc::ptrace(request, pid, set, &raw mut place) };
    if result < 0 { Err(Error::last_os_error().raw_os_error().unwrap()) } else { Ok(place.iov_len) }
}

#[test]
fn state_that_is_cut_short_is_completed_with_zeros() {
    let preloaded = is_preloaded("state_that_is_cut_short_is_completed_with_zeros");
    let traced = Traced::start();
    let mut whole = traced.read(NT_X86_XSTATE);
    // The header's first word names what is stored: everything that was, and SSE's registers.
    whole[HEADER] |= SSE;
    for (byte, number) in whole[XMM1..XMM1 + 16].iter_mut().zip(1..) {
        *byte = number;
    }
    // Eight bytes less, and as little as there can be.
    for length in [whole.len() - 8, HEADER_END] {
        let written = traced.write(NT_X86_XSTATE, &whole[..length]);
        if !preloaded {
            assert_eq!(written, Err(EFAULT), "this kernel takes {length} bytes by itself");
            continue;
        }
        assert_eq!(written, Ok(()));
        let now = traced.read(NT_X86_XSTATE);
        assert_eq!(now.len(), whole.len());
        assert_eq!(now[XMM1..XMM1 + 16], whole[XMM1..XMM1 + 16]);
        assert!(now[length..].iter().all(|byte| *byte == 0), "what was not given is as after a reset");
        whole[XMM1] += 100;
    }
}

#[test]
fn everything_else_is_as_without_the_library() {
    // One list of expectations, which holds with the library and without.
    is_preloaded("everything_else_is_as_without_the_library");
    let traced = Traced::start();
    let mut whole = traced.read(NT_X86_XSTATE);
    whole[HEADER] |= SSE;
    whole[XMM1] = 7;
    assert_eq!(traced.write(NT_X86_XSTATE, &whole), Ok(()));
    assert_eq!(traced.read(NT_X86_XSTATE)[XMM1], 7);
    // User-mode Linux gives more than there is, where there is less than it knows.
    let more = [whole.as_slice(), &[0xff; 8]].concat();
    assert_eq!(traced.write(NT_X86_XSTATE, &more), Ok(()));
    // No header, no completion.
    assert_eq!(traced.write(NT_X86_XSTATE, &whole[..HEADER_END - 8]), Err(EFAULT));
    let general = traced.read(NT_PRSTATUS);
    assert_eq!(traced.write(NT_PRSTATUS, &general), Ok(()));
    assert_eq!(traced.write(NT_PRSTATUS, &general[..8]), Ok(()));
    // The system call's number where the process was stopped: a word that is read is the result.
    // SAFETY: no memory is passed.
    let number = unsafe { libc::ptrace(libc::PTRACE_PEEKUSER, traced.pid(), 15 * 8, 0) };
    assert_eq!(number.to_ne_bytes(), general[15 * 8..16 * 8]);
    let nothing = transfer(PTRACE_SETREGSET, i32::MAX, NT_X86_XSTATE, &mut whole[..HEADER_END]);
    assert_eq!(nothing, Err(ESRCH));
    // SAFETY: the kernel looks at what a null pointer names, and finds nothing.
    let result = unsafe { libc::ptrace(PTRACE_SETREGSET, traced.pid(), NT_X86_XSTATE, null_mut::<iovec>()) };
    assert_eq!((result, Error::last_os_error().raw_os_error()), (-1, Some(EFAULT)));
}
