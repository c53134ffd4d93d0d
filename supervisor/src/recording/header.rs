//! What a core began with: the configuration, which supervisor it was, and what the one before had left open.

use shm_proto::crc::Crc;
use shm_proto::layout::layout_hash;
use shm_proto::verdicts::{EVENT_BODY, Event, PastEvidence, Predecessor, Reason};
use shm_proto::{Generation, Nanos, TripId};

use super::entry::{Damaged, Fields};
use crate::core::{Inheritance, Inherited, Latch};

/// The first word of each file: the name of the format, and its version.
const MAGIC: u64 = u64::from_be_bytes(*b"LANYREC2");

/// What a recording begins with.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// The text of the configuration.
    pub config: String,
    /// The supervisor's process.
    pub pid: u32,
    /// When it started.
    pub started: Nanos,
    /// What it took over.
    pub inheritance: Inheritance,
}

impl Header {
    /// The header as the file has it, and the checksum over it, which goes on over the entries.
    #[must_use]
    pub fn to_bytes(&self) -> (Vec<u8>, Crc) {
        let body = self.body();
        let words: Vec<u64> = [MAGIC, layout_hash(), body.len() as u64].into_iter().chain(body).collect();
        let sum = words.iter().fold(Crc::START, |sum, word| sum.word(*word));
        let all = words.into_iter().chain([u64::from(sum.finish())]);
        (all.flat_map(u64::to_le_bytes).collect(), sum)
    }

    fn body(&self) -> Vec<u64> {
        let Inheritance { ending, seen, trips, generation, latch, motors, evidence, events, died } =
            &self.inheritance;
        let mut words = vec![u64::from(self.pid), self.started.0];
        words.extend([ending.number(), seen.0, trips.0, generation.0, latch.0]);
        words.extend([died.map_or(0, |trip| trip.0), motors.len() as u64]);
        for motor in motors {
            words.extend(match motor {
                None => [0; 4],
                Some(Inherited { trip, reason, latch, violations }) => {
                    [1 + *latch as u64, trip.0, reason.number(), *violations]
                }
            });
        }
        words.push(evidence.len() as u64);
        words.extend(evidence.iter().flat_map(|past| [past.standstill.0, past.feedback.0]));
        words.push(events.len() as u64);
        words.extend(events.iter().flat_map(|event| event.to_words()));
        let text = self.config.as_bytes();
        words.push(text.len() as u64);
        words.extend(text.chunks(8).map(|chunk| {
            let mut bytes = [0; 8];
            bytes.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            u64::from_le_bytes(bytes)
        }));
        words
    }

    /// Reads a header; returns the words behind it, too, and the checksum so far.
    ///
    /// # Errors
    /// The words are no recording, one of another version, or damaged; the text says which.
    pub fn read(words: &[u64]) -> Result<(Self, &[u64], Crc), String> {
        let mut fields = Fields(words);
        let damaged = |Damaged| "the header of the recording is damaged".to_owned();
        if fields.take() != Ok(MAGIC) {
            return Err("this is no recording, or one of another version".to_owned());
        }
        if fields.take() != Ok(layout_hash()) {
            return Err(
                "recorded by another version of this program, whose verdicts are other ones".to_owned()
            );
        }
        let length = fields.take().map_err(damaged)?;
        let body = fields.take_some(length).map_err(damaged)?;
        let checksum = fields.take().map_err(damaged)?;
        let behind = fields.0;
        let signed = words.get(..words.len() - behind.len() - 1).unwrap_or_default();
        let sum = signed.iter().fold(Crc::START, |sum, word| sum.word(*word));
        if u64::from(sum.finish()) != checksum {
            return Err(damaged(Damaged));
        }
        Ok((Self::read_body(body).map_err(damaged)?, behind, sum))
    }

    fn read_body(words: &[u64]) -> Result<Self, Damaged> {
        let mut fields = Fields(words);
        let (pid, started) = (fields.number()?, Nanos(fields.take()?));
        let ending = fields.known(Predecessor::from_number)?;
        let (seen, trips) = (Nanos(fields.take()?), TripId(fields.take()?));
        let (generation, latch) = (Generation(fields.take()?), TripId(fields.take()?));
        let died = Some(TripId(fields.take()?)).filter(|trip| *trip != TripId::NONE);
        let motors = (0..fields.take()?).map(|_| read_motor(&mut fields)).collect::<Result<_, _>>()?;
        let past = |fields: &mut Fields<'_>| {
            Ok(PastEvidence { standstill: Nanos(fields.take()?), feedback: Nanos(fields.take()?) })
        };
        let evidence = (0..fields.take()?).map(|_| past(&mut fields)).collect::<Result<_, _>>()?;
        let event = |fields: &mut Fields<'_>| {
            let words = fields.take_some(EVENT_BODY as u64)?;
            let words: [u64; EVENT_BODY] = words.try_into().map_err(|_| Damaged)?;
            Event::from_words(words).ok_or(Damaged)
        };
        let events = (0..fields.take()?).map(|_| event(&mut fields)).collect::<Result<_, _>>()?;
        let length = fields.take()?;
        let text = fields.take_some(length.div_ceil(8))?;
        let bytes: Vec<u8> = text.iter().flat_map(|word| word.to_le_bytes()).collect();
        let text = bytes.get(..usize::try_from(length).map_err(|_| Damaged)?).ok_or(Damaged)?;
        let config = String::from_utf8(text.to_vec()).map_err(|_| Damaged)?;
        fields.end()?;
        let inheritance =
            Inheritance { ending, seen, trips, generation, latch, motors, evidence, events, died };
        Ok(Self { config, pid, started, inheritance })
    }
}

/// Reads what one motor takes over.
fn read_motor(fields: &mut Fields<'_>) -> Result<Option<Inherited>, Damaged> {
    let latch = fields.take()?;
    let (trip, reason, violations) = (TripId(fields.take()?), fields.take()?, fields.take()?);
    let latch = match latch {
        0 => return Ok(None),
        open if open == 1 + Latch::Open as u64 => Latch::Open,
        held if held == 1 + Latch::Held as u64 => Latch::Held,
        _ => return Err(Damaged),
    };
    let reason = Reason::from_number(reason).ok_or(Damaged)?;
    Ok(Some(Inherited { trip, reason, latch, violations }))
}

#[cfg(test)]
mod tests {
    use shm_proto::verdicts::EventKind;

    use super::*;

    /// Fails if anything that a core began with is read as another than it was, or a changed bit is not seen.
    #[test]
    fn a_header_is_read_as_it_was_written_or_not_at_all() {
        let held = Inherited { trip: TripId(5), reason: Reason::Expired, latch: Latch::Held, violations: 2 };
        let open = Inherited { latch: Latch::Open, ..held };
        let inheritance = Inheritance {
            ending: Predecessor::Died,
            seen: Nanos(9),
            trips: TripId(8),
            generation: Generation(4),
            latch: TripId(6),
            motors: vec![Some(held), None, Some(open)],
            evidence: vec![PastEvidence { standstill: Nanos(1), feedback: Nanos(2) }; 3],
            events: vec![Event { trip: TripId(5), ..Event::new(EventKind::Trip, Nanos(3)) }],
            died: Some(TripId(7)),
        };
        let header = Header { config: "[[bus]] # é".to_owned(), pid: 42, started: Nanos(77), inheritance };
        let (bytes, sum) = header.to_bytes();
        let words = |bytes: &[u8]| -> Vec<u64> {
            bytes.chunks(8).map(|word| u64::from_le_bytes(word.try_into().expect("whole words"))).collect()
        };
        let mut written = words(&bytes);
        written.push(123);
        assert_eq!(Header::read(&written), Ok((header, &[123][..], sum)));
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::read(&words(&changed)).is_err(), "bit {bit}");
        }
        for cut in 0..written.len() - 1 {
            assert!(Header::read(&written[..cut]).is_err(), "{cut} words");
        }
    }
}
