//! One ring, one writer, one reader: what is found, in which order, and what stops a look.

mod common;

use core::sync::atomic::Ordering::Relaxed;
use std::os::fd::AsFd;

use common::{
    GENERATION, NOW, RING, Rig, SESSION, WINDOW, bound, counters, honest, rejects, signed, vacant, words,
};
use proptest::prelude::*;
use shm_proto::beat::{Context, RawBeat, Reject, Word};
use shm_proto::beats::{BeatView, BeatWriter, Look, SlotReader};
use shm_proto::layout::{MAGIC, RING_RECORDS, layout_hash};
use shm_proto::{Ending, Generation, Incarnation, MotorIndex, Nanos, Owner, SessionId, SlotIndex, Window};

const SLOT: SlotIndex = SlotIndex(0);
const OTHER: SlotIndex = SlotIndex(1);

/// A rig, and a writer with `beats` beats of the first incarnation behind it, all signed and in time.
fn beaten(beats: u64) -> (Rig, BeatWriter) {
    let rig = Rig::new(2, 2);
    let mut writer = rig.beats.writer(SLOT).expect("slot");
    play(&mut writer, 1..=beats);
    (rig, writer)
}

/// Writes those beats of the first incarnation, as honest as their counters.
fn play(writer: &mut BeatWriter, counters: impl IntoIterator<Item = u64>) {
    for counter in counters {
        let slot = writer.slot();
        writer.write_raw(&signed(honest(counter, 1), slot));
    }
}

/// A reader that has accepted everything so far.
fn caught_up(rig: &Rig) -> SlotReader {
    let mut reader = SlotReader::default();
    let found = rig.look(&mut reader, Look::Everywhere, &vacant(SLOT));
    assert_eq!(rejects(&found), []);
    reader
}

#[test]
fn beats_come_in_order_and_once() {
    let (rig, mut writer) = beaten(3);
    let mut reader = SlotReader::default();
    let context = bound(SLOT, 1);
    assert_eq!(counters(&rig.look(&mut reader, Look::Onward, &context)), [1, 2, 3]);
    assert_eq!(rig.look(&mut reader, Look::Onward, &context), []);
    assert_eq!(rig.look(&mut reader, Look::Everywhere, &context), []);
    play(&mut writer, [4]);
    assert_eq!(counters(&rig.look(&mut reader, Look::Onward, &context)), [4]);
}

#[test]
fn an_empty_ring_is_no_news() {
    let rig = Rig::new(2, 2);
    for how in [Look::Onward, Look::Everywhere] {
        assert_eq!(rig.look(&mut SlotReader::default(), how, &vacant(SLOT)), []);
    }
}

#[test]
fn the_writer_numbers_signs_and_dates_its_beats() {
    let rig = Rig::new(2, 2);
    let mut writer = rig.beats.writer(SLOT).expect("slot");
    let before = Nanos::now();
    let owner = writer.open(SESSION, WINDOW);
    writer.beat();
    writer.beat_at(Nanos(5));
    writer.close(Ending::Client);
    let after = Nanos::now();
    let found = rig.look(&mut SlotReader::default(), Look::Onward, &Context { now: after, ..vacant(SLOT) });
    let beats: Vec<_> = found.into_iter().map(|one| one.expect("an honest beat")).collect();
    assert_eq!(beats.iter().map(|beat| beat.counter).collect::<Vec<_>>(), [1, 2, 3, 4]);
    for beat in &beats {
        assert_eq!((beat.session, beat.window, beat.incarnation), (SESSION, WINDOW, owner.incarnation));
        assert!(beat.at == Nanos(5) || (before <= beat.at && beat.at <= after), "{beat:?}");
    }
    assert_eq!(beats[2].at, Nanos(5));
    let last_words: Vec<_> = beats.iter().map(|beat| beat.word).collect();
    assert_eq!(last_words, [Word::Alive, Word::Alive, Word::Alive, Word::Close(Ending::Client)]);
}

#[test]
fn the_newest_beat_is_found_however_often_the_ring_was_lapped() {
    for before in 0..=2 * RING + 2 {
        let (rig, mut writer) = beaten(before);
        let reader = caught_up(&rig);
        for newest in before + 1..=before + 200 {
            play(&mut writer, [newest]);
            for how in [Look::Onward, Look::Everywhere] {
                let mut reader = reader;
                let found = rig.look(&mut reader, how, &vacant(SLOT));
                assert_eq!(rejects(&found), [], "{before} then {newest}, {how:?}");
                let counters = counters(&found);
                assert!(counters.is_sorted_by(|a, b| a < b), "{before} then {newest}: {counters:?}");
                assert_eq!(counters.last(), Some(&newest), "{before} then {newest}, {how:?}");
                assert_eq!(rig.look(&mut reader, Look::Everywhere, &vacant(SLOT)), []);
            }
        }
    }
}

#[test]
fn onward_stops_at_a_spoilt_record_and_everywhere_goes_past_it() {
    let (rig, mut writer) = beaten(1);
    let mut reader = caught_up(&rig);
    play(&mut writer, 2..=5);
    rig.spoil(SLOT, 2, 5, 1);
    let context = bound(SLOT, 1);
    assert_eq!(rig.look(&mut reader, Look::Onward, &context), [Err(Reject::Corrupt)]);
    let found = rig.look(&mut reader, Look::Everywhere, &context);
    assert_eq!((rejects(&found), counters(&found)), (vec![Reject::Corrupt], vec![3, 4, 5]));
}

/// Fails if a look onward goes on behind a place without news, which would cost the reader all 64 records for
/// every session on every tick, or if a look everywhere does not.
#[test]
fn onward_stops_at_a_place_without_news_and_everywhere_goes_past_it() {
    let (rig, mut writer) = beaten(RING + 6);
    let reader = caught_up(&rig);
    let context = bound(SLOT, 1);
    // The place of the next beat still holds the one of the lap before.
    play(&mut writer, [RING + 8]);
    assert_eq!(rig.look(&mut reader.clone(), Look::Onward, &context), []);
    assert_eq!(counters(&rig.look(&mut reader.clone(), Look::Everywhere, &context)), [RING + 8]);
    // So does the place behind the next beat.
    let (rig, mut writer) = beaten(RING + 6);
    let reader = caught_up(&rig);
    play(&mut writer, [RING + 7, RING + 9]);
    assert_eq!(counters(&rig.look(&mut reader.clone(), Look::Onward, &context)), [RING + 7]);
    assert_eq!(counters(&rig.look(&mut reader.clone(), Look::Everywhere, &context)), [RING + 7, RING + 9]);
}

#[test]
fn one_good_record_is_found_among_63_spoilt_ones() {
    let (rig, _writer) = beaten(RING);
    for good in 1..=RING {
        for counter in (1..=RING).filter(|counter| *counter != good) {
            rig.spoil(SLOT, counter, 7, 1);
        }
        let found = rig.look(&mut SlotReader::default(), Look::Everywhere, &bound(SLOT, 1));
        assert_eq!(counters(&found), [good]);
        assert_eq!(rejects(&found), [Reject::Corrupt; 63]);
        for counter in (1..=RING).filter(|counter| *counter != good) {
            rig.spoil(SLOT, counter, 7, 1);
        }
    }
}

/// Fails if a beat can hide from the quick look over the ring, in whatever lap and place it lies, and if what was
/// accepted before passes for news.
#[test]
fn a_quick_look_misses_no_beat_and_finds_no_old_one() {
    for beats in 0..=3 * RING {
        let (rig, mut writer) = beaten(beats.saturating_sub(RING - 2));
        let mut reader = caught_up(&rig);
        play(&mut writer, beats.saturating_sub(RING - 2) + 1..=beats);
        let again = caught_up(&rig);
        rig.look(&mut reader, Look::Everywhere, &bound(SLOT, 1));
        for reader in [&reader, &again] {
            assert!(!reader.may_have_news(&rig.view, SLOT), "after {beats} beats");
        }
        for ahead in 1..=RING {
            let newest = rig.raw(SLOT, beats + ahead);
            play(&mut writer, [beats + ahead]);
            assert!(reader.may_have_news(&rig.view, SLOT), "{ahead} after {beats} beats");
            writer.write_raw(&newest);
        }
    }
}

/// Fails if an old record with a spoilt sequence, which has to be read to be found old, ends a look everywhere.
#[test]
fn an_old_record_that_looks_touched_hides_no_new_one() {
    let (rig, mut writer) = beaten(RING);
    let mut reader = caught_up(&rig);
    play(&mut writer, [RING + 2]);
    rig.spoil(SLOT, RING + 1, 0, 1 << 10);
    let found = rig.look(&mut reader, Look::Everywhere, &bound(SLOT, 1));
    assert_eq!((counters(&found), rejects(&found)), (vec![RING + 2], vec![]));
}

#[test]
fn the_last_counter_with_other_content_is_repeated() {
    let (rig, mut writer) = beaten(3);
    let mut reader = caught_up(&rig);
    let again = signed(RawBeat { timestamp: NOW.0, ..honest(3, 1) }, SLOT);
    writer.write_raw(&again);
    let found = rig.look(&mut reader, Look::Everywhere, &bound(SLOT, 1));
    assert_eq!(found, [Err(Reject::Repeated)]);
}

#[test]
fn a_counter_that_was_overwritten_once_is_falling() {
    let newest = 3 * RING + 8;
    // The place behind the newest still holds its last lap, which is no news. All before that is gone.
    for (laps, expected) in [(1, None), (2, Some(Reject::Falling)), (3, Some(Reject::Falling))] {
        let (rig, mut writer) = beaten(newest);
        let mut reader = caught_up(&rig);
        play(&mut writer, [newest + 1 - laps * RING]);
        let found = rig.look(&mut reader, Look::Onward, &bound(SLOT, 1));
        assert_eq!(found, expected.map(Err).into_iter().collect::<Vec<_>>(), "{laps} laps back");
    }
    // Nor may the newest give its own place back.
    let (rig, mut writer) = beaten(newest);
    let mut reader = caught_up(&rig);
    play(&mut writer, [newest - RING]);
    let found = rig.look(&mut reader, Look::Everywhere, &bound(SLOT, 1));
    assert_eq!(found, [Err(Reject::Falling)]);
}

#[test]
fn a_counter_elsewhere_than_at_its_place_is_misplaced() {
    let (rig, mut writer) = beaten(3);
    let mut reader = caught_up(&rig);
    play(&mut writer, [5]);
    for place in (4..4 + RING).filter(|place| *place != 5 && *place != 3 + RING) {
        rig.copy((SLOT, 5), (SLOT, place));
    }
    let context = bound(SLOT, 1);
    assert_eq!(rig.look(&mut reader, Look::Onward, &context), [Err(Reject::Misplaced)]);
    let found = rig.look(&mut reader, Look::Everywhere, &context);
    assert_eq!(counters(&found), [5]);
    // Once it is accepted, its copies say nothing new.
    assert_eq!(rejects(&found), [Reject::Misplaced]);
}

#[test]
fn one_look_onward_also_judges_what_follows_an_accepted_beat() {
    let newest = 3 * RING + 8;
    let behind = newest + 2;
    let write = |raw: RawBeat| {
        move |rig: &Rig, writer: &mut BeatWriter| {
            writer.write_raw(&signed(raw, SLOT));
            // Whatever its counter, it shall lie behind the accepted beat.
            rig.copy((SLOT, raw.counter), (SLOT, behind));
        }
    };
    type Deed = Box<dyn Fn(&Rig, &mut BeatWriter)>;
    let cases: [(&str, Deed, Option<Reject>); 7] = [
        ("nothing", Box::new(|_, _| ()), None),
        ("old content, spoilt", Box::new(move |rig, _| rig.spoil(SLOT, behind, 5, 1)), None),
        ("an unfinished write", Box::new(move |rig, _| rig.spoil(SLOT, behind, 0, 1)), Some(Reject::Torn)),
        ("an earlier lap", Box::new(write(honest(behind - 2 * RING, 1))), Some(Reject::Falling)),
        ("another place's beat", Box::new(write(honest(behind + 1, 1))), Some(Reject::Misplaced)),
        (
            "a spoilt new beat",
            Box::new(move |rig, writer| {
                play(writer, [behind]);
                rig.spoil(SLOT, behind, 5, 1);
            }),
            Some(Reject::Corrupt),
        ),
        (
            "the same counter again",
            Box::new(write(RawBeat { timestamp: 7, ..honest(newest + 1, 1) })),
            Some(Reject::Repeated),
        ),
    ];
    for (what, deed, expected) in cases {
        let (rig, mut writer) = beaten(newest);
        let mut reader = caught_up(&rig);
        deed(&rig, &mut writer);
        play(&mut writer, [newest + 1]);
        let found = rig.look(&mut reader, Look::Onward, &bound(SLOT, 1));
        assert_eq!(counters(&found), [newest + 1], "{what}");
        assert_eq!(rejects(&found), expected.into_iter().collect::<Vec<_>>(), "{what}");
    }
}

#[test]
fn a_record_of_another_slot_or_generation_is_corrupt() {
    let (rig, _writer) = beaten(1);
    play(&mut rig.beats.writer(OTHER).expect("slot"), [1]);
    rig.copy((OTHER, 1), (SLOT, 1));
    let found = rig.look(&mut SlotReader::default(), Look::Onward, &vacant(SLOT));
    assert_eq!(found, [Err(Reject::Corrupt)]);

    let next = Generation(GENERATION.0 + 1);
    let view = BeatView::map(rig.fd.as_fd(), rig.beats.capacity(), next).expect("mapping");
    let mut found = Vec::new();
    SlotReader::default().look(&view, Look::Onward, vacant(OTHER), |one| found.push(one));
    assert_eq!(found, [Err(Reject::Corrupt)], "the view's generation counts, not the context's");
}

#[test]
fn a_writer_that_died_at_any_store_costs_its_own_record_only() {
    const STORES: usize = 9;
    for stores in 0..=STORES {
        let (rig, mut writer) = beaten(RING);
        let mut reader = caught_up(&rig);
        let dying = RING + 1;
        let place = rig.place(SLOT, dying);
        let beat = words(&signed(honest(dying, 1), SLOT));
        let sequence = [(place, dying * 2 - 1)];
        let content = beat.into_iter().enumerate().map(|(at, word)| (place + 1 + at, word));
        let all: Vec<_> = sequence.into_iter().chain(content).chain([(place, dying * 2)]).collect();
        assert_eq!(all.len(), STORES);
        for (place, word) in &all[..stores] {
            rig.wild.store(*place, *word, Relaxed);
        }
        let context = bound(SLOT, 1);
        let expected: &[Reject] = if (1..STORES).contains(&stores) { &[Reject::Torn] } else { &[] };
        let found = rig.look(&mut reader, Look::Onward, &context);
        assert_eq!(rejects(&found), expected, "after {stores} stores");
        assert_eq!(counters(&found).len(), usize::from(stores == STORES), "after {stores} stores");

        // The rest of the ring and the other slots are as readable as before.
        play(&mut writer, [dying + 1]);
        let found = rig.look(&mut reader, Look::Everywhere, &context);
        assert_eq!((counters(&found), rejects(&found)), (vec![dying + 1], expected.to_vec()));
        play(&mut rig.beats.writer(OTHER).expect("slot"), [1]);
        let found = rig.look(&mut SlotReader::default(), Look::Onward, &vacant(OTHER));
        assert_eq!((counters(&found), rejects(&found)), (vec![1], vec![]));
    }
}

#[test]
fn a_ring_that_is_torn_all_over_still_ends_the_look() {
    let (rig, _writer) = beaten(RING);
    for counter in 1..=RING {
        rig.spoil(SLOT, counter, 0, 1);
    }
    let mut reader = SlotReader::default();
    assert_eq!(rig.look(&mut reader, Look::Onward, &vacant(SLOT)), [Err(Reject::Torn)]);
    let found = rig.look(&mut reader, Look::Everywhere, &vacant(SLOT));
    assert_eq!(found, [Err(Reject::Torn); RING_RECORDS]);
}

#[test]
fn a_higher_incarnation_takes_over_within_one_look() {
    let rig = Rig::new(2, 2);
    let mut writer = rig.beats.writer(SLOT).expect("slot");
    let first = writer.open(SESSION, WINDOW);
    writer.beat();
    let second = writer.open(SessionId(9), common::SHORTEST);
    writer.beat();
    assert_ne!(first.to_word(), second.to_word());
    let context = Context { now: Nanos::now(), ..vacant(SLOT) };
    let found = rig.look(&mut SlotReader::default(), Look::Onward, &context);
    assert_eq!(rejects(&found), []);
    let who: Vec<_> = found.iter().flatten().map(|beat| (beat.session, beat.incarnation)).collect();
    let (first, second) = ((SESSION, first.incarnation), (SessionId(9), second.incarnation));
    assert_eq!(who, [first, first, second, second]);
}

#[test]
fn within_one_look_too_the_replaced_one_stays_gone() {
    let (rig, mut writer) = beaten(1);
    writer.write_raw(&signed(honest(2, 2), SLOT));
    writer.write_raw(&signed(honest(3, 1), SLOT));
    let found = rig.look(&mut SlotReader::default(), Look::Everywhere, &vacant(SLOT));
    assert_eq!((counters(&found), rejects(&found)), (vec![1, 2], vec![Reject::WrongSession]));
}

#[test]
fn a_session_that_said_goodbye_never_comes_back() {
    let rig = Rig::new(2, 2);
    let mut writer = rig.beats.writer(SLOT).expect("slot");
    writer.open(SESSION, WINDOW);
    writer.close(Ending::Client);
    writer.beat();
    let newest = Incarnation::new(1);
    let context = Context { now: Nanos::now(), ..vacant(SLOT) };
    let mut reader = SlotReader::default();
    let found = rig.look(&mut reader, Look::Onward, &context);
    assert_eq!((counters(&found), rejects(&found)), (vec![1, 2], vec![Reject::WrongSession]));
    let over = Context { newest, ..context };
    for how in [Look::Onward, Look::Everywhere] {
        assert_eq!(rig.look(&mut reader, how, &over), [Err(Reject::WrongSession)]);
    }
    writer.open(SESSION, WINDOW);
    let over = Context { now: Nanos::now(), ..over };
    let found = rig.look(&mut reader, Look::Everywhere, &over);
    assert_eq!((counters(&found), rejects(&found)), (vec![4], vec![Reject::WrongSession]));
}

#[test]
fn a_writer_that_never_opened_is_not_believed() {
    let rig = Rig::new(2, 2);
    let mut writer = rig.beats.writer(SLOT).expect("slot");
    writer.beat();
    let context = Context { now: Nanos::now(), shortest: Window(0), ..vacant(SLOT) };
    let found = rig.look(&mut SlotReader::default(), Look::Onward, &context);
    assert_eq!(found, [Err(Reject::WrongSession)]);
}

#[test]
fn the_end_of_the_counters_is_survived() {
    let (rig, mut writer) = beaten(0);
    let mut reader = SlotReader::default();
    let context = bound(SLOT, 1);
    let last = u64::MAX;
    // A jump to the end is believed once; after it nothing is higher, so the session can only expire.
    play(&mut writer, last - 70..=last - 1);
    assert!(counters(&rig.look(&mut reader, Look::Everywhere, &context)).contains(&(last - 1)));
    play(&mut writer, [last]);
    assert_eq!(counters(&rig.look(&mut reader, Look::Onward, &context)), [last]);
    for how in [Look::Onward, Look::Everywhere] {
        assert_eq!(rig.look(&mut reader, how, &context), []);
    }
    play(&mut writer, [0, 1, 2]);
    let found = rig.look(&mut reader, Look::Everywhere, &context);
    // 0 is the turn of a record that was never written.
    assert_eq!(found, [Err(Reject::Falling); 2]);
}

#[test]
fn the_change_word_changes_with_sessions_not_with_beats() {
    let rig = Rig::new(2, 2);
    let mut writer = rig.beats.writer(SLOT).expect("slot");
    let mut reader = SlotReader::default();
    assert!(!reader.changed(&rig.view, SLOT));
    for _ in 0..3 {
        writer.open(SESSION, WINDOW);
        assert!(reader.changed(&rig.view, SLOT) && !reader.changed(&rig.view, SLOT));
        writer.beat();
        assert!(!reader.changed(&rig.view, SLOT));
        writer.close(Ending::Client);
        assert!(reader.changed(&rig.view, SLOT) && !reader.changed(&rig.view, SLOT));
    }
    assert!(!SlotReader::default().changed(&rig.view, OTHER), "the other slot has its own word");
    let front = rig.view.front_slot();
    rig.beats.front_writer().open(SESSION, WINDOW);
    assert!(SlotReader::default().changed(&rig.view, front), "and so has the front's");
}

/// Fails if whoever looks at the bare segment cannot tell what it is: nothing else reads its header.
#[test]
fn the_header_says_what_the_segment_is() {
    let rig = Rig::new(2, 3);
    let header: Vec<u64> = (0..4).map(|place| rig.wild.load(place, Relaxed)).collect();
    assert_eq!(header, [MAGIC, layout_hash(), GENERATION.0, 2 << 16 | 3]);
}

#[test]
fn owner_words_arrive_and_places_that_do_not_exist_are_nobodys() {
    let rig = Rig::new(2, 2);
    let owner = Owner { slot: OTHER, incarnation: Incarnation::new(5) };
    rig.beats.take_motor(MotorIndex(1), owner);
    assert_eq!(rig.view.owner_word(MotorIndex(1)), owner.to_word());
    assert_eq!(rig.beats.owner(MotorIndex(1)), Some(owner));
    assert_eq!((rig.view.owner_word(MotorIndex(0)), rig.beats.owner(MotorIndex(0))), (0, None));

    rig.beats.take_motor(MotorIndex(2), owner);
    assert_eq!((rig.view.owner_word(MotorIndex(2)), rig.beats.owner(MotorIndex(2))), (0, None));
    assert_eq!(rig.view.owner_word(MotorIndex(u16::MAX)), Owner::NOBODY);
    assert_eq!(rig.view.change(SlotIndex(u16::MAX)), 0);
    assert!(rig.beats.writer(SlotIndex(3)).is_none());
    assert_eq!(rig.beats.front_writer().slot(), rig.view.front_slot());
}

/// What a front may do with its writer.
#[derive(Clone, Copy, Debug)]
enum Act {
    Open { session: u128, window: u64 },
    Beat,
    BeatAt(u64),
    Close,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        1 => (any::<u128>(), any::<u64>()).prop_map(|(session, window)| Act::Open { session, window }),
        2 => Just(Act::Beat),
        2 => any::<u64>().prop_map(Act::BeatAt),
        1 => Just(Act::Close),
    ]
}

proptest! {
    /// The writer keeps the sum over what the beats of a session have in common; the record must carry the
    /// sum over everything all the same.
    #[test]
    fn every_record_carries_the_whole_checksum(
        slot in 0_u16..=2, acts in proptest::collection::vec(act(), 1..RING_RECORDS),
    ) {
        let rig = Rig::new(2, 2);
        let slot = SlotIndex(slot);
        let mut writer = rig.beats.writer(slot).expect("slot");
        for (counter, act) in (1..).zip(acts) {
            match act {
                Act::Open { session, window } => _ = writer.open(SessionId(session), Window(window)),
                Act::Beat => writer.beat(),
                Act::BeatAt(at) => writer.beat_at(Nanos(at)),
                Act::Close => writer.close(Ending::Client),
            }
            let raw = rig.raw(slot, counter);
            prop_assert_eq!(raw.counter, counter);
            prop_assert_eq!(raw, signed(raw, slot), "after {:?}", act);
        }
    }
}
