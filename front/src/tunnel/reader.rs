//! How a client's bytes are looked at on their way to a target.

use config::Speaks;

use super::cannelloni;
use super::content::{Content, Fault};
use super::socketcand::Socketcand;

/// Looks at one client's bytes.
#[derive(Debug)]
pub enum Reader {
    /// Whatever comes is a command, for all we know.
    Plain,
    /// Elements, which may be split by reads.
    Socketcand(Socketcand),
    /// Datagrams of CAN frames.
    Cannelloni,
}

impl Reader {
    /// For a target that speaks this.
    #[must_use]
    pub fn of(speaks: &Speaks) -> Self {
        match speaks {
            Speaks::Plain => Self::Plain,
            Speaks::Socketcand { bus, cyclic } => Self::Socketcand(Socketcand::new(bus.as_deref(), *cyclic)),
            Speaks::Cannelloni => Self::Cannelloni,
        }
    }

    /// What has come in one read, and what of it goes on. `sifted` is room for that; `back` gets what the client is answered.
    ///
    /// # Errors
    ///
    /// When it is nothing that its target could understand.
    pub fn read<'a>(
        &mut self,
        come: &'a [u8],
        sifted: &'a mut Vec<u8>,
        back: &mut Vec<u8>,
    ) -> Result<(Content, &'a [u8]), Fault> {
        match self {
            Self::Plain => {
                // An empty datagram carries no sign of anything.
                let some = !come.is_empty();
                Ok((Content { beats: some, commands: u32::from(some) }, come))
            }
            Self::Socketcand(reader) => {
                let content = reader.pass(come, sifted, back)?;
                Ok((content, sifted))
            }
            Self::Cannelloni => Ok((cannelloni::frames(come)?, come)),
        }
    }
}
