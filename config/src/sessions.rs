//! What sessions must keep to: the keys of `[front]` about them, and those of a resource.

use std::time::Duration;

use crate::reader::{Problems, Reader};
use crate::{LONGEST_WINDOW, SHORTEST_WINDOW};

/// The rules for all sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRules {
    /// `sessionless`: what becomes of commands without a session.
    pub sessionless: Sessionless,
    /// `lease_window`: how long a client without session may be silent.
    pub lease_window: Duration,
    /// `lease`: what of such a client counts as a sign of life.
    pub lease: LeaseFeed,
    /// `takeover`: whether a session may take what another one holds.
    pub takeover: Takeover,
    /// `max_sessions_per_key`.
    pub most_per_key: usize,
}

/// What becomes of a command that would move something and names no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessionless {
    /// Its client gets one of its own, for as long as it is heard.
    Lease,
    /// It is refused.
    Refuse,
    /// It is carried out, and nothing stops the motor when its client falls silent, as with Viam's server.
    Viam,
}

/// What keeps the lease of a client without session alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseFeed {
    /// Its commands for what it drives: a proxy or a browser may answer everything else in its place.
    Commands,
    /// Whatever is heard over its connection, answers to pings included.
    Pings,
}

/// Whether a session may take what another one holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// Who commanded last has it, as with Viam's server.
    LastUsed,
    /// Who has it keeps it until its session ends.
    Exclusive,
}

/// What whoever drives a resource must keep to, beyond the rules for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceRules {
    /// `window`: how long its session may be silent.
    pub window: Option<Duration>,
    /// `require_progress`: after how long without a new command it counts as abandoned while it moves, however
    /// well its session beats.
    pub progress: Option<Duration>,
}

/// The keys that [`rules_of`] takes from `[front]`.
pub const FRONT_KEYS: [&str; 5] =
    ["sessionless", "lease", "lease_window", "takeover", "max_sessions_per_key"];
/// The keys that [`rules_of_resource`] takes.
pub const RESOURCE_KEYS: [&str; 2] = ["window", "require_progress"];

/// One of several words, or `default`.
pub fn choice<T: Copy>(
    table: &mut Reader<'_>,
    problems: &mut Problems,
    key: &str,
    words: &[(&str, T)],
    default: T,
) -> T {
    let Some((span, text)) = table.text(problems, key) else { return default };
    if let Some((_, chosen)) = words.iter().find(|(word, _)| *word == text) {
        return *chosen;
    }
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    problems.note(span, format!("{}: \"{key}\" must be {}, not \"{text}\"", table.title, known.join(" or ")));
    default
}

/// Takes the rules for all sessions; `room` is how many there can be.
pub fn rules_of(table: &mut Reader<'_>, problems: &mut Problems, room: u16) -> SessionRules {
    let sessionless =
        [("lease", Sessionless::Lease), ("refuse", Sessionless::Refuse), ("viam", Sessionless::Viam)];
    let lease = [("commands", LeaseFeed::Commands), ("pings", LeaseFeed::Pings)];
    let takeover = [("last_used", Takeover::LastUsed), ("exclusive", Takeover::Exclusive)];
    let most_per_key = table.integer(problems, "max_sessions_per_key", 1..=i64::from(room));
    SessionRules {
        sessionless: choice(table, problems, "sessionless", &sessionless, Sessionless::Lease),
        lease_window: table.duration(
            problems,
            "lease_window",
            SHORTEST_WINDOW..=LONGEST_WINDOW,
            Duration::from_secs(2),
        ),
        lease: choice(table, problems, "lease", &lease, LeaseFeed::Commands),
        takeover: choice(table, problems, "takeover", &takeover, Takeover::LastUsed),
        most_per_key: most_per_key.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::from(room)),
    }
}

/// Takes the rules of a resource.
pub fn rules_of_resource(table: &mut Reader<'_>, problems: &mut Problems) -> ResourceRules {
    let range = SHORTEST_WINDOW..=LONGEST_WINDOW;
    let window = table.duration_if_given(problems, "window", range.clone());
    // A control loop that sends less than once a minute does not control.
    let progress = table.duration_if_given(problems, "require_progress", range);
    ResourceRules { window, progress }
}
