//! What the core publishes: whoever looks for the cause of a stop, or asks `lanyard status`, must find it.

use drivers::{ArbitrationId, Frame};
use shm_proto::verdicts::{
    BusHealth, Counter, Degraded, EventKind, Phase, Reason, ResetPolicy, SessionState,
};
use shm_proto::{Ending, Incarnation, Owner, SessionId, SlotIndex, TripId};
use supervisor::core::{Cost, Origin, Report, SendError};
use supervisor::kernel_stop;

use crate::support::{A, B, Bench, C, MS, SENDING, TICK, WINDOW};

/// Of ODrive node 3: it moves at one revolution per second.
fn moving() -> Frame {
    Frame::classic(ArbitrationId::standard(0x069), &[0, 0, 0, 64, 0, 0, 128, 63])
}

/// Fails if one refusal hides another, or one that was told is forgotten.
#[test]
fn what_the_system_refused_stays_on_record() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    for refused in [Degraded::Memory, Degraded::KernelStop, Degraded::Memory] {
        bench.core.degraded(refused.number());
    }
    let told: Vec<Degraded> = bench.view.degraded().collect();
    assert_eq!(told, [Degraded::Memory, Degraded::KernelStop]);
}

/// Fails if what the real-time thread costs, or what its kernel-armed stop did, is not told.
#[test]
fn costs_and_the_kernel_stop_are_counted() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let tally = kernel_stop::Tally { rearms: 8, errors: 9, overtaken: 0 };
    bench.core.kernel_stop(tally, bench.now, &mut bench.wire);
    bench.core.costs(Cost {
        allocations: 1,
        minor_faults: 2,
        major_faults: 3,
        voluntary_switches: 4,
        involuntary_switches: 5,
    });
    bench.run(TICK);
    let told = [
        Counter::Allocations,
        Counter::MinorFaults,
        Counter::MajorFaults,
        Counter::VoluntarySwitches,
        Counter::InvoluntarySwitches,
        Counter::KernelStopRearms,
        Counter::KernelStopErrors,
    ]
    .map(|counter| bench.view.counter(counter));
    assert_eq!(told, [1, 2, 3, 4, 5, 8, 9]);
}

/// Fails if a reader cannot see that the loop goes round.
#[test]
fn every_pass_is_numbered() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let (before, _) = bench.view.beat();
    for pass in 1..=3 {
        bench.core.step(bench.now, &mut bench.wire);
        assert_eq!(bench.view.beat(), (before + pass, bench.now));
    }
    bench.run(TICK);
    assert_eq!(bench.view.counter(Counter::Loops), before + 3, "as many as had ended by then");
}

/// Fails if lateness is told where there was none, or not told, or not the worst of it.
#[test]
fn a_late_pass_is_counted_from_one_tick_on() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let wake = |bench: &mut Bench, late: u64| {
        bench.now = bench.core.next_wakeup().after(late);
        bench.front.beat_at(bench.now);
        bench.core.step(bench.now, &mut bench.wire);
        let told = [Counter::LateLoops, Counter::WorstLatenessNanos];
        told.map(|counter| bench.view.counter(counter))
    };
    assert_eq!(wake(&mut bench, 0), [0, 0]);
    assert_eq!(wake(&mut bench, TICK), [0, TICK]);
    assert_eq!(wake(&mut bench, TICK + 1), [1, TICK + 1]);
    assert_eq!(wake(&mut bench, 3), [1, TICK + 1]);
    assert_eq!(wake(&mut bench, 2 * TICK), [2, 2 * TICK]);
}

/// Fails if the log does not say which front is attached, or goes on naming one that is gone.
#[test]
fn the_front_is_known_by_its_process() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    assert_eq!((bench.core.front_pid(), bench.view.front().1), (Some(42), 42));
    assert_eq!(bench.events(EventKind::FrontAttached).len(), 1);
    bench.core.detach(Reason::FrontDead, bench.now, &mut bench.wire);
    assert_eq!((bench.core.front_pid(), bench.view.front().1), (None, 0));
}

/// Fails if the front's own beats are not told: `lanyard status` shows whether it lives.
#[test]
fn the_fronts_last_beat_is_published() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    bench.run(2 * TICK);
    let last = bench.now;
    bench.front_beats(false);
    bench.run(3 * TICK);
    assert_eq!(bench.view.front_beat(), last);
}

/// Fails if the supervisor, told to exit, waits too short for drives that need every stage.
#[test]
fn the_longest_stop_is_all_stages_of_the_slowest_drive() {
    let bench = Bench::cold(ResetPolicy::Auto);
    // Three stages of 100 ms.
    assert_eq!(bench.core.longest_stop(), 300 * MS);
}

#[test]
fn the_last_word_is_that_it_has_ended() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    assert_eq!(bench.view.phase(), Some(Phase::Armed));
    bench.core.shut_down(bench.now, &mut bench.wire);
    assert_eq!(bench.view.phase(), Some(Phase::Stopping));
    bench.core.end(bench.now.after(1));
    assert_eq!(bench.view.phase(), Some(Phase::Ended));
    assert_eq!(bench.view.beat().1, bench.now.after(1));
}

/// Fails if frames are miscounted, or a refused frame is not told as what it was.
#[test]
fn frames_of_a_bus_are_counted_by_their_fate() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    let before = bench.view.bus(0).expect("bus 0");
    bench.core.received(0, Origin::Wire, &moving(), bench.now, &mut bench.wire);
    bench.core.received(0, Origin::Wire, &moving(), bench.now, &mut bench.wire);
    let odd = SendError::Other(libc::EIO);
    bench.wire.failures.push((0, [SendError::QueueFull, odd, odd].into()));
    writer.close_at(Ending::Client, bench.now);
    bench.run(3 * TICK);
    let after = bench.view.bus(0).expect("bus 0");
    assert_eq!(after.received - before.received, 2);
    assert_eq!(after.errors - before.errors, 3);
    assert_eq!(after.queue_full - before.queue_full, 1);
    assert_eq!(after.last_error, u64::from(libc::EIO.unsigned_abs()));
    let sent = bench.wire.sent.iter().filter(|(bus, _)| *bus == 0).count() as u64;
    assert_eq!((after.sent - before.sent, sent > 0), (sent, true));
    assert_eq!((after.up, after.health), (1, BusHealth::Unknown), "busy is not broken");
    assert_eq!(bench.view.counter(Counter::SendErrors), 3);
}

/// Fails if stop frames are miscounted: a stage whose frames did not all go out counts for none.
#[test]
fn stop_frames_are_counted_when_their_stage_went_out() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A]);
    let stops = |bench: &Bench| {
        (bench.view.motor(A).expect("motor a").stops_sent, bench.view.counter(Counter::StopFrames))
    };
    let (of_a, of_all) = stops(&bench);
    bench.wire.failures.push((0, [SendError::QueueFull, SendError::QueueFull].into()));
    writer.close_at(Ending::Client, bench.now);
    bench.run_until_trip();
    assert_eq!(stops(&bench), (of_a, of_all));
    bench.run(TICK + 1);
    assert_eq!(stops(&bench).0, of_a + 2);
    bench.run(TICK);
    assert_eq!(stops(&bench), (of_a + 2, of_all + 2));
}

/// Fails if what the interface's driver says of its controller is not told.
#[test]
fn counters_and_abilities_of_the_controller_are_published() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    bench.core.bus_counters(1, 130, 7);
    bench.core.bus_confirms(1, true);
    bench.run(TICK);
    let bus = bench.view.bus(1).expect("bus 1");
    assert_eq!((bus.tx_errors, bus.rx_errors, bus.confirms), (130, 7, 1));
    let other = bench.view.bus(0).expect("bus 0");
    assert_eq!((other.tx_errors, other.rx_errors, other.confirms), (0, 0, 0));
    bench.core.bus_confirms(1, false);
    bench.run(TICK);
    assert_eq!(bench.view.bus(1).expect("bus 1").confirms, 0);
}

/// Fails if a bit of the kernel's error frames is read as another.
#[test]
fn error_frames_are_read_bit_by_bit() {
    let health = |classes, controller| Report::new(classes, [0, controller, 0, 0, 0, 0, 0, 0]).health;
    for (controller, wanted) in [
        (0x04, BusHealth::Warning),
        (0x08, BusHealth::Warning),
        (0x10, BusHealth::Passive),
        (0x20, BusHealth::Passive),
        (0x40, BusHealth::Active),
    ] {
        assert_eq!(health(0x004, controller), Some(wanted), "{controller:#x}");
        assert_eq!(health(0x200, controller), None, "{controller:#x} of another class means nothing");
    }
    assert_eq!(health(0x004, 0x03), None, "overruns of its buffers say nothing of the bus");
    assert_eq!(health(0x040, 0), Some(BusHealth::BusOff));
    assert_eq!(health(0x100, 0), Some(BusHealth::Active));
    assert_eq!(Report::new(0x004, [1; 8]).counters, None);
    assert_eq!(Report::new(0x200, [0, 0, 0, 0, 0, 0, 5, 6]).counters, Some((5, 6)));
}

/// Fails if error numbers of `send` are taken for others: a full queue must never look like a dead bus.
#[test]
fn error_numbers_of_send_are_told_apart() {
    for (errno, error, fatal) in [
        (libc::ENOBUFS, SendError::QueueFull, false),
        (libc::EAGAIN, SendError::QueueFull, false),
        (libc::ENETDOWN, SendError::Down, true),
        (libc::ENODEV, SendError::Gone, true),
        (libc::ENXIO, SendError::Gone, true),
        (libc::EIO, SendError::Other(libc::EIO), false),
    ] {
        assert_eq!((SendError::from_errno(errno), error.is_fatal_for_bus()), (error, fatal), "{errno}");
    }
    let told =
        [SendError::QueueFull, SendError::Down, SendError::Gone, SendError::Other(5)].map(SendError::errno);
    assert_eq!(told, [libc::ENOBUFS, libc::ENETDOWN, libc::ENODEV, 5]);
}

/// Fails if a bus that dies under a stop is told twice, or with the motors of another.
#[test]
fn a_bus_that_refuses_frames_is_told_once_with_its_motors() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(0, &[A, C]);
    bench.wire.failures.push((0, vec![SendError::Down; 1_000].into()));
    writer.close_at(Ending::Client, bench.now);
    bench.run(40 * TICK);
    let [down] = bench.events(EventKind::BusDown)[..] else { panic!("told once") };
    assert!(down.motors.contains(A) && down.motors.contains(B) && !down.motors.contains(C));
    let bus = bench.view.bus(0).expect("bus 0");
    assert_eq!((bus.up, bus.health), (0, BusHealth::Down));
    assert_eq!(bench.view.bus(1).expect("bus 1").up, 1);
    bench.core.bus_down(0, SendError::Down.errno(), bench.now, &mut bench.wire);
    bench.run(TICK);
    assert_eq!(bench.events(EventKind::BusDown).len(), 1);
    bench.wire.failures.clear();
    bench.core.bus_up(0, bench.now, &mut bench.wire);
    let [up] = bench.events(EventKind::BusUp)[..] else { panic!("told once") };
    assert_eq!(up.motors, down.motors);
    // Nothing was wrong with it.
    bench.core.bus_up(1, bench.now, &mut bench.wire);
    assert_eq!(bench.events(EventKind::BusUp).len(), 1);
}

/// Fails if a session's life is told wrongly: who, since when, until when, and by what it was ended.
#[test]
fn a_session_is_published_with_its_beats_and_its_end() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.drive(3, &[A]);
    for _ in 0..4 {
        bench.run(TICK);
        bench.beat(&mut writer);
    }
    let last = bench.now;
    bench.run(10 * TICK);
    let verdict = bench.view.session(SlotIndex(3)).expect("slot 3");
    assert_eq!((verdict.session, verdict.incarnation), (SessionId(4), writer.owner().incarnation));
    assert_eq!((verdict.state, verdict.beats), (SessionState::Live, 5));
    assert_eq!((verdict.last_beat, verdict.deadline), (last, last.after(WINDOW.0)));
    assert_eq!((verdict.window, verdict.trip), (WINDOW.0, TripId::NONE));
    assert_eq!(bench.view.session(SlotIndex(2)).expect("slot 2").state, SessionState::Vacant);
    writer.close_at(Ending::Client, bench.now);
    bench.run(2 * TICK);
    let [trip] = bench.events(EventKind::Trip)[..] else { panic!("one trip") };
    assert_eq!((trip.session, trip.slot), (SessionId(4), SlotIndex(3)));
    assert_eq!(bench.view.session(SlotIndex(3)).expect("slot 3").trip, trip.trip);
}

/// Fails if accepted beats are miscounted.
#[test]
fn accepted_beats_are_counted() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut writer = bench.open(0);
    bench.front_beats(false);
    bench.run(2 * TICK);
    let before = bench.view.counter(Counter::Beats);
    assert!(before > 0);
    for _ in 0..3 {
        bench.beat(&mut writer);
        bench.run(2 * TICK);
    }
    assert_eq!(bench.view.counter(Counter::Beats) - before, 3);
}

/// Fails if a wrong owner word is not counted, or counted on every tick.
#[test]
fn an_owner_word_that_names_nobody_is_counted_once() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let _writer = bench.drive(0, &[A]);
    let ghost = Owner { slot: SlotIndex(5), incarnation: Incarnation::new(77) };
    bench.beats.take_motor(A, ghost);
    bench.run(4 * TICK);
    assert_eq!(bench.view.counter(Counter::BadOwners), 1);
}

/// Fails if the time from a deadline to its first stop frame is not told, or told of other stops.
#[test]
fn the_worst_trip_is_the_longest_from_a_deadline_to_its_stop() {
    let mut bench = Bench::new(ResetPolicy::Auto);
    let mut closing = bench.drive(0, &[A]);
    closing.close_at(Ending::Client, bench.now);
    bench.run(2 * TICK);
    let [closed] = bench.events(EventKind::Trip)[..] else { panic!("one trip") };
    assert!(closed.first_stop > closed.deadline);
    assert_eq!(bench.view.counter(Counter::WorstTripNanos), 0, "a goodbye is no deadline that passed");
    let _silent = bench.drive(1, &[C]);
    bench.run(WINDOW.0 + TICK);
    let [_, expired] = bench.events(EventKind::Trip)[..] else { panic!("two trips") };
    let took = expired.first_stop.since(expired.deadline);
    // The first two frames are the drive's stop, and the stamp comes after them.
    assert_eq!(took, 2 * SENDING);
    assert_eq!((bench.view.counter(Counter::WorstTripNanos), took > 0), (took, true));
}
