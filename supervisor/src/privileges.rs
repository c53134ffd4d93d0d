//! Giving up what the supervisor no longer needs: root, capabilities, the way back to either.
//!
//! It is done after everything is open and the real-time thread has its priority, and before arming. What
//! is opened stays usable: sockets, locked memory and priority do not depend on privileges any more.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Group, Uid, User, chown, pipe2, setgroups, setresgid, setresuid};
use shm_proto::verdicts::Degraded;

use crate::{log, sys};

/// The group of a file whose real group this process cannot see, because it lives in a user namespace (PrivateUsers=).
pub const UNSEEN_GROUP: u32 = 65_534;

/// The user and the group of a file that other processes use. `None`: as the system makes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Access {
    /// The supervisor's user, once it has given up root.
    pub user: Option<Uid>,
    /// The group that may use it.
    pub group: Option<Gid>,
}

/// Whom the supervisor becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Become {
    /// This user and group.
    User(Uid, Gid),
    /// Nobody else: it was not started as root.
    SamePerson,
    /// Nobody else, although it was started as root: the configured user does not exist.
    Unknown,
}

impl Become {
    /// Looks up the configured user, by name or number. To be called before there are threads, descriptors or
    /// locked memory: the look-up runs in a process of its own, and waits as long as the machine's name service.
    #[must_use]
    pub fn find(name: &str) -> Self {
        if !Uid::effective().is_root() {
            return Self::SamePerson;
        }
        // Where there can be no other process it costs memory, and nothing else.
        Self::look_up_elsewhere(name).unwrap_or_else(|_| Self::look_up(name))
    }

    /// Has a child look it up.
    fn look_up_elsewhere(name: &str) -> io::Result<Self> {
        let bytes = elsewhere(|| Self::look_up(name).to_bytes())?;
        Self::from_bytes(&bytes).ok_or_else(no_answer)
    }

    fn look_up(name: &str) -> Self {
        if let Ok(number) = name.parse() {
            let group = User::from_uid(Uid::from_raw(number)).ok().flatten().map(|user| user.gid);
            return Self::User(Uid::from_raw(number), group.unwrap_or(Gid::from_raw(number)));
        }
        match User::from_name(name) {
            Ok(Some(user)) => Self::User(user.uid, user.gid),
            Ok(None) | Err(_) => Self::Unknown,
        }
    }

    /// What a look-up found: two numbers, or one byte for nobody.
    fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::User(user, group) => [user.as_raw().to_ne_bytes(), group.as_raw().to_ne_bytes()].concat(),
            Self::SamePerson | Self::Unknown => vec![0],
        }
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes == [0] {
            return Some(Self::Unknown);
        }
        let (user, group) = bytes.split_first_chunk()?;
        let group = group.try_into().ok()?;
        let number = u32::from_ne_bytes;
        Some(Self::User(Uid::from_raw(number(*user)), Gid::from_raw(number(group))))
    }

    /// Becomes that user, in every thread of the process at once.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn take_effect(self) -> io::Result<()> {
        if let Self::User(user, group) = self {
            setgroups(&[])?;
            setresgid(group, group, group)?;
            setresuid(user, user, user)?;
        }
        Ok(())
    }

    /// Gives a path to the user and group.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn give(self, path: &Path) -> io::Result<()> {
        match self {
            Self::User(user, group) => Ok(chown(path, Some(user), Some(group))?),
            Self::SamePerson | Self::Unknown => Ok(()),
        }
    }

    /// The user the supervisor becomes, if it becomes another.
    #[must_use]
    pub const fn user(self) -> Option<Uid> {
        match self {
            Self::User(user, _) => Some(user),
            Self::SamePerson | Self::Unknown => None,
        }
    }

    /// The group the supervisor gets, if it gets another.
    #[must_use]
    pub const fn group(self) -> Option<Gid> {
        match self {
            Self::User(_, group) => Some(group),
            Self::SamePerson | Self::Unknown => None,
        }
    }
}

/// Looks up a group, by name or number. To be called as [`Become::find`] is.
#[must_use]
pub fn find_group(name: &str) -> Option<Gid> {
    let look_up = || {
        let number = name.parse().ok().map(Gid::from_raw);
        number.or_else(|| Some(Group::from_name(name).ok()??.gid))
    };
    let bytes = || look_up().map_or_else(Vec::new, |group| group.as_raw().to_ne_bytes().to_vec());
    match elsewhere(bytes) {
        Ok(bytes) => Some(Gid::from_raw(u32::from_ne_bytes(bytes.try_into().ok()?))),
        Err(_) => look_up(),
    }
}

/// Has a child say something that it looks up. The C library loads the machine's name service for it and never unloads
/// it: code of others that an armed supervisor need not carry, and that would be locked in memory with all the rest
/// (1.3 MB with systemd's).
fn elsewhere(say: impl FnOnce() -> Vec<u8>) -> io::Result<Vec<u8>> {
    let (answer, child_end) = pipe2(OFlag::O_CLOEXEC)?;
    match sys::fork()? {
        ForkResult::Child => {
            let said = File::from(child_end).write_all(&say());
            std::process::exit(i32::from(said.is_err()));
        }
        ForkResult::Parent { child } => {
            drop(child_end);
            let mut bytes = Vec::new();
            File::from(answer).read_to_end(&mut bytes)?;
            // Only so that nothing is left of it; what it said is what counts.
            let _ = waitpid(child, None);
            Ok(bytes)
        }
    }
}

fn no_answer() -> io::Error {
    io::Error::other("the look-up ended without an answer")
}

/// Closes the way back before threads exist: no program started from here could gain anything, and no
/// capability can come back. Threads that are started later inherit it.
pub fn close_the_way_back() {
    // Both can fail only on kernels that lack the feature altogether.
    let _ = nix::sys::prctl::set_no_new_privs();
    sys::drop_capability_bounds();
}

/// Becomes another user, in every thread at once, and gives up all capabilities of the calling thread.
pub fn drop_root(whom: Become, name: &str) -> u64 {
    let switched = match whom {
        Become::User(..) | Become::SamePerson => {
            whom.take_effect().map_err(|error| format!("cannot become user \"{name}\" ({error})"))
        }
        Become::Unknown => Err(format!(
            "there is no user \"{name}\"; create one (adduser --system --group {name}), or name another in \
             [supervisor] user"
        )),
    };
    if let Err(why) = &switched {
        log::line(&format!("WARNING: degraded: {why}. It stays root, without capabilities"));
    }
    let mut degraded = if switched.is_ok() { 0 } else { Degraded::Privileges.number() };
    degraded |= drop_capabilities();
    degraded
}

/// Gives up all capabilities of the calling thread; each thread has its own.
pub fn drop_capabilities() -> u64 {
    match sys::drop_capabilities() {
        Ok(()) => 0,
        Err(error) => {
            log::line(&format!("WARNING: degraded: capabilities cannot be given up ({error})"));
            Degraded::Privileges.number()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Become, Gid, Uid};

    /// Fails if a supervisor becomes somebody whom the look-up did not name, or somebody after half an answer.
    #[test]
    fn an_answer_arrives_whole_or_not_at_all() {
        for whom in [Become::User(Uid::from_raw(65534), Gid::from_raw(7)), Become::Unknown] {
            assert_eq!(Become::from_bytes(&whom.to_bytes()), Some(whom));
        }
        let whole = Become::User(Uid::from_raw(0x0101_0101), Gid::from_raw(0x0202_0202)).to_bytes();
        for length in 0..whole.len() {
            assert_eq!(Become::from_bytes(&whole[..length]), None, "{length} bytes");
        }
        assert_eq!(Become::from_bytes(&[whole, vec![1]].concat()), None);
    }
}
