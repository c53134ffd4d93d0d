//! What a key may do.

use core::fmt;
use core::str::FromStr;

/// What a key may do; each role includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Look, and stop: nothing moves by it.
    Observe,
    /// Drive the robot.
    Operate,
    /// Also clear trips and order an emergency stop of everything.
    Administer,
}

impl Role {
    /// Every role, the least powerful first.
    pub const ALL: [Self; 3] = [Self::Observe, Self::Operate, Self::Administer];

    /// As it is written in files and on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Operate => "operate",
            Self::Administer => "administer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.name() == text);
        found.ok_or_else(|| format!("a role is observe, operate or administer, not \"{text}\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_as_they_are_written_and_ordered_by_power() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert!(Role::ALL.is_sorted() && Role::Observe < Role::Operate && Role::Operate < Role::Administer);
        for wrong in ["", "Operate", "operate ", "root"] {
            assert!(wrong.parse::<Role>().is_err(), "{wrong:?}");
        }
    }
}
