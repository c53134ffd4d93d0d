//! What a program of this computer says in the name of a drive, or of the interface, counts for nothing; what it commands is
//! answered like anybody's. A motor that a session drives has no master on the wire.

use drivers::{ArbitrationId, Frame};
use shm_proto::verdicts::{EventKind, MotorState, Reason, ResetPolicy};
use supervisor::core::{Origin, Report};

use crate::state;
use crate::support::{A, B, Bench, MS, TICK, WINDOW};

/// An ODrive without torque, and in closed loop.
const IDLE: u8 = 1;
const CLOSED_LOOP: u8 = 8;
/// Longer than any word of a drive counts.
const TOO_LONG: u64 = 600 * MS;
/// Class and details of an error frame: the controller has left the bus.
const BUS_OFF: (u32, [u8; 8]) = (0x040, [0; 8]);

fn disbelieved(bench: &Bench) -> u64 {
    bench.view.bus(0).expect("bus 0").disbelieved
}

fn trips(bench: &Bench) -> Vec<Reason> {
    bench.events(EventKind::Trip).iter().filter_map(|trip| trip.reason).collect()
}

#[test]
fn local_feedback_proves_no_standstill() {
    for (origin, expected) in [(Origin::Local, MotorState::Unverified), (Origin::Wire, MotorState::Stopped)] {
        let mut bench = Bench::new(ResetPolicy::Auto);
        let _silent = bench.drive(0, &[A]);
        bench.odrive_says(A, CLOSED_LOOP, 2.0);
        bench.run(WINDOW.0 + TICK);
        let before = bench.events(EventKind::Standstill).len();
        // Long enough for every stage.
        for _ in 0..100 {
            bench.is_said_in_its_name(origin, A, IDLE, 0.0);
            bench.run(TICK);
        }
        assert_eq!(state(&bench, A), expected, "{origin:?}");
        let proven = bench.events(EventKind::Standstill).len() - before;
        assert_eq!(proven, usize::from(origin == Origin::Wire), "{origin:?}");
    }
}

#[test]
fn local_feedback_is_no_grant() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    bench.run(TOO_LONG);
    let mut session = bench.open(0);
    bench.take(&session, A);
    for origin in [Origin::Local, Origin::Wire] {
        for _ in 0..40 {
            bench.beat(&mut session);
            bench.is_said_in_its_name(origin, A, IDLE, 0.0);
            bench.run(TICK);
        }
        let granted = bench.view.granted(A).is_some();
        assert_eq!(granted, origin == Origin::Wire, "{origin:?}");
    }
}

#[test]
fn local_feedback_keeps_no_mute_drive_going_and_stops_no_good_one() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut session = bench.drive(0, &[A, B]);
    for _ in 0..100 {
        bench.beat(&mut session);
        bench.odrive_says(A, CLOSED_LOOP, 2.0);
        bench.odrive_says(B, CLOSED_LOOP, 2.0);
        // Far too fast, and then a disarmed axis.
        bench.is_said_in_its_name(Origin::Local, A, CLOSED_LOOP, 50.0);
        bench.is_said_in_its_name(Origin::Local, A, IDLE, 0.0);
        bench.run(2 * TICK);
    }
    assert_eq!(trips(&bench), [], "a stranger's words stop nothing");
    for _ in 0..70 {
        bench.beat(&mut session);
        bench.odrive_says(B, CLOSED_LOOP, 2.0);
        bench.is_said_in_its_name(Origin::Local, A, CLOSED_LOOP, 2.0);
        bench.run(2 * TICK);
    }
    assert_eq!(trips(&bench), [Reason::FeedbackLost], "its drive is mute");
}

#[test]
fn a_local_command_for_a_motor_that_is_nobodys_is_answered() {
    for origin in [Origin::Local, Origin::Wire] {
        let mut bench = Bench::new(ResetPolicy::Auto);
        bench.is_commanded(origin, A);
        assert_eq!(state(&bench, A), MotorState::Stopping, "{origin:?}");
        assert!(!bench.sent_to(A).is_empty(), "{origin:?}");
        assert_eq!(disbelieved(&bench), 0, "a command speaks for nobody");
    }
}

#[test]
fn a_local_error_frame_is_not_believed() {
    for (origin, expected) in [(Origin::Local, &[][..]), (Origin::Wire, &[Reason::BusFault])] {
        let mut bench = Bench::new(ResetPolicy::Auto);
        let mut session = bench.drive(0, &[A]);
        bench.core.reported(0, origin, Report::new(BUS_OFF.0, BUS_OFF.1), bench.now, &mut bench.wire);
        bench.beat(&mut session);
        bench.run(2 * TICK);
        assert_eq!(trips(&bench), expected, "{origin:?}");
        let bus = bench.view.bus(0).expect("bus 0");
        assert_eq!((bus.up, bus.error_frames), if expected.is_empty() { (1, 0) } else { (0, 1) });
        assert_eq!(bus.disbelieved, u64::from(expected.is_empty()));
    }
}

#[test]
fn what_is_not_believed_is_counted_and_told_once_for_each_bus() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    for _ in 0..10 {
        bench.is_said_in_its_name(Origin::Local, A, IDLE, 0.0);
        bench.run(2 * TICK);
    }
    let bus = bench.view.bus(0).expect("bus 0");
    assert_eq!(bus.disbelieved, 20, "two frames each");
    assert!(bench.now.since(bus.disbelieved_at) <= 4 * TICK, "{:?}", bus.disbelieved_at);
    let [told] = bench.events(EventKind::Disbelieved)[..] else { panic!("told once") };
    assert!(told.motors.iter().eq([A, B]), "{told:?}");
    assert_eq!(bench.view.bus(1).expect("bus 1").disbelieved, 0);
}

#[test]
fn where_the_drives_are_local_their_frames_count() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    bench.core.drives_are_local(0);
    bench.run(TOO_LONG);
    let mut session = bench.open(0);
    bench.take(&session, A);
    for _ in 0..40 {
        bench.beat(&mut session);
        bench.is_said_in_its_name(Origin::Local, A, IDLE, 0.0);
        bench.run(TICK);
    }
    assert_eq!(state(&bench, A), MotorState::Granted);
    bench.core.reported(0, Origin::Local, Report::new(BUS_OFF.0, BUS_OFF.1), bench.now, &mut bench.wire);
    assert_eq!(trips(&bench), [Reason::BusFault]);
    assert_eq!((disbelieved(&bench), bench.events(EventKind::Disbelieved)), (0, Vec::new()));
}

/// The configuration of a robot with two motors, and what else stands in it.
fn robot(motor: &str, more: &str) -> String {
    let motors: String = [("a", 3), ("b", 4)]
        .iter()
        .map(|(name, node)| {
            format!(
                "[[motor]]\nname = \"{name}\"\nbus = \"can0\"\ndriver = \"odrive\"\nnode = {node}\nfirmware = \"0.6\"\n\
                 after_stop = \"release\"\nmax_rpm = 300\n{motor}"
            )
        })
        .collect();
    format!("[[bus]]\nname = \"can0\"\n[[bus]]\nname = \"can1\"\n{motors}{more}")
}

/// A core with that robot, at rest, and a session that drives the first motor.
fn driven(motor: &str, more: &str) -> (Bench, shm_proto::BeatWriter) {
    let mut bench = Bench::of(&robot(motor, more), 8, ResetPolicy::Auto);
    bench.core.start(bench.now, &mut bench.wire);
    bench.rest(A);
    bench.rest(B);
    bench.run(4 * TICK);
    bench.wire.sent.clear();
    let session = bench.drive(0, &[A]);
    (bench, session)
}

#[test]
fn a_motion_frame_from_the_wire_stops_what_a_session_drives() {
    let (mut bench, _session) = driven("", "");
    bench.front_commands(A);
    assert_eq!(trips(&bench), [], "the front is no stranger");
    bench.is_commanded(Origin::Wire, A);
    assert_eq!(trips(&bench), [Reason::OtherMaster]);
    assert_eq!((state(&bench, A), bench.view.granted(A)), (MotorState::Stopping, None));
    assert!(!bench.sent_to(A).is_empty(), "at once, in the same pass");
}

#[test]
fn what_moves_nothing_makes_no_other_master() {
    let (mut bench, mut session) = driven("", "");
    // A set-point of 0, an idle request, a question, and what the drive itself says.
    for (command, payload) in [(0x0D, &[0; 8][..]), (0x07, &[1, 0, 0, 0]), (0x17, &[])] {
        let frame = Frame::classic(ArbitrationId::standard(3 << 5 | command), payload);
        bench.core.received(0, Origin::Wire, &frame, bench.now, &mut bench.wire);
    }
    bench.odrive_says(A, CLOSED_LOOP, 2.0);
    bench.beat(&mut session);
    bench.run(2 * TICK);
    assert_eq!(trips(&bench), []);
}

#[test]
fn a_motor_that_others_may_command_is_not_stopped_by_them() {
    const ELSEWHERE: &str =
        "[upstream]\naddress = \"http://192.168.1.7:8080\"\n[upstream.resources]\nm = [\"a\"]\n";
    const HERE: &str = "[upstream]\naddress = \"http://127.0.0.1:8081\"\n[upstream.resources]\nm = [\"a\"]\n";
    for (motor, more, expected) in [
        ("other_masters = true\n", "", &[][..]),
        ("", ELSEWHERE, &[]),
        ("other_masters = false\n", ELSEWHERE, &[Reason::OtherMaster]),
        ("", HERE, &[Reason::OtherMaster]),
    ] {
        let (mut bench, _session) = driven(motor, more);
        bench.is_commanded(Origin::Wire, A);
        assert_eq!(trips(&bench), expected, "{motor}{more}");
    }
}

#[test]
fn where_the_drives_are_local_every_master_is() {
    let (mut bench, _session) = driven("", "");
    bench.core.drives_are_local(0);
    bench.is_commanded(Origin::Wire, A);
    assert_eq!(trips(&bench), []);
}

/// Where two buses lead to one wire, what the front sends on the first comes in over the second as from there.
#[test]
fn the_fronts_own_frames_over_the_second_bus_make_no_other_master() {
    let (mut bench, _session) = driven("second_bus = \"can1\"\n", "");
    let motion = Frame::classic(ArbitrationId::standard(0x6D), &[0, 0, 128, 63, 0, 0, 0, 0]);
    bench.core.received(1, Origin::Wire, &motion, bench.now, &mut bench.wire);
    assert_eq!(trips(&bench), []);
    bench.core.received(0, Origin::Wire, &motion, bench.now, &mut bench.wire);
    assert_eq!(trips(&bench), [Reason::OtherMaster]);
}

/// A set-point of 0, which is the second frame of an ODrive's stop.
fn stop() -> Frame {
    Frame::classic(ArbitrationId::standard(0x6D), &[0; 8])
}

/// The session and its drive go on for that long, milliseconds.
fn go_on(bench: &mut Bench, session: &mut shm_proto::BeatWriter, millis: u64) {
    for _ in 0..millis / 10 {
        bench.beat(session);
        bench.odrive_says(A, CLOSED_LOOP, 2.0);
        bench.run(10 * MS);
    }
}

/// Has that many stops come in, 10 ms apart, while the session goes on.
fn is_stopped(bench: &mut Bench, session: &mut shm_proto::BeatWriter, origin: Origin, times: u32) {
    for _ in 0..times {
        bench.core.received(0, origin, &stop(), bench.now, &mut bench.wire);
        go_on(bench, session, 10);
    }
}

#[test]
fn stops_of_others_are_told_and_end_the_grant_if_they_go_on() {
    for origin in [Origin::Wire, Origin::Job] {
        let (mut bench, mut session) = driven("", "");
        is_stopped(&mut bench, &mut session, origin, 1);
        let [told] = bench.events(EventKind::ForeignStops)[..] else { panic!("told at once: {origin:?}") };
        assert!(told.motors.iter().eq([A]), "{told:?}");
        is_stopped(&mut bench, &mut session, origin, 20);
        assert_eq!((trips(&bench), state(&bench, A)), (vec![], MotorState::Granted), "{origin:?}");
        is_stopped(&mut bench, &mut session, origin, 10);
        assert_eq!(trips(&bench), [Reason::OtherMaster], "{origin:?}");
        assert!(!bench.sent_to(A).is_empty(), "{origin:?}");
        assert_eq!(bench.events(EventKind::ForeignStops).len(), 1, "not each of them is told");
    }
}

#[test]
fn the_fronts_own_zero_is_no_stop_of_others() {
    let (mut bench, mut session) = driven("", "");
    is_stopped(&mut bench, &mut session, Origin::Local, 100);
    assert_eq!((trips(&bench), bench.events(EventKind::ForeignStops)), (vec![], vec![]));
}

#[test]
fn others_that_may_command_may_stop_but_no_job_may() {
    for (origin, expected) in [(Origin::Wire, &[][..]), (Origin::Job, &[Reason::OtherMaster])] {
        let (mut bench, mut session) = driven("other_masters = true\n", "");
        is_stopped(&mut bench, &mut session, origin, 50);
        assert_eq!(trips(&bench), expected, "{origin:?}");
    }
}

/// The largest bus takes half a second for a round.
#[test]
fn stops_may_be_slow_and_a_pause_ends_them() {
    for (pauses, expected) in [
        (&[900][..], &[][..]),
        (&[900, 900], &[Reason::OtherMaster]),
        (&[120, 120], &[]),
        (&[120, 130], &[Reason::OtherMaster]),
        (&[900, 1000], &[Reason::OtherMaster]),
        (&[900, 1010, 900], &[]),
    ] {
        let (mut bench, mut session) = driven("", "");
        is_stopped(&mut bench, &mut session, Origin::Job, 1);
        for pause in pauses {
            go_on(&mut bench, &mut session, pause - 10);
            is_stopped(&mut bench, &mut session, Origin::Job, 1);
        }
        assert_eq!(trips(&bench), expected, "{pauses:?}");
    }
}

#[test]
fn stops_that_go_on_are_told_again_after_a_while() {
    let (mut bench, mut session) = driven("", "");
    for (seconds, told) in [(0, 1), (3, 1), (3, 2)] {
        go_on(&mut bench, &mut session, seconds * 1000);
        is_stopped(&mut bench, &mut session, Origin::Wire, 1);
        assert_eq!(bench.events(EventKind::ForeignStops).len(), told);
    }
    assert_eq!(trips(&bench), []);
}

#[test]
fn a_new_grant_is_not_ended_for_the_stops_before_it() {
    let (mut bench, mut session) = driven("", "");
    is_stopped(&mut bench, &mut session, Origin::Job, 27);
    assert_eq!(trips(&bench), [Reason::OtherMaster]);
    bench.rest(A);
    bench.run(2 * TICK);
    bench.rest(A);
    bench.run(2 * TICK);
    let mut next = bench.drive(1, &[A]);
    is_stopped(&mut bench, &mut next, Origin::Job, 20);
    assert_eq!((trips(&bench), state(&bench, A)), (vec![Reason::OtherMaster], MotorState::Granted));
}

/// Where two buses lead to one wire, our own stop of a mate comes in over the second.
#[test]
fn stops_over_the_second_bus_count_only_if_a_job_sends_them() {
    for (origin, expected) in [(Origin::Wire, &[][..]), (Origin::Job, &[Reason::OtherMaster])] {
        let (mut bench, mut session) = driven("second_bus = \"can1\"\n", "");
        for _ in 0..30 {
            bench.core.received(1, origin, &stop(), bench.now, &mut bench.wire);
            go_on(&mut bench, &mut session, 10);
        }
        assert_eq!(trips(&bench), expected, "{origin:?}");
    }
}

#[test]
fn where_the_drives_are_local_stops_from_the_wire_cannot_be_told() {
    for (origin, expected) in [(Origin::Wire, &[][..]), (Origin::Job, &[Reason::OtherMaster])] {
        let (mut bench, mut session) = driven("", "");
        bench.core.drives_are_local(0);
        is_stopped(&mut bench, &mut session, origin, 50);
        assert_eq!(trips(&bench), expected, "{origin:?}");
    }
}

#[test]
fn stops_for_a_motor_that_is_nobodys_are_no_matter() {
    let (mut bench, mut session) = driven("", "");
    let b = Frame::classic(ArbitrationId::standard(0x8D), &[0; 8]);
    for _ in 0..100 {
        bench.core.received(0, Origin::Job, &b, bench.now, &mut bench.wire);
        bench.beat(&mut session);
        bench.odrive_says(A, CLOSED_LOOP, 2.0);
        bench.run(10 * MS);
    }
    assert_eq!((trips(&bench), bench.events(EventKind::ForeignStops)), (vec![], vec![]));
}
