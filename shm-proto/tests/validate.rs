//! Every reason to reject a beat has exactly its cause, and no accepted beat reaches too far.

mod common;

use common::{GENERATION, LONGEST, NOW, SESSION, SHORTEST, WINDOW, bound, honest, signed, vacant};
use proptest::prelude::*;
use shm_proto::beat::{
    Bound, Context, Ending, FLAG_CLOSE, RawBeat, Reject, ValidBeat, Word, checksum, high_word, join_words,
    low_word, tag, validate,
};
use shm_proto::layout::layout_hash;
use shm_proto::{Generation, Incarnation, Nanos, SessionId, SlotIndex, Window};

const SLOT: SlotIndex = SlotIndex(3);

#[test]
fn an_honest_beat_is_believed_word_for_word() {
    let raw = signed(honest(41, 2), SLOT);
    let beat = ValidBeat {
        counter: 41,
        session: SESSION,
        incarnation: Incarnation::new(2),
        window: WINDOW,
        at: Nanos(NOW.0 - 1_000),
        word: Word::Alive,
    };
    assert_eq!(validate(&raw, &bound(SLOT, 2)), Ok(beat));
    assert_eq!(beat.deadline(), Nanos(NOW.0 - 1_000 + 100_000_000));

    for ending in Ending::ALL {
        let close = signed(RawBeat { tag: tag(ending.flags(), Incarnation::new(2)), ..raw }, SLOT);
        assert_eq!(validate(&close, &bound(SLOT, 2)), Ok(ValidBeat { word: Word::Close(ending), ..beat }));
    }
}

/// Fails if a goodbye for a cause that nobody knows keeps its session alive, or passes for one of the known causes.
#[test]
fn a_goodbye_for_an_unknown_cause_is_a_goodbye_without_one() {
    let known = Ending::ALL.map(Ending::number);
    for number in (0..=u8::MAX).filter(|number| !known.contains(number)) {
        let flags = FLAG_CLOSE | u64::from(number) << 8;
        let close = signed(RawBeat { tag: tag(flags, Incarnation::new(2)), ..honest(41, 2) }, SLOT);
        let word = validate(&close, &bound(SLOT, 2)).map(|beat| beat.word);
        assert_eq!(word, Ok(Word::Close(Ending::Unsaid)), "{number}");
    }
}

#[test]
fn endings_have_numbers_and_reasons_of_their_own() {
    let mut reasons = Vec::new();
    for ending in Ending::ALL {
        assert_eq!(Ending::from_number(ending.number()), ending);
        assert!(!reasons.contains(&ending.reason()), "{ending:?} has the reason of another");
        reasons.push(ending.reason());
    }
}

#[test]
fn each_cause_has_its_kind() {
    let raw = honest(41, 2);
    let bound = bound(SLOT, 2);
    let over = Context { bound: None, ..bound };
    let vacant = vacant(SLOT);
    let windowed = |window| RawBeat { window, ..raw };
    let timed = |timestamp| RawBeat { timestamp, ..raw };
    let tagged = |flags, incarnation| RawBeat { tag: tag(flags, Incarnation::new(incarnation)), ..raw };
    let cases = [
        ("untouched", raw, bound, None),
        ("first of a slot", raw, vacant, None),
        ("shortest window", windowed(SHORTEST.0), vacant, None),
        ("longest window", windowed(LONGEST.0), vacant, None),
        ("this very moment", timed(NOW.0), bound, None),
        ("the beginning of time", timed(0), bound, None),
        ("newer incarnation, other session", RawBeat { session: 1, ..tagged(0, 3) }, bound, None),
        ("newer than one that is over", tagged(0, 3), over, None),
        ("unknown flag", tagged(2, 2), bound, Some(Reject::BadFlags)),
        ("highest flag", tagged(1 << 15, 2), bound, Some(Reject::BadFlags)),
        ("unknown flag beside a known one", tagged(FLAG_CLOSE | 4, 2), bound, Some(Reject::BadFlags)),
        (
            "a cause without a goodbye",
            tagged(Ending::Client.flags() ^ FLAG_CLOSE, 2),
            bound,
            Some(Reject::BadFlags),
        ),
        ("window too short", windowed(SHORTEST.0 - 1), vacant, Some(Reject::BadWindow)),
        ("window too long", windowed(LONGEST.0 + 1), vacant, Some(Reject::BadWindow)),
        ("endless window", windowed(u64::MAX), vacant, Some(Reject::BadWindow)),
        ("window longer than at first", windowed(WINDOW.0 + 1), bound, Some(Reject::BadWindow)),
        ("window shorter than at first", windowed(WINDOW.0 - 1), bound, Some(Reject::BadWindow)),
        ("another session", RawBeat { session: SESSION.0 ^ 1, ..raw }, bound, Some(Reject::WrongSession)),
        ("an older incarnation", tagged(0, 1), bound, Some(Reject::WrongSession)),
        ("an incarnation that is over", raw, over, Some(Reject::WrongSession)),
        ("no incarnation", tagged(0, 0), vacant, Some(Reject::WrongSession)),
        ("a nanosecond ahead", timed(NOW.0 + 1), bound, Some(Reject::Future)),
        ("the end of time", timed(u64::MAX), bound, Some(Reject::Future)),
    ];
    for (name, raw, context, expected) in cases {
        assert_eq!(validate(&signed(raw, SLOT), &context).err(), expected, "{name}");
    }
}

/// Fails if the names in `lanyard status` change: scripts look for them.
#[test]
fn each_kind_has_its_name() {
    let names = Reject::ALL.map(Reject::name).join(" ");
    assert_eq!(names, "corrupt misplaced repeated falling future wrong-session bad-window bad-flags torn");
}

#[test]
fn of_a_corrupt_record_nothing_else_is_looked_at() {
    let raw = RawBeat { counter: 0, session: 0, window: 0, timestamp: u64::MAX, tag: u64::MAX, crc: 1 };
    assert_eq!(validate(&raw, &bound(SLOT, 2)), Err(Reject::Corrupt));
}

#[test]
fn any_flipped_bit_is_corrupt() {
    let raw = signed(honest(41, 2), SLOT);
    let context = bound(SLOT, 2);
    let mut flipped = Vec::new();
    for bit in 0..64 {
        let bits = 1_u64 << bit;
        flipped.extend([
            RawBeat { counter: raw.counter ^ bits, ..raw },
            RawBeat { session: raw.session ^ u128::from(bits), ..raw },
            RawBeat { session: raw.session ^ u128::from(bits) << 64, ..raw },
            RawBeat { window: raw.window ^ bits, ..raw },
            RawBeat { timestamp: raw.timestamp ^ bits, ..raw },
            RawBeat { tag: raw.tag ^ bits, ..raw },
            RawBeat { crc: raw.crc ^ bits, ..raw },
        ]);
    }
    assert_eq!(flipped.len(), 448);
    for spoilt in flipped {
        assert_eq!(validate(&spoilt, &context), Err(Reject::Corrupt), "{spoilt:x?}");
    }
}

#[test]
fn a_record_fits_its_own_slot_and_generation_only() {
    let raw = signed(honest(41, 2), SLOT);
    for bit in 0..16 {
        let slot = SlotIndex(SLOT.0 ^ 1 << bit);
        assert_eq!(validate(&raw, &bound(slot, 2)), Err(Reject::Corrupt), "slot {}", slot.0);
    }
    for bit in 0..64 {
        let generation = Generation(GENERATION.0 ^ 1 << bit);
        let context = Context { generation, ..bound(SLOT, 2) };
        assert_eq!(validate(&raw, &context), Err(Reject::Corrupt), "generation {}", generation.0);
    }
}

/// CRC-32C bit by bit, as RFC 3720 defines it.
fn crc32c_by_hand(words: &[u64]) -> u32 {
    let mut crc = u32::MAX;
    for byte in words.iter().flat_map(|word| word.to_le_bytes()) {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

#[test]
fn the_checksum_is_crc32c_over_layout_slot_generation_and_record() {
    assert_eq!(crc32c_by_hand(&[u64::from_le_bytes(*b"12345678")]), 0x6087_809a);
    let raw = honest(41, 2);
    let over = |layout| {
        let (high, low) = (high_word(raw.session), low_word(raw.session));
        let record = [high, low, raw.window, raw.tag, raw.counter, raw.timestamp];
        crc32c_by_hand(&[&[layout, u64::from(SLOT.0), GENERATION.0], &record[..]].concat())
    };
    assert_eq!(checksum(&raw, SLOT, GENERATION), over(layout_hash()));
    for bit in 0..64 {
        assert_ne!(checksum(&raw, SLOT, GENERATION), over(layout_hash() ^ 1 << bit), "layout bit {bit}");
    }
}

/// Words near the ones that decide, and any others.
fn word() -> impl Strategy<Value = u64> {
    let near = [0, 1, 2, SHORTEST.0, WINDOW.0, LONGEST.0, NOW.0, 1 << 16, 2 << 16, 3 << 16, u64::MAX];
    prop_oneof![
        2 => (proptest::sample::select(near.to_vec()), -2_i64..=2).prop_map(|(w, d)| w.wrapping_add_signed(d)),
        1 => any::<u64>(),
    ]
}

fn session() -> impl Strategy<Value = u128> {
    prop_oneof![3 => Just(SESSION.0), 1 => any::<u128>()]
}

prop_compose! {
    fn raw_beat()(
        counter in word(), session in session(), window in word(), timestamp in word(), tag in word(),
        crc in any::<u64>(),
    ) -> RawBeat {
        RawBeat { counter, session, window, timestamp, tag, crc }
    }
}

prop_compose! {
    fn context()(
        now in word(), session in session(), incarnation in 0_u64..4, newest in 0_u64..4, window in word(),
        is_bound in any::<bool>(), shortest in word(), longest in word(),
    ) -> Context {
        let bound = Bound {
            session: SessionId(session),
            incarnation: Incarnation::new(incarnation),
            window: Window(window),
        };
        Context {
            slot: SLOT,
            generation: GENERATION,
            now: Nanos(now),
            bound: is_bound.then_some(bound),
            newest: Incarnation::new(newest),
            shortest: Window(shortest),
            longest: Window(longest),
        }
    }
}

/// Whether a record with a right checksum should be believed: the rules once more, in another form.
fn believable(raw: &RawBeat, context: &Context) -> bool {
    let incarnation = raw.tag >> 16;
    let known = match context.bound {
        Some(bound) if bound.incarnation.get() == incarnation => {
            bound.session.0 == raw.session && bound.window.0 == raw.window
        }
        _ => incarnation > context.newest.get(),
    };
    known
        && (raw.tag.is_multiple_of(1 << 16) || raw.tag % (1 << 8) == FLAG_CLOSE)
        && (context.shortest.0..=context.longest.0).contains(&raw.window)
        && raw.timestamp <= context.now.0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn an_accepted_deadline_never_reaches_too_far(
        raw in raw_beat(), context in context(), sign in proptest::bool::weighted(0.9),
    ) {
        let raw = if sign { signed(raw, SLOT) } else { raw };
        match validate(&raw, &context) {
            Ok(beat) => {
                let earlier = raw.timestamp.min(context.now.0);
                prop_assert!(beat.deadline().0 <= earlier.saturating_add(raw.window));
                prop_assert!(beat.deadline() <= context.now.after(context.longest.0));
                prop_assert!(beat.at.0 == earlier && beat.counter == raw.counter);
                prop_assert!(beat.session.0 == raw.session && beat.window.0 == raw.window);
                prop_assert!(believable(&raw, &context));
            }
            Err(Reject::Corrupt) => prop_assert!(!sign),
            Err(_) => prop_assert!(!believable(&raw, &context)),
        }
    }

    #[test]
    fn a_session_id_survives_its_halves(session in any::<u128>()) {
        prop_assert_eq!(join_words(high_word(session), low_word(session)), session);
    }
}
