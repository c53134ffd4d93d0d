//! The calls that take long enough to be asked about while they run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::proto::robot::Operation;

/// Every such call under way.
#[derive(Debug, Default)]
pub struct Operations {
    running: Mutex<BTreeMap<uuid::Uuid, Operation>>,
}

/// One call; it is under way until this is dropped, however the call ends.
#[derive(Debug)]
pub struct Running {
    operations: Arc<Operations>,
    id: uuid::Uuid,
}

impl Operations {
    fn running(&self) -> MutexGuard<'_, BTreeMap<uuid::Uuid, Operation>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a call has begun.
    #[must_use]
    pub fn begin(self: &Arc<Self>, method: &str, session_id: Option<String>) -> Running {
        let id = uuid::Uuid::new_v4();
        let operation = Operation {
            id: id.to_string(),
            method: method.to_owned(),
            started: Some(SystemTime::now().into()),
            session_id,
        };
        self.running().insert(id, operation);
        Running { operations: Arc::clone(self), id }
    }

    /// The calls under way.
    #[must_use]
    pub fn list(&self) -> Vec<Operation> {
        self.running().values().cloned().collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.operations.running().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::{Arc, Operations};

    #[test]
    fn a_call_is_listed_while_it_runs() {
        let operations = Arc::<Operations>::default();
        let running = operations.begin("/service/Method", Some("id".to_owned()));
        let listed = operations.list();
        assert_eq!(listed.len(), 1);
        assert_eq!(
            (listed[0].method.as_str(), listed[0].session_id.as_deref()),
            ("/service/Method", Some("id"))
        );
        drop(running);
        assert!(operations.list().is_empty());
    }
}
