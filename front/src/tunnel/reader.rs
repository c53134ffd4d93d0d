//! How a client's bytes are looked at on their way to a target.

use std::sync::Arc;

use config::{Speaks, TunnelProtocol, TunnelTarget};

use super::cannelloni::{self, Stream};
use super::content::{Content, Fault};
use super::reach::{Reach, Standing};
use super::socketcand::Socketcand;

/// Looks at one client's bytes.
#[derive(Debug)]
pub enum Reader {
    /// Whatever comes is a command, for all we know.
    Plain,
    /// Elements, which may be split by reads.
    Socketcand(Socketcand),
    /// Datagrams of CAN frames.
    Datagrams(Option<Arc<Reach>>),
    /// A stream of CAN frames, which may be split by reads.
    Stream(Stream),
}

impl Reader {
    /// For a target, of whose motors this is known.
    #[must_use]
    pub fn of(target: &TunnelTarget, reach: Option<&Arc<Reach>>) -> Self {
        let reach = reach.cloned();
        match (&target.speaks, target.protocol) {
            (Speaks::Plain, _) => Self::Plain,
            (Speaks::Socketcand { bus, cyclic }, _) => {
                Self::Socketcand(Socketcand::new(bus.as_deref(), *cyclic, reach))
            }
            (Speaks::Cannelloni, TunnelProtocol::Udp) => Self::Datagrams(reach),
            (Speaks::Cannelloni, TunnelProtocol::Tcp) => Self::Stream(Stream::new(reach)),
        }
    }

    /// What has come in one read from a client who stands to the motors as told, and what of it goes on. `sifted` is room
    /// for that; `back` gets what the client is answered.
    ///
    /// # Errors
    ///
    /// When it is nothing that its target could understand, or must not go on.
    pub fn read<'a>(
        &mut self,
        come: &'a [u8],
        standing: Standing,
        sifted: &'a mut Vec<u8>,
        back: &mut Vec<u8>,
    ) -> Result<(Content, &'a [u8]), Fault> {
        match self {
            // An empty datagram carries no sign of anything.
            Self::Plain if come.is_empty() => Ok((Content::default(), come)),
            Self::Plain => Ok((Content::unknown(), come)),
            Self::Socketcand(reader) => {
                let content = reader.pass(come, standing, sifted, back)?;
                Ok((content, sifted))
            }
            Self::Datagrams(reach) => Ok((cannelloni::frames(come, reach.as_deref(), standing)?, come)),
            Self::Stream(reader) => {
                let content = reader.pass(come, standing, sifted)?;
                Ok((content, sifted))
            }
        }
    }
}
