//! The cells of the campaign: what a drive does wrong, in which state of its motor, on what bus, under which supervisor.
//!
//! Every combination of these four is played once. Which family plays it, and whether the front lives meanwhile, is dealt
//! so that each pair of a family or a front with any other word comes up.

use std::collections::HashSet;
use std::fmt;

use anyhow::{Context as _, Result, bail};
use tests::families::{self, Family};

/// Declares an enum whose values have a word each, for names of cells.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$value_doc])* $value,)* }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$value),*];

            /// Its word.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$value => $word,)* }
            }

            fn read(word: &str) -> Result<Self> {
                let found = Self::ALL.iter().find(|value| value.word() == word).copied();
                found.with_context(|| format!("{word:?} is none of {}", Self::ALL.iter().map(|value| value.word()).collect::<Vec<_>>().join(", ")))
            }
        }
    };
}

words! {
    /// What the drive does wrong from the moment on.
    Fault {
        /// Nothing.
        None = "none",
        /// It ignores the controlled stop.
        DeafToGentle = "deaf-to-gentle",
        /// It ignores a command of zero speed.
        DeafToZero = "deaf-to-zero",
        /// It ignores every stop but "no torque".
        DeafToRamps = "deaf-to-ramps",
        /// It ignores every stop.
        DeafToAll = "deaf-to-all",
        /// It says nothing, though it obeys.
        Mute = "mute",
        /// It neither hears nor speaks.
        Offline = "offline",
        /// It goes on with its heartbeats, without a speed.
        NoFeedback = "no-feedback",
        /// It reports a fault.
        Reports = "reports-a-fault",
        /// Its shaft is blocked.
        Jammed = "jammed",
        /// Something else turns its shaft.
        Pushed = "pushed",
        /// It was off and on again.
        PowerCycled = "power-cycled",
    }
}

words! {
    /// The state of its motor at that moment.
    State {
        /// Nothing drives it.
        Idle = "idle",
        /// A client drives it.
        Granted = "granted",
        /// The first stage of its stop is under way.
        Stage1 = "stage1",
        /// The second.
        Stage2 = "stage2",
        /// It was proven to stand still.
        Stopped = "stopped",
    }
}

words! {
    /// What its bus does from that moment on.
    Bus {
        /// Nothing.
        Well = "well",
        /// The controller is error-passive.
        Doubtful = "doubtful",
        /// Bus-off and back, several times.
        Flapping = "flapping",
        /// Bus-off, no frame passes for a while, and back.
        Gone = "gone",
    }
}

words! {
    /// What becomes of the supervisor at that moment.
    Supervisor {
        /// Nothing.
        Alive = "alive",
        /// It is stopped, and goes on at the end.
        Hung = "hung",
        /// It is killed.
        Dead = "dead",
    }
}

words! {
    /// What becomes of the front at that moment. The client falls silent in any case.
    Front {
        /// Nothing.
        Lives = "front-lives",
        /// It is stopped.
        Hangs = "front-hangs",
    }
}

/// One cell.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// What the drive does wrong.
    pub fault: Fault,
    /// The state of its motor.
    pub state: State,
    /// What the bus does.
    pub bus: Bus,
    /// What becomes of the supervisor.
    pub supervisor: Supervisor,
    /// What becomes of the front.
    pub front: Front,
    /// The family of the drive.
    pub family: &'static Family,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for word in
            [self.fault.word(), self.state.word(), self.bus.word(), self.supervisor.word(), self.front.word()]
        {
            write!(f, "{word}.")?;
        }
        f.write_str(self.family.name)
    }
}

impl Cell {
    /// Reads a name.
    ///
    /// # Errors
    /// It is no name of a cell; says which word is none.
    pub fn read(name: &str) -> Result<Self> {
        let words: Vec<&str> = name.split('.').collect();
        let [fault, state, bus, supervisor, front, family] = words.as_slice() else {
            bail!("{name:?} is no cell: write FAULT.STATE.BUS.SUPERVISOR.FRONT.FAMILY");
        };
        let read = || -> Result<Self> {
            Ok(Self {
                fault: Fault::read(fault)?,
                state: State::read(state)?,
                bus: Bus::read(bus)?,
                supervisor: Supervisor::read(supervisor)?,
                front: Front::read(front)?,
                family: families::find(family).with_context(|| format!("{family:?} is no family"))?,
            })
        };
        read().with_context(|| format!("cell {name:?}"))
    }

    /// The words that a choice of family and front is to be paired with.
    fn words(fault: Fault, state: State, bus: Bus, supervisor: Supervisor) -> [&'static str; 4] {
        [fault.word(), state.word(), bus.word(), supervisor.word()]
    }
}

/// Every cell, in an order in which neighbours differ: any part of the list is a fair sample.
pub fn all() -> Vec<Cell> {
    let mut paired = HashSet::new();
    let mut uses = vec![0_usize; families::ALL.len() * Front::ALL.len()];
    let mut cells = Vec::new();
    for (fault, state, bus, supervisor) in combinations() {
        let words = Cell::words(fault, state, bus, supervisor);
        // The choice that brings the most new pairs; among equals the one that was used least.
        let news = |choice: &usize| words.iter().filter(|word| !paired.contains(&(*choice, **word))).count();
        let best = (0..uses.len())
            .max_by_key(|choice| (news(choice), usize::MAX - uses[*choice]))
            .unwrap_or_default();
        paired.extend(words.iter().map(|word| (best, *word)));
        uses[best] += 1;
        let (family, front) = (&families::ALL[best / Front::ALL.len()], Front::ALL[best % Front::ALL.len()]);
        cells.push(Cell { fault, state, bus, supervisor, front, family });
    }
    cells
}

/// Every combination, in an order that mixes them.
fn combinations() -> Vec<(Fault, State, Bus, Supervisor)> {
    let sizes = [Fault::ALL.len(), State::ALL.len(), Bus::ALL.len(), Supervisor::ALL.len()];
    let count: usize = sizes.iter().product();
    /// No factor of it divides a number of combinations whose factors are 2, 3 and 5: every one comes up once.
    const STRIDE: usize = 7 * 37;
    (0..count)
        .map(|turn| {
            let mut number = turn * STRIDE % count;
            let mut digit = |size: usize| {
                let digit = number % size;
                number /= size;
                digit
            };
            (
                Fault::ALL[digit(sizes[0])],
                State::ALL[digit(sizes[1])],
                Bus::ALL[digit(sizes[2])],
                Supervisor::ALL[digit(sizes[3])],
            )
        })
        .collect()
}
