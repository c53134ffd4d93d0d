//! Who used which resource last, and which of them its user keeps moving.
//!
//! As in Viam, a session answers for what it was the last to command. A motor may stand behind several resources (a
//! base and the motor itself), so motors are noted beside them.

use std::collections::HashMap;

use config::Takeover;
use shm_proto::{MotorIndex, Nanos, Owner};

/// One resource.
#[derive(Clone, Copy, Debug)]
struct Used {
    owner: Owner,
    /// When its last command arrived.
    arrived: Nanos,
    /// When its last command began or ended; `None` once its user has brought it to rest.
    commanded: Option<Nanos>,
    /// Commands that are being carried out.
    under_way: u32,
    /// How long it may go without a new command while it moves, nanoseconds.
    progress: Option<u64>,
}

/// A resource as the notes had it when its user's session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastUse {
    /// Its key, such as `motor/left`.
    pub resource: Box<str>,
    /// Whether its user had not brought it to rest.
    pub moving: bool,
}

/// The notes. Only for resources that exist: they must not grow with what clients make up.
#[derive(Debug, Default)]
pub struct Uses {
    resources: HashMap<Box<str>, Used>,
    motors: HashMap<MotorIndex, Owner>,
}

/// A command for a resource.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// The resource's key.
    pub resource: &'a str,
    /// The motors behind it.
    pub motors: &'a [MotorIndex],
    /// Whose command it is.
    pub owner: Owner,
    /// How long the resource may go without a new command while it moves, nanoseconds.
    pub progress: Option<u64>,
    /// When it arrived.
    pub arrived: Nanos,
}

impl Uses {
    /// Notes that a command begins.
    ///
    /// # Errors
    ///
    /// Where who has it keeps it: with who has it.
    pub fn begin(
        &mut self,
        command: Command<'_>,
        takeover: Takeover,
        lives: impl Fn(Owner) -> bool,
    ) -> Result<(), Owner> {
        let Command { resource, motors, owner, progress, arrived } = command;
        if takeover == Takeover::Exclusive {
            let holders = self.resources.get(resource).map(|used| used.owner);
            let holders =
                holders.into_iter().chain(motors.iter().filter_map(|motor| self.motors.get(motor).copied()));
            if let Some(holder) = holders.into_iter().find(|holder| *holder != owner && lives(*holder)) {
                return Err(holder);
            }
        }
        for motor in motors {
            self.motors.insert(*motor, owner);
        }
        let commanded = Some(Nanos::now());
        let new = Used { owner, arrived, commanded, under_way: 1, progress };
        match self.resources.get_mut(resource) {
            Some(used) if used.owner == owner => {
                used.commanded = commanded;
                used.arrived = used.arrived.max(arrived);
                used.under_way += 1;
            }
            Some(used) => *used = new,
            None => drop(self.resources.insert(resource.into(), new)),
        }
        Ok(())
    }

    /// Notes that a command has been carried out, or has failed.
    pub fn end(&mut self, resource: &str, owner: Owner) {
        if let Some(used) = self.resources.get_mut(resource).filter(|used| used.owner == owner) {
            used.under_way = used.under_way.saturating_sub(1);
            used.commanded = used.commanded.map(|_| Nanos::now());
        }
    }

    /// Notes that a resource was brought to rest, by what arrived at `at`: nothing more is expected of its user, unless a
    /// command has arrived since.
    pub fn rest(&mut self, resource: &str, at: Nanos) {
        if let Some(used) = self.resources.get_mut(resource).filter(|used| used.arrived <= at) {
            used.commanded = None;
        }
    }

    /// Notes the same of every resource.
    pub fn rest_all(&mut self, at: Nanos) {
        self.resources.values_mut().filter(|used| used.arrived <= at).for_each(|used| used.commanded = None);
    }

    /// Whether any resource of that kind has a user that has not brought it to rest.
    pub fn is_anything_moving(&self, wanted: impl Fn(&str) -> bool) -> bool {
        self.resources.iter().any(|(key, used)| used.commanded.is_some() && wanted(key))
    }

    /// Who keeps a resource moving without having sent a command for too long.
    pub fn overdue(&self, now: Nanos) -> Vec<Owner> {
        let overdue = |used: &&Used| match (used.progress, used.commanded) {
            (Some(most), Some(last)) => used.under_way == 0 && now.since(last) >= most,
            _ => false,
        };
        self.resources.values().filter(overdue).map(|used| used.owner).collect()
    }

    /// Who was the last to use any resource of that kind.
    pub fn owners(&self, wanted: impl Fn(&str) -> bool) -> Vec<Owner> {
        let mut owners: Vec<Owner> =
            self.resources.iter().filter(|(key, _)| wanted(key)).map(|(_, used)| used.owner).collect();
        owners.sort_by_key(|owner| (owner.slot.0, owner.incarnation.get()));
        owners.dedup();
        owners
    }

    /// Takes out everything of an owner.
    pub fn strike(&mut self, owner: Owner) -> Vec<LastUse> {
        self.motors.retain(|_, user| *user != owner);
        let struck = self.resources.extract_if(|_, used| used.owner == owner);
        struck.map(|(resource, used)| LastUse { resource, moving: used.commanded.is_some() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use config::Takeover::{Exclusive, LastUsed};
    use shm_proto::{Incarnation, MotorIndex, Nanos, Owner, SlotIndex};

    use super::{Command, LastUse, Uses};

    fn owner(slot: u16) -> Owner {
        Owner { slot: SlotIndex(slot), incarnation: Incarnation::new(1) }
    }

    fn command<'a>(resource: &'a str, motors: &'a [MotorIndex], slot: u16) -> Command<'a> {
        Command { resource, motors, owner: owner(slot), progress: Some(1_000), arrived: Nanos(7) }
    }

    const LEFT: &[MotorIndex] = &[MotorIndex(0)];
    const BOTH: &[MotorIndex] = &[MotorIndex(0), MotorIndex(1)];

    #[test]
    fn the_last_to_command_has_it_unless_it_is_kept() {
        let mut uses = Uses::default();
        uses.begin(command("motor/left", LEFT, 1), LastUsed, |_| true).unwrap();
        uses.begin(command("motor/left", LEFT, 2), LastUsed, |_| true).unwrap();
        assert_eq!(uses.strike(owner(1)), []);
        assert_eq!(uses.begin(command("motor/left", LEFT, 3), Exclusive, |_| true), Err(owner(2)));
        assert_eq!(
            uses.begin(command("base/base1", BOTH, 3), Exclusive, |_| true),
            Err(owner(2)),
            "its motor"
        );
        assert_eq!(uses.begin(command("motor/left", LEFT, 2), Exclusive, |_| true), Ok(()), "its own");
        assert_eq!(uses.begin(command("base/base1", BOTH, 3), Exclusive, |_| false), Ok(()), "of the dead");
        uses.strike(owner(2));
        assert_eq!(uses.begin(command("motor/left", LEFT, 4), Exclusive, |_| true), Err(owner(3)));
    }

    #[test]
    fn progress_is_expected_only_between_commands_of_what_moves() {
        let mut uses = Uses::default();
        let late = || Nanos::now().after(2_000_000_000);
        uses.begin(command("motor/left", LEFT, 1), LastUsed, |_| true).unwrap();
        assert_eq!(uses.overdue(late()), [], "under way");
        uses.end("motor/left", owner(1));
        assert_eq!(uses.overdue(late()), [owner(1)]);
        assert_eq!(uses.overdue(Nanos::ZERO), []);
        uses.rest("motor/left", Nanos(6));
        assert_eq!(uses.overdue(late()), [owner(1)], "the command came after that stop");
        uses.rest("motor/left", Nanos(7));
        assert_eq!(uses.overdue(late()), [], "at rest");
        assert_eq!(uses.strike(owner(1)), [LastUse { resource: "motor/left".into(), moving: false }]);
    }

    #[test]
    fn the_end_of_an_older_command_is_not_that_of_the_newer_user() {
        let mut uses = Uses::default();
        uses.begin(command("motor/left", LEFT, 1), LastUsed, |_| true).unwrap();
        uses.begin(command("motor/left", LEFT, 2), LastUsed, |_| true).unwrap();
        uses.end("motor/left", owner(1));
        assert_eq!(uses.overdue(Nanos::now().after(2_000_000_000)), [], "the newer one is under way");
    }
}
