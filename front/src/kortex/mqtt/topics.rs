//! The topics there are, as clients name them. (Reference: kortex.md, 1.3.)
//!
//! A namespace is one level of a topic that a client may put around what it asks; it gets its answer with the same.

use mqtt5_protocol::is_valid_topic_filter;
use mqtt5_protocol::packet::suback::SubAckReasonCode;

use super::super::frame::{Header, Method, SessionNumber};

/// Longest namespace: topics are kept for as long as they are subscribed to.
const MOST_NAMESPACE: usize = 64;
/// What no namespace is called: the first levels of other topics.
const RESERVED: [&str; 8] = ["dev", "req", "res", "notif", "ping", "pong", "services", "sessions"];

/// What a client subscribes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// `res/<client>`: answers.
    Answers,
    /// `services/pong/<service>[/<namespace>]`: whether a service is there.
    Pong,
    /// `ping/<session>`: whether it is there itself.
    Ping(SessionNumber),
    /// `[<namespace>/]notif/<service>/<function>`: changes.
    Notifications(Method),
    /// `sessions/status`: every session there is.
    Status,
    /// `sessions/killed`.
    Killed,
}

/// Where a client publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    /// `[<namespace>/]req/<service>/<function>`.
    Method(Method),
    /// `dev/<device><service>/<function>`, as real clients write it: nothing says where the device ends.
    Device {
        /// Both numbers, one behind the other.
        device_and_service: &'a str,
        /// The function.
        function: u16,
    },
    /// `services/ping/<service>[/<namespace>]`.
    Service {
        /// Which service.
        service: u16,
        /// Where it is answered.
        pong: String,
    },
    /// `pong/<session>`.
    Pong(SessionNumber),
}

/// What a topic filter of that client is for.
///
/// # Errors
///
/// What it is told when it may not subscribe to that.
pub fn filter(filter: &str, answers: &str) -> Result<Filter, SubAckReasonCode> {
    if filter.starts_with("$share/") {
        return Err(SubAckReasonCode::SharedSubscriptionsNotSupported);
    }
    if !is_valid_topic_filter(filter) {
        return Err(SubAckReasonCode::TopicFilterInvalid);
    }
    if filter.contains(['+', '#']) {
        return Err(SubAckReasonCode::WildcardSubscriptionsNotSupported);
    }
    let levels: Vec<&str> = filter.split('/').collect();
    let known = match levels[..] {
        _ if filter == answers => Some(Filter::Answers),
        ["services", "pong", service] => service_number(service).map(|_| Filter::Pong),
        ["services", "pong", service, namespace] if is_namespace(namespace) => {
            service_number(service).map(|_| Filter::Pong)
        }
        ["ping", session] => number(session).map(|session| Filter::Ping(SessionNumber(session))),
        ["notif", service, function] => method(service, function).map(Filter::Notifications),
        [namespace, "notif", service, function] if is_namespace(namespace) => {
            method(service, function).map(Filter::Notifications)
        }
        ["sessions", "status"] => Some(Filter::Status),
        ["sessions", "killed"] => Some(Filter::Killed),
        _ => None,
    };
    known.ok_or(SubAckReasonCode::NotAuthorized)
}

/// What is published to a topic is for; `None`: for nobody.
#[must_use]
pub fn destination(topic: &str) -> Option<Destination<'_>> {
    let levels: Vec<&str> = topic.split('/').collect();
    match levels[..] {
        ["req", service, function] => method(service, function).map(Destination::Method),
        [namespace, "req", service, function] if is_namespace(namespace) => {
            method(service, function).map(Destination::Method)
        }
        ["dev", device_and_service, function] => {
            Some(Destination::Device { device_and_service, function: number(function)? })
        }
        ["services", "ping", service] => Some(Destination::Service {
            service: service_number(service)?,
            pong: format!("services/pong/{service}"),
        }),
        ["services", "ping", service, namespace] if is_namespace(namespace) => Some(Destination::Service {
            service: service_number(service)?,
            pong: format!("services/pong/{service}/{namespace}"),
        }),
        ["pong", session] => number(session).map(|session| Destination::Pong(SessionNumber(session))),
        _ => None,
    }
}

impl Destination<'_> {
    /// Whether a frame with that header belongs there.
    #[must_use]
    pub fn is_for(&self, header: &Header) -> bool {
        match self {
            Self::Method(method) => *method == header.method,
            Self::Device { device_and_service, function } => {
                // Device 0 is the base, which has no topic of that kind.
                header.device != 0
                    && *device_and_service == format!("{}{}", header.device, header.method.service)
                    && *function == header.method.function
            }
            Self::Service { .. } => false,
            Self::Pong(session) => *session == header.session,
        }
    }
}

fn is_namespace(level: &str) -> bool {
    !level.is_empty() && level.len() <= MOST_NAMESPACE && !RESERVED.contains(&level)
}

fn method(service: &str, function: &str) -> Option<Method> {
    Some(Method { service: service_number(service)?, function: number(function)? })
}

/// Services have 12 bits.
fn service_number(text: &str) -> Option<u16> {
    number(text).filter(|number| *number <= 0xFFF)
}

/// A number as it is written: two topics are never the same one.
fn number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|number: &u16| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANSWERS: &str = "res/auto-00000001";

    #[test]
    fn topics_are_those_of_real_clients() {
        let filter = |text| super::filter(text, ANSWERS);
        let stop = Method { service: 2, function: 112 };
        assert_eq!(filter(ANSWERS), Ok(Filter::Answers));
        assert_eq!(filter("services/pong/1"), Ok(Filter::Pong));
        assert_eq!(filter("services/pong/1/left"), Ok(Filter::Pong));
        assert_eq!(filter("ping/1"), Ok(Filter::Ping(SessionNumber(1))));
        assert_eq!(filter("notif/2/112"), Ok(Filter::Notifications(stop)));
        assert_eq!(filter("left/notif/2/112"), Ok(Filter::Notifications(stop)));
        assert_eq!(filter("sessions/status"), Ok(Filter::Status));
        assert_eq!(filter("sessions/killed"), Ok(Filter::Killed));
        assert_eq!(destination("req/2/112"), Some(Destination::Method(stop)));
        assert_eq!(destination("left/req/2/112"), Some(Destination::Method(stop)));
        let pong = |pong: &str| Some(Destination::Service { service: 1, pong: pong.to_owned() });
        assert_eq!(destination("services/ping/1"), pong("services/pong/1"));
        assert_eq!(destination("services/ping/1/left"), pong("services/pong/1/left"));
        assert_eq!(destination("pong/7"), Some(Destination::Pong(SessionNumber(7))));
    }

    #[test]
    fn there_are_no_other_topics() {
        let (wild, shared) = (
            SubAckReasonCode::WildcardSubscriptionsNotSupported,
            SubAckReasonCode::SharedSubscriptionsNotSupported,
        );
        let (no, invalid) = (SubAckReasonCode::NotAuthorized, SubAckReasonCode::TopicFilterInvalid);
        let long = format!("{}/notif/2/112", "n".repeat(MOST_NAMESPACE + 1));
        for (topic, reason) in [
            ("#", wild),
            ("res/+", wild),
            ("sessions/#", wild),
            ("+/notif/2/112", wild),
            ("$share/a/sessions/status", shared),
            ("$share/a/#", shared),
            ("", invalid),
            ("res/#/a", invalid),
            ("res/a#", invalid),
            ("res/auto-00000002", no),
            ("res", no),
            ("req/1/1", no),
            ("$SYS/uptime", no),
            ("ping/01", no),
            ("ping/+1", invalid),
            ("ping/65536", no),
            ("ping/-1", no),
            ("notif/4096/1", no),
            ("req/notif/2/112", no),
            ("/notif/2/112", no),
            ("services/pong/1/res", no),
            ("services/pong/1/a/b", no),
            (&long, no),
        ] {
            assert_eq!(filter(topic, ANSWERS), Err(reason), "{topic}");
        }
        for topic in
            ["", "req", "req/1", "req/1/1/1", "req/1/01", "req/x/1", "res/auto-00000001", "notif/2/112"]
        {
            assert_eq!(destination(topic), None, "{topic}");
        }
    }

    #[test]
    fn a_device_and_a_service_run_into_each_other() {
        let header = |device, service| Header {
            kind: super::super::super::frame::Kind::Request,
            device,
            error: (0, 0),
            session: SessionNumber(1),
            message: super::super::super::frame::MessageNumber(1),
            method: Method { service, function: 3 },
        };
        let topic = destination("dev/112/3").unwrap();
        assert!(topic.is_for(&header(1, 12)) && topic.is_for(&header(11, 2)));
        assert!(!topic.is_for(&header(0, 112)) && !topic.is_for(&header(1, 2)));
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in "[a-z0-9/+#$\\PC]{0,40}") {
            let _ = (filter(&text, ANSWERS), destination(&text));
        }
    }
}
