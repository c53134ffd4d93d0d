//! Answers about the robot as a whole: ours and the upstream's in one.
//!
//! A message of protobuf merges with another of its kind when their bytes follow each other: lists become longer, and
//! of a single value the last counts. So nothing is decoded but names, to keep them for when the upstream is away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;

use crate::proto::common::ResourceName;
use crate::proto::robot::{GetMachineStatusResponse, ResourceNamesResponse, ResourceStatus, resource_status};

/// How long the upstream's part is waited for: clients check with these calls whether anybody is there, within a
/// second.
pub const WITHIN: Duration = Duration::from_millis(500);
/// Names that are kept of the upstream: far more than a robot has.
const MOST_NAMES: usize = 10_000;

/// A call whose answer has two parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// What resources there are.
    Names,
    /// How they are.
    Status,
    /// Which services there are for which kind.
    Subtypes,
    /// What is under way.
    Operations,
}

impl Question {
    /// The question of a path.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        match path.strip_prefix("/viam.robot.v1.RobotService/")? {
            "ResourceNames" => Some(Self::Names),
            "GetMachineStatus" => Some(Self::Status),
            "ResourceRPCSubtypes" => Some(Self::Subtypes),
            "GetOperations" => Some(Self::Operations),
            _ => None,
        }
    }
}

/// The upstream's resources as it named them last, by `kind/name`.
#[derive(Debug, Default)]
pub struct Names {
    last: Mutex<Arc<BTreeMap<String, ResourceName>>>,
}

/// The name under which sessions note a resource.
fn key(name: &ResourceName) -> String {
    format!("{}/{}", name.subtype, name.name)
}

impl Names {
    fn last(&self) -> Arc<BTreeMap<String, ResourceName>> {
        Arc::clone(&self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the upstream has named it.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.last().contains_key(key)
    }

    /// Keeps what the upstream has named just now. What is no list of names changes nothing.
    pub fn note(&self, answer: &Bytes) {
        let Ok(answer) = ResourceNamesResponse::decode(answer.clone()) else { return };
        let names = answer.resources.into_iter().take(MOST_NAMES).map(|name| (key(&name), name)).collect();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(names);
    }

    /// The answer of both. `theirs`: the upstream's, or why there is none.
    #[must_use]
    pub fn merged(&self, question: Question, ours: &Bytes, theirs: Result<Bytes, tonic::Status>) -> Bytes {
        let theirs = match (question, theirs) {
            (Question::Names, answer) => {
                if let Ok(answer) = &answer {
                    self.note(answer);
                }
                self.other_names(ours)
            }
            (_, Ok(answer)) => answer,
            // It may simply not offer the call.
            (Question::Status, Err(why)) if why.code() != tonic::Code::Unimplemented => {
                self.unwell(why.message())
            }
            (Question::Status | Question::Subtypes | Question::Operations, Err(_)) => Bytes::new(),
        };
        [&ours[..], &theirs[..]].concat().into()
    }

    /// The upstream's names that are not among ours.
    fn other_names(&self, ours: &Bytes) -> Bytes {
        let ours = ResourceNamesResponse::decode(ours.clone()).unwrap_or_default();
        let native: Vec<_> = ours.resources.iter().map(key).collect();
        let last = self.last();
        let resources =
            last.iter().filter(|(key, _)| !native.contains(key)).map(|(_, name)| name.clone()).collect();
        ResourceNamesResponse { resources }.encode_to_vec().into()
    }

    /// All of the upstream's resources, with what keeps them from being used.
    fn unwell(&self, why: &str) -> Bytes {
        let status = |name: &ResourceName| ResourceStatus {
            name: Some(name.clone()),
            state: resource_status::State::Unhealthy.into(),
            last_updated: None,
            revision: String::new(),
            error: why.to_owned(),
        };
        let resources = self.last().values().map(status).collect();
        GetMachineStatusResponse { resources, config: None, state: 0 }.encode_to_vec().into()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Bytes, GetMachineStatusResponse, Names, Question, ResourceName, ResourceNamesResponse,
        resource_status,
    };
    use prost::Message as _;
    use tonic::Status;

    fn names(list: &[&str]) -> Bytes {
        let name = |text: &&str| {
            let (subtype, name) = text.split_once('/').unwrap();
            ResourceName {
                namespace: "rdk".to_owned(),
                r#type: "component".to_owned(),
                subtype: subtype.to_owned(),
                name: name.to_owned(),
            }
        };
        ResourceNamesResponse { resources: list.iter().map(name).collect() }.encode_to_vec().into()
    }

    fn listed(answer: Bytes) -> Vec<String> {
        let answer = ResourceNamesResponse::decode(answer).unwrap();
        answer.resources.iter().map(super::key).collect()
    }

    #[test]
    fn names_are_ours_then_theirs_each_once_and_kept_while_the_upstream_is_away() {
        let known = Names::default();
        let away = || Err(Status::unavailable("gone"));
        let ours = names(&["motor/left"]);
        assert_eq!(listed(known.merged(Question::Names, &ours, away())), ["motor/left"]);
        let theirs = names(&["arm/arm1", "motor/left", "motor/lift"]);
        let both = ["motor/left", "arm/arm1", "motor/lift"];
        assert_eq!(listed(known.merged(Question::Names, &ours, Ok(theirs))), both);
        assert_eq!(listed(known.merged(Question::Names, &ours, away())), both);
        assert!(known.has("arm/arm1") && !known.has("arm/arm2"));
    }

    #[test]
    fn of_the_status_of_the_whole_the_upstreams_word_counts_and_silence_is_an_ailment() {
        let known = Names::default();
        known.note(&names(&["arm/arm1"]));
        let ours =
            GetMachineStatusResponse { resources: vec![], config: None, state: 2 }.encode_to_vec().into();
        let theirs =
            GetMachineStatusResponse { resources: vec![], config: None, state: 1 }.encode_to_vec().into();
        let status =
            |theirs| GetMachineStatusResponse::decode(known.merged(Question::Status, &ours, theirs)).unwrap();
        assert_eq!(status(Ok(theirs)).state, 1);
        let alone = status(Err(Status::unavailable("it is lost")));
        assert_eq!((alone.state, alone.resources.len()), (2, 1));
        assert_eq!(alone.resources[0].state, i32::from(resource_status::State::Unhealthy));
        assert_eq!(alone.resources[0].error, "it is lost");
        assert_eq!(status(Err(Status::unimplemented("no"))).resources.len(), 0);
    }
}
