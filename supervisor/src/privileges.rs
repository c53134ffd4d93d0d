//! Giving up what the supervisor no longer needs: root, capabilities, the way back to either.
//!
//! It is done after everything is open and the real-time thread has its priority, and before arming. What
//! is opened stays usable: sockets, locked memory and priority do not depend on privileges any more.

use std::io;
use std::path::Path;

use nix::unistd::{Gid, Uid, User, chown, setgroups, setresgid, setresuid};
use shm_proto::verdicts::Degraded;

use crate::{log, sys};

/// Whom the supervisor becomes.
#[derive(Clone, Copy, Debug)]
pub enum Become {
    /// This user and group.
    User(Uid, Gid),
    /// Nobody else: it was not started as root.
    SamePerson,
    /// Nobody else, although it was started as root: the configured user does not exist.
    Unknown,
}

impl Become {
    /// Looks up the configured user, by name or number. Do it before memory is locked: the look-up loads
    /// whatever name service the machine uses.
    #[must_use]
    pub fn find(name: &str) -> Self {
        if !Uid::effective().is_root() {
            return Self::SamePerson;
        }
        if let Ok(number) = name.parse() {
            let group = User::from_uid(Uid::from_raw(number)).ok().flatten().map(|user| user.gid);
            return Self::User(Uid::from_raw(number), group.unwrap_or(Gid::from_raw(number)));
        }
        match User::from_name(name) {
            Ok(Some(user)) => Self::User(user.uid, user.gid),
            Ok(None) | Err(_) => Self::Unknown,
        }
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

    /// Gives the hand-over socket, or its folder, to the user and group, so that the group may use `lanyard`.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn give(self, socket: &Path) -> io::Result<()> {
        match self {
            Self::User(user, group) => Ok(chown(socket, Some(user), Some(group))?),
            Self::SamePerson | Self::Unknown => Ok(()),
        }
    }
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
