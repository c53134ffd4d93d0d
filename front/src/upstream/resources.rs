//! What is known of the upstream's resources: which names exist, which motors stand behind them, and on whose behalf
//! each was used last.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::HeaderValue;
use shm_proto::MotorIndex;
use tonic::Status;

use super::merge::Names;

/// Names that the upstream has not told of and that are taken at a client's word: it may have got a resource a moment
/// ago. What a session used is remembered, so there must be an end to them.
const MOST_UNTOLD: usize = 256;
/// Longest of them.
const LONGEST_UNTOLD: usize = 256;

/// The resources.
#[derive(Debug)]
pub struct Resources {
    /// As the upstream names them.
    pub names: Names,
    settings: config::Upstream,
    untold: Mutex<HashSet<Box<str>>>,
    credentials: Mutex<HashMap<Box<str>, HeaderValue>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Resources {
    /// What the configuration tells.
    #[must_use]
    pub fn new(settings: config::Upstream) -> Self {
        Self { names: Names::default(), settings, untold: Mutex::default(), credentials: Mutex::default() }
    }

    /// The motors that the upstream drives for a resource.
    #[must_use]
    pub fn motors(&self, kind: &str, name: &str) -> Vec<MotorIndex> {
        let places = self.settings.resource(kind, name).map(|resource| &resource.motors[..]);
        let index = |place: &usize| u16::try_from(*place).ok().map(MotorIndex);
        places.unwrap_or_default().iter().filter_map(index).collect()
    }

    /// Whether a resource's use can be noted.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED when too many names were made up.
    pub fn admit(&self, kind: &str, name: &str, key: &str) -> Result<(), Status> {
        if self.names.has(key) || self.settings.resource(kind, name).is_some() {
            return Ok(());
        }
        let mut untold = locked(&self.untold);
        if untold.contains(key) {
            return Ok(());
        }
        if untold.len() >= MOST_UNTOLD || key.len() > LONGEST_UNTOLD {
            let shown: String = name.chars().take(LONGEST_UNTOLD).collect();
            return Err(Status::resource_exhausted(format!(
                "the upstream has not told of a resource {kind}/{shown}, and too many such names were used already; \
                 ask for ResourceNames, so that it tells"
            )));
        }
        untold.insert(key.into());
        Ok(())
    }

    /// Remembers by what right a resource was used.
    pub fn note_credentials(&self, key: &str, credentials: Option<&HeaderValue>) {
        let mut known = locked(&self.credentials);
        match credentials {
            Some(credentials) => drop(known.insert(key.into(), credentials.clone())),
            None => drop(known.remove(key)),
        }
    }

    /// By what right it was used last.
    #[must_use]
    pub fn credentials(&self, key: &str) -> Option<HeaderValue> {
        locked(&self.credentials).get(key).cloned()
    }
}
