//! A guest machine that dies before it runs its command.
//!
//! What lives here: [`NotStarted`], which says in one line why, for people and for the tasks that then go on elsewhere,
//! and [`cause`], which finds the reason in what the machine has printed.

use std::fmt;
use std::path::PathBuf;

use super::Kind;

/// A guest machine ended without having run its command.
#[derive(Debug)]
pub struct NotStarted {
    /// Which machine.
    pub kind: Kind,
    /// The exit code of the program that was the machine.
    pub code: u8,
    /// Why, in a few words.
    pub cause: String,
    /// Where all that it has printed is kept.
    pub log: PathBuf,
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = match self.kind {
            Kind::Native => "this machine",
            Kind::Uml => "user-mode Linux",
            Kind::Qemu => "the emulated PC",
        };
        let Self { code, cause, log, .. } = self;
        write!(
            f,
            "{machine} died while it started (exit code {code}): {cause}; all it said is in {}",
            log.display()
        )
    }
}

impl std::error::Error for NotStarted {}

/// What stands in the log of user-mode Linux when the host refuses the registers of its first process.
const REGISTERS_REFUSED: [&str; 2] = ["ptrace set fp regs failed", "put_fp_registers"];

/// What a kernel says last.
const PANIC: &str = "Kernel panic - not syncing: ";

/// What the guest's first program says when it gives up (guest-init.sh).
const GIVEN_UP: &str = "rig: ";

/// The reason for a machine's death, from what its kernel has printed, and what the program has that was the machine.
pub fn cause(kernel: &str, program: &str) -> String {
    if REGISTERS_REFUSED.iter().any(|sign| kernel.contains(sign)) {
        return "this computer refuses the vector registers that it gives back to its first process \
                (put_fp_registers), as with AMX"
            .to_owned();
    }
    // The last line of its own: before it gives up, it may have complained of less.
    let given_up = kernel.lines().rev().find_map(|line| line.trim().strip_prefix(GIVEN_UP));
    let panic = || kernel.lines().find_map(|line| Some(line.split_once(PANIC)?.1));
    if let Some(reason) = given_up.or_else(panic) {
        return reason.trim().to_owned();
    }
    let last = |text: &str| text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned);
    last(program).or_else(|| last(kernel)).unwrap_or_else(|| "it said nothing".to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Kind, NotStarted, cause};

    /// All that Debian's user-mode Linux 6.1 prints where the host's extended state is longer than its own.
    const REFUSED: &str = include_str!("death-put-fp-registers.txt");

    #[test]
    fn refused_registers_are_recognised() {
        let found = cause(REFUSED, "Aborted\n");
        assert!(found.contains("vector registers") && found.contains("AMX"), "{found}");
        // The end of the stack alone, and the kernel's message alone.
        let stack = REFUSED.lines().rev().take(20).collect::<Vec<_>>().join("\n");
        assert_eq!(cause(&stack, ""), found);
        assert_eq!(cause("userspace - ptrace set fp regs failed, errno = 14\n", ""), found);
    }

    #[test]
    fn kernels_panic_is_the_cause() {
        let log = "VFS: Cannot open root device \"(null)\"\n\
                   [    0.51] Kernel panic - not syncing: VFS: Unable to mount root fs\nCPU: 0 PID: 1\n";
        assert_eq!(cause(log, "Aborted\n"), "VFS: Unable to mount root fs");
    }

    #[test]
    fn first_programs_own_words_are_the_cause() {
        let log = "rig: cannot load ipv6.ko\r\nrig: cannot mount the overlay\r\nreboot: Power down\n";
        assert_eq!(cause(log, ""), "cannot mount the overlay");
    }

    #[test]
    fn program_that_never_became_a_machine_is_quoted() {
        assert_eq!(cause("", "warning\n\nlinux.uml: not found\n \n"), "linux.uml: not found");
        assert_eq!(cause("Booting\n", ""), "Booting");
        assert_eq!(cause("", "\n"), "it said nothing");
    }

    #[test]
    fn death_is_told_in_one_line() {
        let log = PathBuf::from("/x/uml-death.log");
        let dead = NotStarted { kind: Kind::Uml, code: 134, cause: cause(REFUSED, "Aborted\n"), log };
        let told = dead.to_string();
        assert_eq!(told.lines().count(), 1, "{told}");
        for part in ["user-mode Linux", "exit code 134", "put_fp_registers", "/x/uml-death.log"] {
            assert!(told.contains(part), "{told}");
        }
    }
}
