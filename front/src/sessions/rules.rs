//! What the configuration wants of sessions.

use std::collections::HashMap;
use std::time::Duration;

use config::{Config, LeaseFeed, ResourceRules, Sessionless, Takeover};
use shm_proto::Window;

/// The rules, ready to be looked up.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How long the supervisor may be silent before it gets no new work, nanoseconds.
    pub patience: u64,
    /// Whether a session may take what another one holds.
    pub takeover: Takeover,
    /// Sessions that one entity may have at once.
    pub most_per_entity: usize,
    /// What becomes of commands without a session.
    pub sessionless: Sessionless,
    /// How long a client under a lease may go unheard.
    pub lease_window: Window,
    /// What of such a client counts as a sign of life.
    pub lease: LeaseFeed,
    /// For how long after the answer to a Stop no command counts as given after it.
    pub stop_hold: Duration,
    /// What single resources want, by key.
    pub resources: HashMap<String, ResourceRules>,
}

/// A duration of the configuration as a window.
pub fn window(duration: Duration) -> Window {
    // The configuration allows at most a minute.
    Window(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

impl Rules {
    /// The rules of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let motors = config.motors.iter().map(|motor| (format!("motor/{}", motor.name), motor.rules));
        let bases = config.bases.iter().map(|base| (format!("base/{}", base.name), base.rules));
        let behind = config.upstream.iter().flat_map(|upstream| &upstream.resources);
        let behind = behind.map(|resource| (resource.name.clone(), resource.rules));
        // Its window is told to Kortex's clients alone, who name their own.
        let arm = config
            .kortex
            .iter()
            .map(|kortex| (config::Kortex::ARM.to_owned(), ResourceRules { window: None, ..kortex.rules }));
        let tunnels = config.tunnel.iter().flat_map(|tunnel| &tunnel.targets);
        let tunnels = tunnels.map(|target| (target.resource(), target.rules));
        let sessions = &config.front.sessions;
        Self {
            patience: window(config.supervisor.front_window).0,
            takeover: sessions.takeover,
            most_per_entity: sessions.most_per_key,
            sessionless: sessions.sessionless,
            lease_window: window(sessions.lease_window),
            lease: sessions.lease,
            stop_hold: config.front.stop_hold,
            resources: motors
                .chain(bases)
                .chain(behind)
                .chain(arm)
                .chain(tunnels)
                .filter(|(_, rules)| *rules != ResourceRules::default())
                .collect(),
        }
    }

    /// What whoever uses that resource must keep to.
    #[must_use]
    pub fn resource(&self, key: &str) -> ResourceRules {
        // A resource of a server behind may be configured without its kind.
        let name = || key.split_once('/').map_or(key, |(_, name)| name);
        self.resources.get(key).or_else(|| self.resources.get(name())).copied().unwrap_or_default()
    }

    /// The window a client is told: the shortest it may come to have, so that it beats often enough for every
    /// resource.
    #[must_use]
    pub fn told(&self, own: Window) -> Window {
        let shortest = self.resources.values().filter_map(|rules| rules.window).map(window);
        shortest.fold(own, |least, window| if window.0 < least.0 { window } else { least })
    }
}
