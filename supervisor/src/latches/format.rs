//! The bytes of the file: words of 64 bits, least significant byte first, and a checksum.
//!
//! | word | what |
//! |---|---|
//! | 0 | `LNYDHELD` |
//! | 1 | version |
//! | 2 | number of held motors |
//! | 3 | the last trip's number when it was written |
//! | 4 | no trip had or has a higher number than this until the next file is written |
//! | 5 | the operator's stop that holds everything, 0: none |
//! | six for each held motor | its name in four words, its trip, the number of its reason |
//! | last | CRC-32C over all words before |
//!
//! Whatever is not exactly this is refused as a whole: of a file that is damaged nothing says which latch is missing.

use std::fmt;

use shm_proto::TripId;
use shm_proto::crc::Crc;
use shm_proto::verdicts::{NAME_BYTES, Reason};

/// The first word.
const MAGIC: u64 = u64::from_le_bytes(*b"LNYDHELD");
/// The second word; another one is another format.
const VERSION: u64 = 1;
/// Words before the first motor.
const HEAD_WORDS: usize = 6;
/// Words of a name.
const NAME_WORDS: usize = NAME_BYTES / 8;
/// Words of a motor.
const MOTOR_WORDS: usize = NAME_WORDS + 2;
/// Trip numbers above this are damage: nobody counts so far (`shm_proto::verdicts::Remains` refuses the same).
const MOST_COUNTED: u64 = 1 << 53;
/// Held motors a file has at most: every motor there can be, and as many that went out of the configuration, and as
/// many again. What is larger is not read.
const MOST_HELD: usize = 1024;
/// Bytes of the largest file.
pub(super) const MOST_BYTES: usize = (HEAD_WORDS + MOST_HELD * MOTOR_WORDS + 1) * 8;

/// A motor that waits for a reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldMotor {
    /// Its name: its place may be another's by the next start.
    pub name: String,
    /// The trip that holds it.
    pub trip: TripId,
    /// Why.
    pub reason: Reason,
}

/// Everything that waits for a reset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latches {
    /// The last trip's number.
    pub last: TripId,
    /// No trip gets a higher number before the next file is written.
    pub reserved: TripId,
    /// The operator's stop that holds everything.
    pub stop: TripId,
    /// The motors that are held, each by its own trip.
    pub held: Vec<HeldMotor>,
}

/// Why a file is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It has not the length that it says it has, or another checksum than its words.
    Damaged,
    /// It was written by another version of the supervisor.
    OtherVersion(u64),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged => write!(f, "it is damaged"),
            Self::OtherVersion(version) => {
                write!(f, "it is of format {version}, this supervisor knows {VERSION}")
            }
        }
    }
}

impl Latches {
    /// The file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let held = &self.held[..self.held.len().min(MOST_HELD)];
        let mut words = vec![MAGIC, VERSION, held.len() as u64, self.last.0, self.reserved.0, self.stop.0];
        for HeldMotor { name, trip, reason } in held {
            words.extend(name_words(name));
            words.extend([trip.0, reason.number()]);
        }
        words.push(checksum(&words));
        words.into_iter().flat_map(u64::to_le_bytes).collect()
    }

    /// What a file says.
    ///
    /// # Errors
    ///
    /// When it is not whole, or of another version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Unreadable> {
        let (chunks, rest) = bytes.as_chunks::<8>();
        let words: Vec<u64> = chunks.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect();
        let Some((sum, words)) = words.split_last() else { return Err(Unreadable::Damaged) };
        if !rest.is_empty() || checksum(words) != *sum {
            return Err(Unreadable::Damaged);
        }
        let [MAGIC, version, count, last, reserved, stop, ref motors @ ..] = *words else {
            return Err(Unreadable::Damaged);
        };
        if version != VERSION {
            return Err(Unreadable::OtherVersion(version));
        }
        let (motors, rest) = motors.as_chunks::<MOTOR_WORDS>();
        if !rest.is_empty() || motors.len() as u64 != count {
            return Err(Unreadable::Damaged);
        }
        let held = motors.iter().map(held_motor).collect::<Option<Vec<_>>>().ok_or(Unreadable::Damaged)?;
        let latches = Self { last: TripId(last), reserved: TripId(reserved), stop: TripId(stop), held };
        let highest =
            latches.held.iter().map(|held| held.trip).chain([latches.stop]).max().unwrap_or_default();
        let adds_up = highest <= latches.last && last <= reserved && reserved <= MOST_COUNTED;
        if adds_up { Ok(latches) } else { Err(Unreadable::Damaged) }
    }

    /// Whether a file with `self` holds whatever `now` holds, by the same trips, and no more.
    #[must_use]
    pub fn hold_the_same_as(&self, now: &Self) -> bool {
        (self.stop, &self.held) == (now.stop, &now.held)
    }
}

fn held_motor(words: &[u64; MOTOR_WORDS]) -> Option<HeldMotor> {
    let (name, rest) = words.split_at(NAME_WORDS);
    let [trip, reason] = *rest else { return None };
    let bytes: Vec<u8> = name.iter().flat_map(|word| word.to_le_bytes()).collect();
    let name = String::from_utf8(bytes.into_iter().take_while(|byte| *byte != 0).collect()).ok()?;
    // Of a reason that this version does not know the trip counts all the same.
    let reason = Reason::from_number(reason).unwrap_or(Reason::LatchesLost);
    (trip != 0).then_some(HeldMotor { name, trip: TripId(trip), reason })
}

fn name_words(name: &str) -> [u64; NAME_WORDS] {
    let mut bytes = name.bytes();
    std::array::from_fn(|_| u64::from_le_bytes(std::array::from_fn(|_| bytes.next().unwrap_or(0))))
}

fn checksum(words: &[u64]) -> u64 {
    u64::from(words.iter().fold(Crc::START, |crc, word| crc.word(*word)).finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Latches {
        let motor =
            |name: &str, trip, reason| HeldMotor { name: name.to_owned(), trip: TripId(trip), reason };
        Latches {
            last: TripId(9),
            reserved: TripId(25),
            stop: TripId(7),
            held: vec![
                motor("left", 7, Reason::OperatorStop),
                motor("a name of exactly thirty-two byt", 8, Reason::Expired),
                motor("Schulter \u{e4}", 9, Reason::LatchesLost),
            ],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let most = HeldMotor { name: "m".to_owned(), trip: TripId(1), reason: Reason::Closed };
        let large = Latches { last: TripId(1), reserved: TripId(1), held: vec![most; MOST_HELD], ..full() };
        let large = Latches { stop: TripId::NONE, ..large };
        for latches in [Latches::default(), full(), large] {
            let bytes = latches.to_bytes();
            assert!(bytes.len() <= MOST_BYTES);
            assert_eq!(Latches::from_bytes(&bytes), Ok(latches));
        }
    }

    /// Fails if the format is another one under the same version: a file of yesterday would be damage today.
    #[test]
    fn the_bytes_of_version_1() {
        let one = HeldMotor { name: "left".to_owned(), trip: TripId(7), reason: Reason::OperatorStop };
        let latches = Latches { last: TripId(7), reserved: TripId(23), stop: TripId(7), held: vec![one] };
        let words: [u64; 13] = [
            MAGIC,
            1,
            1,
            7,
            23,
            7,
            u64::from_le_bytes(*b"left\0\0\0\0"),
            0,
            0,
            0,
            7,
            7,
            u64::from(crc32(&latches.to_bytes()[..12 * 8])),
        ];
        assert_eq!(latches.to_bytes(), words.map(u64::to_le_bytes).concat());
        assert_eq!(&latches.to_bytes()[..8], b"LNYDHELD");
    }

    /// CRC-32C bit by bit, as the standard has it.
    fn crc32(bytes: &[u8]) -> u32 {
        let step = |sum: u32| if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
        !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum)))
    }

    #[test]
    fn no_cut_and_no_flipped_bit_is_believed() {
        for latches in [Latches::default(), full()] {
            let whole = latches.to_bytes();
            for length in 0..whole.len() {
                assert!(Latches::from_bytes(&whole[..length]).is_err(), "{length} bytes");
            }
            for bit in 0..whole.len() * 8 {
                let mut flipped = whole.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(Latches::from_bytes(&flipped).is_err(), "bit {bit}");
            }
            for more in 1..=16 {
                let longer = [whole.clone(), vec![0; more]].concat();
                assert!(Latches::from_bytes(&longer).is_err(), "{more} bytes more");
            }
        }
        assert!(Latches::from_bytes(&[0; 512]).is_err(), "zeros, as a file system may leave them");
    }

    /// Fails if what no supervisor can have written is believed because its checksum is right.
    #[test]
    fn what_does_not_add_up_is_not_believed() {
        type Change = fn(&mut Vec<u64>);
        let cases: [(&str, Change); 7] = [
            ("another magic", |words| words[0] ^= 1 << 40),
            ("fewer motors than it says", |words| words[2] += 1),
            ("a trip above the last", |words| words[3] = 6),
            ("a last above the reserved", |words| words[4] = 5),
            ("more than anybody counts", |words| words[4] = MOST_COUNTED + 1),
            ("a motor held by no trip", |words| words[HEAD_WORDS + NAME_WORDS] = 0),
            ("a name that is no text", |words| words[HEAD_WORDS] = 0xff),
        ];
        let sealed = |words: &[u64]| {
            let words = [words, &[checksum(words)]].concat();
            words.into_iter().flat_map(u64::to_le_bytes).collect::<Vec<u8>>()
        };
        let (whole, _) = full().to_bytes().as_chunks::<8>().0.split_last().map_or_else(
            || unreachable!("there are words"),
            |(sum, words)| (words.iter().map(|word| u64::from_le_bytes(*word)).collect::<Vec<_>>(), *sum),
        );
        assert_eq!(Latches::from_bytes(&sealed(&whole)), Ok(full()));
        for (what, change) in cases {
            let mut words = whole.clone();
            change(&mut words);
            assert_eq!(Latches::from_bytes(&sealed(&words)), Err(Unreadable::Damaged), "{what}");
        }
        let mut words = whole;
        words[1] = 2;
        assert_eq!(Latches::from_bytes(&sealed(&words)), Err(Unreadable::OtherVersion(2)));
    }
}
