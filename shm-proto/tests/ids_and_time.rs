//! Identities fit their words, and time saturates instead of wrapping.

use proptest::prelude::*;
use shm_proto::layout::{BeatLayout, RING_RECORDS};
use shm_proto::{Capacity, Incarnation, MotorIndex, Nanos, Owner, SessionId, SlotIndex, TripId, Window};

const MOST: u64 = (1 << 48) - 1;

#[test]
fn incarnations_wrap_to_nobodys() {
    assert_eq!(Incarnation::new(MOST).get(), MOST);
    assert_eq!(Incarnation::new(MOST).next(), Incarnation::NONE);
    assert_eq!(Incarnation::new(MOST + 2).get(), 1);
    assert_eq!(Incarnation::new(u64::MAX).get(), MOST);
    assert_eq!(Incarnation::NONE.next().get(), 1);
}

#[test]
fn a_word_without_incarnation_is_nobodys() {
    assert_eq!(Owner::from_word(Owner::NOBODY), None);
    for slot in [0, 1, 1024, u16::MAX] {
        let nobody = Owner { slot: SlotIndex(slot), incarnation: Incarnation::NONE };
        assert_eq!(Owner::from_word(nobody.to_word()), None, "slot {slot}");
    }
    let first = Owner { slot: SlotIndex(0), incarnation: Incarnation::new(1) };
    assert_ne!(first.to_word(), Owner::NOBODY);
}

proptest! {
    #[test]
    fn an_owner_survives_its_word(slot in any::<u16>(), number in 1..=MOST) {
        let owner = Owner { slot: SlotIndex(slot), incarnation: Incarnation::new(number) };
        prop_assert_eq!(Owner::from_word(owner.to_word()), Some(owner));
    }

    #[test]
    fn a_word_survives_its_owner(word in any::<u64>()) {
        let back = Owner::from_word(word).map(Owner::to_word);
        prop_assert_eq!(back, (word & MOST != 0).then_some(word));
    }

    #[test]
    fn time_agrees_with_wide_arithmetic(a in any::<u64>(), b in any::<u64>()) {
        let sum = (u128::from(a) + u128::from(b)).min(u128::from(u64::MAX));
        prop_assert_eq!(u128::from(Nanos(a).after(b).0), sum);
        prop_assert_eq!(u128::from(Nanos(a).since(Nanos(b))), u128::from(a).saturating_sub(u128::from(b)));
        let millis = (u128::from(a) * 1_000_000).min(u128::from(u64::MAX));
        prop_assert_eq!(u128::from(Window::from_millis(a).0), millis);
        prop_assert_eq!(Window(a).as_millis(), a / 1_000_000);
    }
}

#[test]
fn time_saturates_at_both_ends() {
    assert_eq!(Nanos::NEVER.after(1), Nanos::NEVER);
    assert_eq!(Nanos(1).after(u64::MAX), Nanos::NEVER);
    assert_eq!(Nanos::ZERO.since(Nanos(1)), 0);
    assert_eq!(Nanos::NEVER.since(Nanos::ZERO), u64::MAX);
    assert_eq!(Window::from_millis(u64::MAX).0, u64::MAX);
}

#[test]
fn the_clock_is_the_one_that_runs_on_during_sleep() {
    let boot = || {
        let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).expect("clock");
        u64::try_from(time.tv_sec()).expect("seconds") * 1_000_000_000
            + u64::try_from(time.tv_nsec()).expect("nanoseconds")
    };
    let (before, now, after) = (boot(), Nanos::now().0, boot());
    assert!(before <= now && now <= after, "{before} {now} {after}");
}

#[test]
fn a_session_prints_as_a_uuid() {
    let session = SessionId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
    assert_eq!(session.to_string(), "00112233-4455-6677-8899-aabbccddeeff");
    assert_eq!(SessionId(1).to_string(), "00000000-0000-0000-0000-000000000001");
    assert_eq!(SessionId(u128::MAX).to_string(), "ffffffff-ffff-ffff-ffff-ffffffffffff");
    assert_eq!(TripId(17).to_string(), "17");
}

#[test]
fn capacities_have_bounds() {
    for (sessions, motors, fits) in [
        (1, 1, true),
        (Capacity::MOST_SESSIONS, Capacity::MOST_MOTORS, true),
        (0, 1, false),
        (1, 0, false),
        (Capacity::MOST_SESSIONS + 1, 1, false),
        (1, Capacity::MOST_MOTORS + 1, false),
        (u16::MAX, u16::MAX, false),
    ] {
        assert_eq!(Capacity::new(sessions, motors).is_some(), fits, "{sessions} x {motors}");
    }
    let capacity = Capacity::new(3, 2).expect("capacity");
    assert!(capacity.has_slot(SlotIndex(2)) && !capacity.has_slot(SlotIndex(3)));
    assert!(capacity.has_motor(MotorIndex(1)) && !capacity.has_motor(MotorIndex(2)));
    assert_eq!(capacity.slots().count(), 3);
}

#[test]
fn no_two_places_of_the_beat_segment_overlap() {
    let most = Capacity::new(Capacity::MOST_SESSIONS, Capacity::MOST_MOTORS).expect("capacity");
    let least = Capacity::new(1, 1).expect("capacity");
    let odd = Capacity::new(7, 255).expect("capacity");
    for capacity in [least, odd, Capacity::DEFAULT, most] {
        let layout = BeatLayout::new(capacity);
        let mut taken = vec![false; layout.words()];
        let mut take = |what: &str, from: usize, words: usize| {
            let places = &mut taken[from..from + words];
            assert!(!places.contains(&true), "{what} overlaps at word {from} of {capacity:?}");
            places.fill(true);
        };
        take("header", 0, shm_proto::layout::HEADER_WORDS);
        for slot in (0..=capacity.sessions()).map(SlotIndex) {
            take("change word", layout.change(slot), 1);
            for counter in 0..RING_RECORDS as u64 {
                let place = layout.record(slot, counter);
                assert_eq!(place % 8, 0, "a record is one cache line");
                assert_eq!(place, layout.record(slot, counter + RING_RECORDS as u64));
                take("record", place, shm_proto::layout::RECORD_WORDS);
            }
        }
        for motor in (0..capacity.motors()).map(MotorIndex) {
            take("owner word", layout.owner(motor), 1);
        }
    }
}
