//! Whatever a front writes into the beat segment: no panic, no endless look, no deadline too far.

mod common;

use core::sync::atomic::Ordering::Relaxed;

use common::{LONGEST, NOW, RING, Rig, SESSION, SHORTEST, WINDOW, signed, vacant, words};
use proptest::prelude::*;
use shm_proto::beat::{Bound, Context, RawBeat, Word};
use shm_proto::beats::{Look, SlotReader};
use shm_proto::layout::RECORD_WORDS;
use shm_proto::{Incarnation, MotorIndex, Nanos, SlotIndex};

const SESSIONS: u16 = 2;
const MOTORS: u16 = 2;

/// One thing a hostile front does.
#[derive(Clone, Debug)]
enum Deed {
    /// Any word anywhere.
    Poke { place: usize, word: u64 },
    /// A record with a checksum that fits, at the place of any counter, with any sequence word.
    Record { slot: u16, at: u64, sequence: u64, raw: RawBeat },
    /// The whole segment full of noise.
    Noise { seed: u64 },
    /// The supervisor looks.
    Look { slot: u16, how: Look, later: u64 },
}

fn counter() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..200, (0_u64..130).prop_map(|back| u64::MAX - back), any::<u64>()]
}

fn window() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => Just(WINDOW.0), 1 => Just(SHORTEST.0), 1 => Just(LONGEST.0), 1 => Just(LONGEST.0 + 1),
        1 => any::<u64>(),
    ]
}

fn timestamp() -> impl Strategy<Value = u64> {
    prop_oneof![4 => NOW.0 - 2_000_000_000..NOW.0 + 1_000_000_000, 1 => any::<u64>()]
}

fn incarnation_and_flags() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (1_u64..5, 0_u64..2).prop_map(|(incarnation, flags)| incarnation << 16 | flags),
        1 => (1_u64..5, 0_u64..256).prop_map(|(incarnation, ending)| incarnation << 16 | ending << 8 | 1),
        1 => any::<u64>(),
    ]
}

prop_compose! {
    fn record()(
        slot in 0..=SESSIONS, counter in counter(), other_place in proptest::option::weighted(0.1, 0..RING),
        other_sequence in proptest::option::weighted(0.2, any::<u64>()), odd_session in any::<u128>(),
        sane in proptest::bool::weighted(0.9), window in window(), timestamp in timestamp(),
        tag in incarnation_and_flags(),
    ) -> Deed {
        let session = if sane { SESSION.0 } else { odd_session };
        let raw = RawBeat { counter, session, window, timestamp, tag, crc: 0 };
        Deed::Record {
            slot,
            at: other_place.unwrap_or(counter),
            sequence: other_sequence.unwrap_or(counter.wrapping_mul(2)),
            raw: signed(raw, SlotIndex(slot)),
        }
    }
}

fn deed(words: usize) -> impl Strategy<Value = Deed> {
    let how = prop_oneof![Just(Look::Onward), Just(Look::Everywhere)];
    prop_oneof![
        6 => record(),
        3 => (0..words, any::<u64>()).prop_map(|(place, word)| Deed::Poke { place, word }),
        1 => any::<u64>().prop_map(|seed| Deed::Noise { seed }),
        5 => (0..=SESSIONS, how, 0_u64..50_000_000)
            .prop_map(|(slot, how, later)| Deed::Look { slot, how, later }),
    ]
}

/// What the supervisor keeps about a slot.
#[derive(Clone, Copy, Default)]
struct Memory {
    reader: SlotReader,
    bound: Option<Bound>,
    newest: Incarnation,
    counter: u64,
}

/// Looks as the supervisor does and checks all that must hold whatever was written.
fn look(rig: &Rig, slot: SlotIndex, how: Look, now: Nanos, memory: &mut Memory) {
    let Memory { bound, newest, .. } = *memory;
    let context = Context { now, bound, newest, ..vacant(slot) };
    let found = rig.look(&mut memory.reader, how, &context);
    for beat in found.into_iter().flatten() {
        assert!(beat.counter > memory.counter, "{beat:?} after counter {}", memory.counter);
        assert!(beat.incarnation >= memory.newest, "{beat:?} after {:?}", memory.newest);
        let alive = memory.bound.is_some_and(|bound| bound.incarnation == beat.incarnation);
        assert!(alive || beat.incarnation > memory.newest, "{beat:?} came back");
        assert!(beat.at <= now && beat.window >= SHORTEST && beat.window <= LONGEST, "{beat:?}");
        assert!(beat.deadline() <= now.after(LONGEST.0), "{beat:?}");
        memory.counter = beat.counter;
        memory.newest = beat.incarnation;
        memory.bound = (beat.word == Word::Alive).then_some(Bound {
            session: beat.session,
            incarnation: beat.incarnation,
            window: beat.window,
        });
    }
    for motor in 0..=MOTORS {
        let _ = (rig.view.owner_word(MotorIndex(motor)), rig.beats.owner(MotorIndex(motor)));
    }
    memory.reader.changed(&rig.view, slot);
}

fn noise(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }
}

fn segment_words() -> usize {
    let capacity = shm_proto::Capacity::new(SESSIONS, MOTORS).expect("capacity");
    shm_proto::layout::BeatLayout::new(capacity).words()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn no_content_does_harm(deeds in proptest::collection::vec(deed(segment_words()), 1..120)) {
        let rig = Rig::new(SESSIONS, MOTORS);
        let mut memories = [Memory::default(); SESSIONS as usize + 1];
        let mut now = NOW;
        for deed in deeds {
            match deed {
                Deed::Poke { place, word } => rig.wild.store(place, word, Relaxed),
                Deed::Record { slot, at, sequence, raw } => {
                    let place = rig.place(SlotIndex(slot), at);
                    rig.wild.store(place, sequence, Relaxed);
                    for (offset, word) in words(&raw).into_iter().enumerate() {
                        rig.wild.store(place + 1 + offset, word, Relaxed);
                    }
                }
                Deed::Noise { seed } => {
                    let mut next = noise(seed);
                    for place in 0..rig.wild.words() {
                        rig.wild.store(place, next(), Relaxed);
                    }
                }
                Deed::Look { slot, how, later } => {
                    now = now.after(later);
                    look(&rig, SlotIndex(slot), how, now, &mut memories[usize::from(slot)]);
                }
            }
        }
        for (slot, memory) in (0..).map(SlotIndex).zip(&mut memories) {
            look(&rig, slot, Look::Everywhere, now, memory);
        }
    }

    #[test]
    fn a_lie_about_the_time_gains_nothing(timestamp in any::<u64>(), window in window()) {
        let rig = Rig::new(SESSIONS, MOTORS);
        let slot = SlotIndex(0);
        let raw = RawBeat { counter: 1, session: SESSION.0, window, timestamp, tag: 1 << 16, crc: 0 };
        rig.beats.writer(slot).expect("slot").write_raw(&signed(raw, slot));
        for found in rig.look(&mut SlotReader::default(), Look::Everywhere, &vacant(slot)) {
            if let Ok(beat) = found {
                prop_assert!(beat.deadline().0 <= timestamp.min(NOW.0) + window);
            } else {
                prop_assert!(timestamp > NOW.0 || !(SHORTEST.0..=LONGEST.0).contains(&window));
            }
        }
    }
}

#[test]
fn segments_of_equal_words_do_no_harm() {
    let alternating = 0xaaaa_aaaa_aaaa_aaaa;
    for word in [0, 1, 2, u64::MAX, u64::MAX - 1, alternating, !alternating, NOW.0, 1 << 63] {
        let rig = Rig::new(SESSIONS, MOTORS);
        for place in 0..rig.wild.words() {
            rig.wild.store(place, word, Relaxed);
        }
        for slot in (0..=SESSIONS).map(SlotIndex) {
            let mut reader = SlotReader::default();
            for how in [Look::Onward, Look::Everywhere, Look::Everywhere] {
                let found = rig.look(&mut reader, how, &vacant(slot));
                assert!(found.iter().all(Result::is_err), "{word:x}: {found:?}");
            }
        }
    }
}

#[test]
fn the_reader_touches_nothing_outside_the_ring_of_its_slot() {
    let rig = Rig::new(SESSIONS, MOTORS);
    let slot = SlotIndex(1);
    let own = rig.place(slot, 0)..rig.place(slot, 0) + RECORD_WORDS * 64;
    for place in (0..rig.wild.words()).filter(|place| !own.contains(place)) {
        rig.wild.store(place, u64::MAX, Relaxed);
    }
    assert_eq!(rig.look(&mut SlotReader::default(), Look::Everywhere, &vacant(slot)), []);
}
