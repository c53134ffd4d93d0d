//! A granted motor that does what nobody told it: faster than it may be told, or the other way round.

use drivers::{ArbitrationId, Frame};
use shm_proto::BeatWriter;
use shm_proto::verdicts::{EventKind, MotorState, Reason, ResetPolicy};
use supervisor::core::Origin;

use crate::state;
use crate::support::{A, Bench, MS};

/// An ODrive's closed loop: torque is on.
const CLOSED_LOOP: u8 = 8;
/// 300 rpm are 5 revolutions a second.
const MOST: f32 = 5.0;

/// A set-point of that speed comes over the bus.
fn told(bench: &mut Bench, speed: f32) {
    let mut velocity = [0; 8];
    velocity[..4].copy_from_slice(&speed.to_le_bytes());
    let frame = Frame::classic(ArbitrationId::standard(3 << 5 | 0x0D), &velocity);
    bench.core.received(0, Origin::Local, &frame, bench.now, &mut bench.wire);
}

/// Moves time on while it is told one speed and says that it has another.
fn pass(bench: &mut Bench, session: &mut BeatWriter, nanos: u64, command: Option<f32>, speed: f32) {
    for _ in 0..nanos / (20 * MS) {
        bench.beat(session);
        bench.run(20 * MS);
        command.into_iter().for_each(|command| told(bench, command));
        bench.odrive_says(A, CLOSED_LOOP, speed);
    }
}

fn reasons(bench: &Bench) -> Vec<Reason> {
    bench.events(EventKind::Trip).iter().filter_map(|trip| trip.reason).collect()
}

#[test]
fn a_motor_that_is_faster_than_it_may_be_told_is_stopped() {
    for speed in [MOST * 1.2, -MOST * 10.0] {
        let mut bench = Bench::new(ResetPolicy::Auto);
        let mut session = bench.drive(0, &[A]);
        pass(&mut bench, &mut session, 200 * MS, Some(1.0), speed);
        assert_eq!(reasons(&bench), [Reason::Overspeed], "{speed}");
        assert!(!bench.sent_to(A).is_empty());
    }
}

#[test]
fn an_overshoot_and_full_speed_are_no_overspeed() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut session = bench.drive(0, &[A]);
    for _ in 0..20 {
        pass(&mut bench, &mut session, 80 * MS, Some(MOST), MOST * 1.3);
        pass(&mut bench, &mut session, 40 * MS, Some(MOST), MOST * 1.05);
    }
    assert_eq!(reasons(&bench), []);
}

#[test]
fn a_motor_that_turns_against_every_command_of_a_second_is_stopped() {
    for (command, speed) in [(1.0, -1.0), (-1.0, 1.0)] {
        let mut bench = Bench::new(ResetPolicy::Auto);
        let mut session = bench.drive(0, &[A]);
        pass(&mut bench, &mut session, 1_000 * MS, Some(command), command);
        pass(&mut bench, &mut session, 200 * MS, Some(command), speed);
        assert_eq!(reasons(&bench), [Reason::WrongWay], "{command} {speed}");
    }
}

#[test]
fn a_reversal_a_stop_and_slow_rocking_are_not_the_wrong_way() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut session = bench.drive(0, &[A]);
    pass(&mut bench, &mut session, 2_000 * MS, Some(4.0), 4.0);
    // It takes most of a second to turn round.
    pass(&mut bench, &mut session, 800 * MS, Some(-4.0), 3.0);
    pass(&mut bench, &mut session, 2_000 * MS, Some(-4.0), -4.0);
    // Told to stand still, and rolled back by its load.
    pass(&mut bench, &mut session, 2_000 * MS, Some(0.0), 1.0);
    pass(&mut bench, &mut session, 2_000 * MS, Some(1.0), -0.4);
    // Nothing is commanded any more: what it was told last is not known to be in force.
    assert_eq!((reasons(&bench), state(&bench, A)), (vec![], MotorState::Granted));
}
