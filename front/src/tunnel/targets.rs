//! What can be reached, and nothing else: the configured targets.
//!
//! A name is resolved once for each listener. What was found must be a target's own address, and a listener connects to
//! nothing else ever after, whatever the name becomes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use config::{HostPort, TunnelTarget};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::request::{Protocol, Wish};

/// How long a name may take to be resolved: as long as a client of hoprd's waits at least for an answer.
const RESOLVE: Duration = Duration::from_secs(1);
/// Names that are resolved at once: each occupies a thread.
const LOOKUPS: usize = 4;

/// A target, and where it is.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// What the configuration says of it.
    pub target: Arc<TunnelTarget>,
    /// Its addresses; there is at least one.
    pub addresses: Vec<SocketAddr>,
}

/// All targets.
#[derive(Debug)]
pub struct Targets {
    targets: Vec<Arc<TunnelTarget>>,
    lookups: Semaphore,
}

impl Targets {
    /// These.
    #[must_use]
    pub fn new(targets: &[TunnelTarget]) -> Self {
        Self { targets: targets.iter().cloned().map(Arc::new).collect(), lookups: Semaphore::new(LOOKUPS) }
    }

    /// The target that is meant.
    ///
    /// # Errors
    ///
    /// When it is none of the configuration's, in words for who asked.
    pub async fn find(&self, protocol: Protocol, wish: &Wish, destination: &str) -> Result<Pinned, String> {
        let candidates = self.candidates(protocol, destination);
        match wish {
            Wish::Service(number) => {
                let found = candidates.iter().find(|target| target.service == Some(*number));
                let target = found.ok_or_else(|| {
                    format!("no {} target has the service number {number}", protocol.name())
                })?;
                self.pin(target).await
            }
            Wish::Plain(text) => self.plain(&candidates, text).await,
        }
    }

    /// Those of the robot that is meant, if it has any; else those of this one.
    fn candidates(&self, protocol: Protocol, destination: &str) -> Vec<Arc<TunnelTarget>> {
        let is_its =
            |target: &TunnelTarget| target.robot.as_deref().is_some_and(|robot| same(robot, destination));
        let has_own = self.targets.iter().any(|target| is_its(target));
        let fits = |target: &&Arc<TunnelTarget>| {
            let is_meant = if has_own { is_its(target) } else { target.robot.is_none() };
            target.protocol == protocol && is_meant
        };
        self.targets.iter().filter(fits).cloned().collect()
    }

    async fn plain(&self, candidates: &[Arc<TunnelTarget>], text: &str) -> Result<Pinned, String> {
        let by_name = candidates
            .iter()
            .find(|target| target.aliases.iter().any(|alias| alias == text) || show(&target.address) == text);
        if let Some(target) = by_name {
            return self.pin(target).await;
        }
        let wanted = Wanted::parse(text)?;
        let port = wanted.port();
        let near: Vec<_> = candidates.iter().filter(|target| target.address.port == port).collect();
        if near.is_empty() {
            // A name is not even looked up: that alone would tell somebody something.
            return Err(denied(text));
        }
        let found = match &wanted {
            Wanted::Address(address) => vec![*address],
            Wanted::Name(host) => self.resolve(host).await?,
        };
        for target in near {
            let Ok(Pinned { addresses, .. }) = self.pin(target).await else { continue };
            let both: Vec<_> = found.iter().filter(|address| addresses.contains(address)).copied().collect();
            if !both.is_empty() {
                return Ok(Pinned { target: Arc::clone(target), addresses: both });
            }
        }
        Err(denied(&found.first().map_or_else(|| text.to_owned(), SocketAddr::to_string)))
    }

    async fn pin(&self, target: &Arc<TunnelTarget>) -> Result<Pinned, String> {
        let addresses = self.resolve(&target.address).await?;
        Ok(Pinned { target: Arc::clone(target), addresses })
    }

    async fn resolve(&self, at: &HostPort) -> Result<Vec<SocketAddr>, String> {
        if let Ok(ip) = at.host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, at.port)]);
        }
        let lookup = async {
            // The semaphore is never closed.
            let _turn = self.lookups.acquire().await;
            tokio::net::lookup_host((at.host.as_str(), at.port)).await
        };
        let failed = |why: &str| format!("the name \"{}\" cannot be resolved: {why}", at.host);
        match timeout(RESOLVE, lookup).await {
            Err(_) => Err(failed("it takes too long")),
            Ok(Err(error)) => Err(failed(&error.to_string())),
            Ok(Ok(found)) => {
                let found: Vec<_> = found.collect();
                if found.is_empty() { Err(failed("it has no address")) } else { Ok(found) }
            }
        }
    }
}

/// Whether two destinations are the same. The case of an address says only whether it was typed right; that of a peer id is
/// part of it.
fn same(one: &str, other: &str) -> bool {
    let is_address = one.get(..2).is_some_and(|begin| begin.eq_ignore_ascii_case("0x"));
    if is_address { one.eq_ignore_ascii_case(other) } else { one == other }
}

fn show(at: &HostPort) -> String {
    format!("{}:{}", at.host, at.port)
}

fn denied(what: &str) -> String {
    format!("denied target address {what}: it is no [[tunnel.target]] of this robot")
}

/// A target as a client writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Address(SocketAddr),
    Name(HostPort),
}

impl Wanted {
    fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Name(at) => at.port,
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address.ip() {
                // Other ways of writing an address, and those that mean whoever listens.
                IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => Err(denied(text)),
                ip if ip.is_unspecified() || ip.is_multicast() => Err(denied(text)),
                _ => Ok(Self::Address(address)),
            };
        }
        // hoprd splits at the first colon, so that an IPv6 address needs brackets.
        let (host, port) = text
            .split_once(':')
            .ok_or_else(|| format!("the target \"{}\" has no port; give host:port", text.escape_debug()))?;
        let port = port.parse().ok().filter(|port| *port != 0);
        let is_name = !host.is_empty()
            && host.len() <= 253
            && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
            // "127.1", "2130706433" and "0x7f000001" are addresses to some resolvers.
            && !host.rsplit('.').find(|label| !label.is_empty()).is_none_or(|last| {
                last.starts_with(|c: char| c.is_ascii_digit())
            });
        match port.filter(|_| is_name) {
            Some(port) => Ok(Self::Name(HostPort { host: host.to_owned(), port })),
            None => Err(format!("the target \"{}\" is not host:port", text.escape_debug())),
        }
    }
}

/// Any bytes as a target: what is read is one way of writing one place.
///
/// # Panics
///
/// When something does not hold that must.
pub fn feed(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Wanted::parse(text) {
        Ok(Wanted::Address(address)) => {
            assert!(!address.ip().is_unspecified() && !address.ip().is_multicast());
            assert_eq!(address.ip().to_canonical(), address.ip(), "another way of writing it");
        }
        Ok(Wanted::Name(at)) => {
            assert!(at.port != 0 && at.host.parse::<IpAddr>().is_err());
            assert!(!at.host.contains([':', '/', '@', '[', '%']));
        }
        Err(why) => assert!(why.contains("target"), "{why}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use config::Config;
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = r#"
[[bus]]
name = "can0"
[[motor]]
name = "left"
bus = "can0"
driver = "odrive"
node = 1
firmware = "0.6"
after_stop = "hold"
max_rpm = 600
[tunnel]
"#;

    fn targets(text: &str) -> Targets {
        let config = Config::parse(Path::new("test.toml"), &format!("{HEAD}{text}")).unwrap();
        Targets::new(&config.tunnel.unwrap().targets)
    }

    const TWO: &str = r#"
[[tunnel.target]]
name = "can"
protocol = "tcp"
address = "127.0.0.1:29536"
aliases = ["can.robot:1"]
service = 0
[[tunnel.target]]
name = "camera"
protocol = "tcp"
address = "[::1]:29536"
robot = "0x1B482420Afa04aeC1Ef0e4a00C18451E84466c75"
[[tunnel.target]]
name = "joystick"
protocol = "udp"
address = "192.0.2.7:20000"
"#;
    const ANOTHER: &str = "0x1B482420Afa04aeC1Ef0e4a00C18451E84466c75";

    async fn find(
        text: &str,
        protocol: Protocol,
        destination: &str,
    ) -> Result<(String, Vec<String>), String> {
        let found = targets(TWO).find(protocol, &Wish::Plain(text.to_owned()), destination).await?;
        let addresses = found.addresses.iter().map(SocketAddr::to_string).collect();
        Ok((found.target.name.clone(), addresses))
    }

    #[tokio::test]
    async fn a_target_has_several_names_and_one_address() {
        let can = Ok(("can".to_owned(), vec!["127.0.0.1:29536".to_owned()]));
        for name in ["127.0.0.1:29536", "can.robot:1", "localhost:29536"] {
            assert_eq!(find(name, Protocol::Tcp, "anybody").await, can, "{name}");
        }
        let targets = targets(TWO);
        assert_eq!(targets.find(Protocol::Tcp, &Wish::Service(0), "").await.unwrap().target.name, "can");
        let none = targets.find(Protocol::Udp, &Wish::Service(0), "").await.unwrap_err();
        assert_eq!(none, "no udp target has the service number 0");
    }

    #[tokio::test]
    async fn another_robot_has_its_own_and_no_other() {
        let camera = ("camera".to_owned(), vec!["[::1]:29536".to_owned()]);
        for destination in [ANOTHER, &ANOTHER.to_ascii_lowercase()] {
            assert_eq!(find("[::1]:29536", Protocol::Tcp, destination).await, Ok(camera.clone()));
        }
        assert!(find("[::1]:29536", Protocol::Tcp, "anybody").await.is_err(), "not of this robot");
        assert!(find("127.0.0.1:29536", Protocol::Tcp, ANOTHER).await.is_err(), "not of that one");
    }

    #[tokio::test]
    async fn nothing_else_is_reached_however_it_is_written() {
        for text in [
            "169.254.169.254:80",
            "169.254.169.254:29536",
            "0.0.0.0:29536",
            "[::]:29536",
            "[::ffff:127.0.0.1]:29536",
            "[::ffff:7f00:1]:29536",
            "127.0.0.2:29536",
            "127.0.0.1:29537",
            "127.1:29536",
            "2130706433:29536",
            "0x7f000001:29536",
            "017700000001:29536",
            "127.0.0.1.:29536",
            "[::1]:29536",
            "192.0.2.7:20000",
            "224.0.0.1:29536",
            "localhost:22",
            "localhost",
            "localhost:0",
            "localhost:70000",
            "localhost:29536:29536",
            "localhost:29536/../x",
            "user@localhost:29536",
            "::1:29536",
            "",
            ":",
            ":29536",
            "\u{0}:29536",
            "nobody.invalid:29536",
        ] {
            let refused = find(text, Protocol::Tcp, "anybody").await.unwrap_err();
            assert!(
                refused.contains("target") || refused.contains("cannot be resolved"),
                "{text}: {refused}"
            );
        }
    }

    /// Texts that look like a target, and those that do not.
    fn texts() -> impl Strategy<Value = String> {
        prop_oneof![
            "\\PC*",
            "[0-9a-fx:.\\[\\]%]{0,40}",
            "[a-z0-9.-]{0,20}:[0-9]{0,6}",
            "\\[[0-9a-f:.]{0,40}\\]:[0-9]{0,6}"
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn what_is_read_means_one_place(text in texts()) {
            feed(text.as_bytes());
        }
    }
}
