//! What reads bytes of a tunnel's clients, for the fuzzer: each is given any bytes, and what must hold is asserted.

use config::Cyclic;

use super::socketcand::Socketcand;
use super::{api, cannelloni, targets};
use crate::Parser;

/// All of them.
pub const PARSERS: [Parser; 4] = [
    Parser { name: "socketcand", feed: elements },
    Parser { name: "cannelloni", feed: datagram },
    Parser { name: "tunnel-target", feed: targets::feed },
    Parser { name: "tunnel-request", feed: api::feed },
];

/// However it is split, whole elements go on, and the same ones. The first byte says how it is split.
fn elements(bytes: &[u8]) {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    let cyclic = if first & 1 == 0 { Cyclic::Refused } else { Cyclic::Allowed };
    let passed = |length: usize| {
        let (mut reader, mut on, mut back) = (Socketcand::new(Some("can0"), cyclic), Vec::new(), Vec::new());
        for piece in bytes.chunks(length) {
            if reader.pass(piece, &mut on, &mut back).is_err() {
                break;
            }
            assert!(on.is_empty() || (on.starts_with(b"<") && on.ends_with(b">")), "half an element goes on");
        }
        on
    };
    let (whole, pieces) = (passed(usize::MAX), passed(usize::from(first >> 1).max(1)));
    assert_eq!(whole, pieces, "it depends on how it is split");
}

/// What passes has a frame of at least six bytes for each command that it counts.
fn datagram(bytes: &[u8]) {
    if let Ok(content) = cannelloni::frames(bytes) {
        let commands = usize::try_from(content.commands).unwrap_or(usize::MAX);
        assert!(commands.saturating_mul(5) <= bytes.len(), "{commands} frames in {} bytes", bytes.len());
        assert_eq!(content.beats, commands > 0);
    }
}
