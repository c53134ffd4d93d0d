//! How many looks into rings a front can cost that says something is new where nothing is.

use shm_proto::beat::RawBeat;
use shm_proto::verdicts::{EventKind, MotorState, ResetPolicy};
use shm_proto::{Incarnation, MotorIndex, Owner, SessionId, SlotIndex};

use crate::state;
use crate::support::{A, B, Bench, TICK, WINDOW};

/// A front whose owner words name, for a hundred motors, a session of slot 0 that nobody knows. Each look into that ring
/// counts one spoilt record.
fn owned_by_nobody() -> Bench {
    const MOTORS: u16 = 100;
    let mut robot =
        "[supervisor]\nmax_motors = 100\n[[bus]]\nname = \"can0\"\n[[bus]]\nname = \"can1\"\n".to_owned();
    for motor in 0..MOTORS {
        let (bus, node) = (motor / 50, motor % 50);
        robot += &format!(
            "[[motor]]\nname = \"m{motor}\"\nbus = \"can{bus}\"\ndriver = \"odrive\"\nnode = {node}\n\
             firmware = \"0.6\"\nafter_stop = \"hold\"\nmax_rpm = 300\n"
        );
    }
    let mut bench = Bench::of(&robot, MOTORS, ResetPolicy::Auto);
    bench.core.start(bench.now, &mut bench.wire);
    let mut writer = bench.open(0);
    bench.run(4 * TICK);
    writer.write_raw(&RawBeat { counter: 3, crc: 1, ..RawBeat::default() });
    let nobody = Owner { slot: SlotIndex(0), incarnation: Incarnation::new(1_000) };
    for motor in (0..MOTORS).map(MotorIndex) {
        bench.beats.take_motor(motor, nobody);
    }
    bench.run(TICK);
    bench
}

#[test]
fn the_ring_of_a_dead_session_is_left_alone_although_its_motors_still_name_it() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A, B]);
    bench.run(WINDOW.0 + 2 * TICK);
    assert_eq!(state(&bench, A), MotorState::Stopping);
    // Each look into the ring would count this record once more.
    writer.write_raw(&RawBeat { counter: 3, crc: 1, ..RawBeat::default() });
    let before = bench.rejects();
    bench.run(20 * TICK);
    assert_eq!(bench.rejects(), before, "every tick looks into a ring that can bring nothing new");
}

#[test]
fn owner_words_that_name_nobody_cost_a_bounded_number_of_looks() {
    let mut bench = owned_by_nobody();
    let before = bench.rejects();
    bench.run(TICK);
    let looks = bench.rejects() - before;
    // The one more is the look that every ring gets in turn.
    assert!((64..=65).contains(&looks), "{looks} looks in a tick");
}

/// Fails if a motor is stopped as nobody's because more sessions opened in one tick than are looked at in one.
#[test]
fn a_motor_is_taken_over_while_a_hundred_sessions_open() {
    const SESSIONS: u16 = 101;
    let mut bench = Bench::with_sessions(SESSIONS, ResetPolicy::Auto);
    let first = bench.drive(0, &[A]);
    let others: Vec<_> = (1..SESSIONS).map(|slot| bench.open(slot)).collect();
    let last = others.last().expect("there are some");
    bench.take(last, A);
    bench.run(TICK);
    assert_eq!(bench.view.granted(A), Some(first.owner()), "its session lives, and is the only one known");
    bench.run(2 * TICK);
    assert_eq!(bench.view.granted(A), Some(last.owner()));
    assert!(bench.events(EventKind::Trip).is_empty());
}

/// Fails if an owner word that names the front's own slot makes it looked into as a session's: as far as that goes,
/// for every motor on every tick.
#[test]
fn the_front_is_no_session_that_could_own_a_motor() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    bench.front_beats(false);
    // A look onward meets one of them at most, a look everywhere all.
    for counter in 64_003..64_006 {
        bench.front.write_raw(&RawBeat { counter, crc: 1, ..RawBeat::default() });
    }
    bench.beats.take_motor(A, Owner { slot: SlotIndex(8), incarnation: Incarnation::new(1_000) });
    bench.run(TICK);
    let before = bench.rejects();
    bench.run(TICK);
    assert!(bench.rejects() - before <= 1, "{} records were looked at", bench.rejects() - before);
    assert_eq!(bench.view.granted(A), None);
}

/// Fails if rings that changed and owner words that name nobody may cost more looks together than either.
#[test]
fn changed_rings_and_wrong_owner_words_share_their_looks() {
    let mut bench = owned_by_nobody();
    let mut others: Vec<_> =
        (1..5).map(|slot| bench.beats.writer(SlotIndex(slot)).expect("it exists")).collect();
    for changed in 0..5 {
        for other in others.iter_mut().take(changed) {
            other.open_at(SessionId(99), WINDOW, bench.now);
        }
        let before = bench.rejects();
        bench.run(TICK);
        let looks = bench.rejects() - before + changed as u64;
        // The one more is the look that every ring gets in turn.
        assert!((64..=65).contains(&looks), "{looks} looks in a tick with {changed} changes");
    }
}
