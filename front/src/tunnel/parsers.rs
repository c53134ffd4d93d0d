//! What reads bytes of a tunnel's clients, for the fuzzer: each is given any bytes, and what must hold is asserted.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use config::{Config, Cyclic};

use super::cannelloni::{self, Stream};
use super::content::{Content, Fault};
use super::reach::{Reach, Standing};
use super::socketcand::Socketcand;
use super::{api, targets};
use crate::Parser;

/// All of them.
pub const PARSERS: [Parser; 5] = [
    Parser { name: "socketcand", feed: elements },
    Parser { name: "cannelloni", feed: datagram },
    Parser { name: "cannelloni-stream", feed: stream },
    Parser { name: "tunnel-target", feed: targets::feed },
    Parser { name: "tunnel-request", feed: api::feed },
];

/// Two motors on one bus, of which the target has the first, and one frame that is listed.
const ROBOT: &str = r#"
[[bus]]
name = "can0"
[[motor]]
name = "ours"
bus = "can0"
driver = "odrive"
node = 1
firmware = "0.6"
after_stop = "hold"
max_rpm = 600
[[motor]]
name = "theirs"
bus = "can0"
driver = "odrive"
node = 2
firmware = "0.6"
after_stop = "hold"
max_rpm = 600
[tunnel]
[[tunnel.target]]
name = "can"
protocol = "tcp"
address = "127.0.0.1:29536"
speaks = "socketcand"
motors = ["ours"]
also = ["7A0"]
window = "1s"
"#;

/// What may pass to that target.
static REACH: LazyLock<Option<Arc<Reach>>> = LazyLock::new(|| {
    let config = Config::parse(Path::new("fuzz.toml"), ROBOT).ok()?;
    Reach::of(config.tunnel.as_ref()?.targets.first()?, &config).map(Arc::new)
});

/// What may pass to that target, for the tests beside.
#[cfg(test)]
pub(super) fn robot() -> Arc<Reach> {
    Option::clone(&REACH).expect("the robot of the fuzzer is one")
}

/// What stands behind a target, or nothing: as the lowest bit but one of the first byte says.
fn reach(first: u8) -> Option<Arc<Reach>> {
    assert!(REACH.is_some(), "the robot of the fuzzer is none");
    REACH.clone().filter(|_| first & 2 != 0)
}

/// Whether a frame with this identifier may pass to that robot.
fn is_allowed(id: u32) -> bool {
    id == 0x7A0 || id >> 5 == 1
}

/// However it is split, whole elements go on, and the same ones. The first byte says how it is split.
fn elements(bytes: &[u8]) {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    let cyclic = if first & 1 == 0 { Cyclic::Refused } else { Cyclic::Allowed };
    let passed = |length: usize| {
        let mut reader = Socketcand::new(Some("can0"), cyclic, reach(first));
        let (mut on, mut back) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(length) {
            let Ok(content) = reader.pass(piece, Standing::Free, &mut on, &mut back) else { break };
            is_sound(&content);
            assert!(on.is_empty() || (on.starts_with(b"<") && on.ends_with(b">")), "half an element goes on");
        }
        on
    };
    let (whole, pieces) = (passed(usize::MAX), passed(usize::from(first >> 2).max(1)));
    assert_eq!(whole, pieces, "it depends on how it is split");
    if first & 2 != 0 {
        let text = String::from_utf8_lossy(&whole).into_owned();
        for sent in text.split("< send ").skip(1) {
            let id = sent.split(' ').next().and_then(|id| u32::from_str_radix(id, 16).ok());
            assert!(id.is_some_and(is_allowed), "{sent} goes on");
        }
    }
}

/// What passes has a frame of at least five bytes for each command that it counts.
fn datagram(bytes: &[u8]) {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    if let Ok(content) = cannelloni::frames(bytes, reach(first).as_deref(), Standing::Free) {
        is_sound(&content);
        let commands = usize::try_from(content.commands).unwrap_or(usize::MAX);
        assert!(commands.saturating_mul(5) <= bytes.len(), "{commands} frames in {} bytes", bytes.len());
        assert_eq!(content.refused, 0, "a datagram goes on in part");
    }
}

/// However it is split, the same goes on: the greeting, and whole frames that may.
fn stream(bytes: &[u8]) {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    let passed = |length: usize| {
        let (mut reader, mut on) = (Stream::new(reach(first)), Vec::new());
        let mut ended = false;
        for piece in bytes.chunks(length) {
            match reader.pass(piece, Standing::Free, &mut on) {
                Ok(content) => is_sound(&content),
                Err(fault) => {
                    assert!(fault != Fault::Greeting || on.is_empty(), "{fault} after a greeting");
                    ended = true;
                    break;
                }
            }
        }
        (on, ended)
    };
    let ((whole, ended), (pieces, ended_too)) = (passed(usize::MAX), passed(usize::from(first >> 2).max(1)));
    assert_eq!((&whole, ended), (&pieces, ended_too), "it depends on how it is split");
    // What went on goes on again, unchanged and to its end.
    let (mut again, mut on) = (Stream::new(reach(first)), Vec::new());
    assert!(again.pass(&whole, Standing::Free, &mut on).is_ok_and(|content| content.refused == 0));
    assert_eq!(on, whole, "half a frame goes on");
}

/// What counts for more counts for less as well.
fn is_sound(content: &Content) {
    assert!(content.motion <= content.commands && (content.beats || content.commands == 0), "{content:?}");
    assert_eq!(content.refused > 0, content.why.is_some());
}
