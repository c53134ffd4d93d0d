//! A bus as the motors on it share it: frames that command several motors carry the newest part of each.
//!
//! Such a frame commands all its motors, whoever sends it. A motor's own part is what it was just told; the
//! parts of the others are what they were told last, as long as their grants hold, and zeros after that: a
//! motor that nobody may move is told nothing by the commands of its neighbours.

use std::sync::{Arc, Mutex, PoisonError};

use drivers::{Format, Frame, Slot};

use super::grant::Permit;
use super::wire::{SendError, Wire};

/// A session's claim to a motor, to be asked again and again.
pub trait Claim: Clone {
    /// Whether the motor may be moved right now.
    fn holds(&self) -> bool;
}

impl Claim for Permit {
    fn holds(&self) -> bool {
        Self::holds(self)
    }
}

/// What one motor was told last.
#[derive(Debug)]
struct Part<C> {
    slot: Slot,
    frame: Frame,
    claim: C,
}

/// The parts of all frames of one bus that command several motors.
#[derive(Debug)]
struct Mixer<C> {
    parts: Vec<Part<C>>,
}

impl<C: Claim> Mixer<C> {
    /// `frame` with its motor's own part, if that has a claim, and those of the others. Without a claim the
    /// motor's part is forgotten, and goes out as the frame has it: that is a stop.
    fn mix(&mut self, slot: Slot, frame: &Frame, claim: Option<&C>) -> Frame {
        self.parts.retain(|part| part.slot != slot);
        let mut mixed = *frame;
        if let Some(claim) = claim {
            self.parts.push(Part { slot, frame: *frame, claim: claim.clone() });
            mixed = slot.overlay(&mixed, &Frame::classic(slot.id, &[0; 8][..frame.payload().len().min(8)]));
        }
        self.forget_lost();
        self.parts.iter().fold(mixed, |mixed, part| part.slot.overlay(&mixed, &part.frame))
    }

    /// Forgets the parts of motors whose grants are gone; says whether there were any.
    fn forget_lost(&mut self) -> bool {
        let before = self.parts.len();
        self.parts.retain(|part| part.claim.holds());
        self.parts.len() < before
    }
}

/// One bus, for all motors on it.
pub struct Line {
    wire: Arc<dyn Wire>,
    /// Locked while a frame is handed over, which never waits: an older mixture must not overtake a newer
    /// one.
    mixer: Mutex<Mixer<Permit>>,
}

impl Line {
    /// The motors on `wire`.
    pub fn new(wire: Arc<dyn Wire>) -> Arc<Self> {
        Arc::new(Self { wire, mixer: Mutex::new(Mixer { parts: Vec::new() }) })
    }

    /// Hands over a motor's frame. `permit` is the claim it is sent under; without one it is a stop.
    ///
    /// # Errors
    ///
    /// When it was not taken.
    pub fn send(&self, frame: &Frame, slot: Option<Slot>, permit: Option<&Permit>) -> Result<(), SendError> {
        let is_joint = |slot: &Slot| slot.id == frame.id() && frame.format() == Format::Classic;
        match slot.filter(is_joint) {
            None => self.wire.send(frame),
            Some(slot) => {
                let mut mixer = self.mixer.lock().unwrap_or_else(PoisonError::into_inner);
                send_mixed(&mut mixer, self.wire.as_ref(), slot, frame, permit)
            }
        }
    }
}

/// Sends the mixture, and again without the parts whose grants have gone meanwhile: what went out may have
/// come after the supervisor's stop of those motors.
fn send_mixed<C: Claim>(
    mixer: &mut Mixer<C>,
    wire: &dyn Wire,
    slot: Slot,
    frame: &Frame,
    claim: Option<&C>,
) -> Result<(), SendError> {
    let mixed = mixer.mix(slot, frame, claim);
    let sent = wire.send(&mixed);
    if mixer.forget_lost() {
        let corrected = wire.send(&mixer.mix(slot, frame, claim));
        return sent.and(corrected);
    }
    sent
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use drivers::ArbitrationId;

    use super::*;

    /// A claim that ends when told to.
    #[derive(Clone, Debug)]
    struct Flag(Arc<AtomicBool>);

    impl Flag {
        fn held() -> Self {
            Self(Arc::new(AtomicBool::new(true)))
        }

        fn lose(&self) {
            self.0.store(false, Ordering::Relaxed);
        }
    }

    impl Claim for Flag {
        fn holds(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// Writes down what is sent; may take a claim away in the middle of it.
    #[derive(Default)]
    struct Record {
        sent: Mutex<Vec<String>>,
        loses: Mutex<Option<Flag>>,
    }

    impl Wire for Record {
        fn send(&self, frame: &Frame) -> Result<(), SendError> {
            self.sent.lock().unwrap_or_else(PoisonError::into_inner).push(frame.to_string());
            if let Some(flag) = self.loses.lock().unwrap_or_else(PoisonError::into_inner).take() {
                flag.lose();
            }
            Ok(())
        }
    }

    impl Record {
        fn take(&self) -> Vec<String> {
            std::mem::take(&mut *self.sent.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }

    const FRAME: ArbitrationId = ArbitrationId::Standard(0x200);

    fn slot(place: usize) -> Slot {
        Slot::of_bytes(FRAME, 2 * place, 2)
    }

    /// A frame with this in the part of `place`, and zeros.
    fn part(place: usize, value: u16) -> Frame {
        let mut payload = [0; 8];
        payload[2 * place..2 * place + 2].copy_from_slice(&value.to_be_bytes());
        Frame::classic(FRAME, &payload)
    }

    fn send(
        mixer: &mut Mixer<Flag>,
        record: &Record,
        place: usize,
        value: u16,
        claim: Option<&Flag>,
    ) -> Vec<String> {
        send_mixed(mixer, record, slot(place), &part(place, value), claim).expect("it is taken");
        record.take()
    }

    #[test]
    fn a_frame_carries_what_all_its_motors_were_told_last() {
        let (mut mixer, record) = (Mixer { parts: Vec::new() }, Record::default());
        let (one, two) = (Flag::held(), Flag::held());
        assert_eq!(send(&mut mixer, &record, 0, 0x1111, Some(&one)), ["200#1111000000000000"]);
        assert_eq!(send(&mut mixer, &record, 2, 0x3333, Some(&two)), ["200#1111000033330000"]);
        assert_eq!(send(&mut mixer, &record, 0, 0x2222, Some(&one)), ["200#2222000033330000"]);
        assert_eq!(send(&mut mixer, &record, 2, 0, Some(&two)), ["200#2222000000000000"]);
    }

    #[test]
    fn a_stop_of_one_motor_is_none_of_the_others() {
        let (mut mixer, record) = (Mixer { parts: Vec::new() }, Record::default());
        let (one, two) = (Flag::held(), Flag::held());
        send(&mut mixer, &record, 0, 0x1111, Some(&one));
        send(&mut mixer, &record, 3, 0x4444, Some(&two));
        assert_eq!(send(&mut mixer, &record, 0, 0, None), ["200#0000000000004444"]);
        assert_eq!(send(&mut mixer, &record, 3, 0x4445, Some(&two)), ["200#0000000000004445"]);
    }

    #[test]
    fn a_motor_whose_grant_is_gone_gets_zeros() {
        let (mut mixer, record) = (Mixer { parts: Vec::new() }, Record::default());
        let (one, two) = (Flag::held(), Flag::held());
        send(&mut mixer, &record, 0, 0x1111, Some(&one));
        one.lose();
        assert_eq!(send(&mut mixer, &record, 1, 0x2222, Some(&two)), ["200#0000222200000000"]);
        // Not even its own command gets its part through.
        assert_eq!(send(&mut mixer, &record, 0, 0x1111, Some(&one)), ["200#0000222200000000"]);
        assert_eq!(mixer.parts.len(), 1, "a claim that is gone is not kept");
    }

    #[test]
    fn a_grant_that_goes_while_the_frame_goes_out_is_made_good() {
        let (mut mixer, record) = (Mixer { parts: Vec::new() }, Record::default());
        let (one, two) = (Flag::held(), Flag::held());
        send(&mut mixer, &record, 0, 0x1111, Some(&one));
        *record.loses.lock().unwrap_or_else(PoisonError::into_inner) = Some(one);
        let sent = send(&mut mixer, &record, 1, 0x2222, Some(&two));
        assert_eq!(sent, ["200#1111222200000000", "200#0000222200000000"]);
    }

    #[test]
    fn frames_of_one_id_are_not_those_of_another() {
        let (mut mixer, record) = (Mixer { parts: Vec::new() }, Record::default());
        let (one, two) = (Flag::held(), Flag::held());
        send(&mut mixer, &record, 0, 0x1111, Some(&one));
        let other = Slot::of_bytes(ArbitrationId::Standard(0x1FF), 0, 2);
        let frame = Frame::classic(other.id, &[0x55, 0x55, 0, 0, 0, 0, 0, 0]);
        send_mixed(&mut mixer, &record, other, &frame, Some(&two)).expect("it is taken");
        assert_eq!(record.take(), ["1FF#5555000000000000"]);
    }
}
