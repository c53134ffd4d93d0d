//! Verdict segments of this process alone, filled for tests.

use std::os::fd::AsFd;

use shm_proto::verdicts::{
    BusHealth, BusVerdict, Counter, Degraded, Event, EventKind, Identity, MotorSet, MotorState, MotorVerdict,
    Phase, Reason, ResetPolicy, SessionState, SessionVerdict,
};
use shm_proto::{
    Capacity, Generation, Incarnation, MotorIndex, Nanos, Owner, Reject, SessionId, SlotIndex, TripId,
    VerdictSegment, VerdictView,
};

/// A second in nanoseconds.
pub const SECOND: u64 = 1_000_000_000;
/// The moment of the tests.
pub const NOW: Nanos = Nanos(100 * SECOND);

const SESSION: SessionId = SessionId(0xff);
const OWNER: Owner = Owner { slot: SlotIndex(1), incarnation: Incarnation::new(2) };

/// A bus of a controller that is in order, with a frame under way.
pub const WELL: BusVerdict = BusVerdict {
    sent: 10,
    received: 20,
    health: BusHealth::Active,
    confirms: 1,
    confirmed: 9,
    ..BusVerdict::FRESH
};

fn before(nanos: u64) -> Nanos {
    Nanos(NOW.0 - nanos)
}

/// Motors and buses of those names, armed, nothing else.
pub fn bare(motors: &[&str], buses: &[&str]) -> (VerdictSegment, VerdictView) {
    let identity =
        Identity { config_hash: 0xab, pid: 4242, started: before(90 * SECOND), policy: ResetPolicy::Manual };
    let (segment, fd) = VerdictSegment::create(Capacity::DEFAULT, &identity, motors, buses).unwrap();
    let view = VerdictView::map(fd.as_fd(), Capacity::DEFAULT).unwrap();
    segment.phase(Phase::Armed);
    segment.beat(9_000, before(2_000_000));
    (segment, view)
}

/// A motor that nobody holds and nothing ever stopped.
pub fn idle() -> MotorVerdict {
    MotorVerdict {
        grant: None,
        state: MotorState::Idle,
        stage: 0,
        trip: TripId::NONE,
        reason: None,
        first_stop: Nanos::ZERO,
        confirmed: Nanos::ZERO,
        standstill: Nanos::ZERO,
        stops_sent: 5,
        velocity: Some(0.0),
        position: Some(1.0),
        power: 1,
        fault: 0,
        feedback: before(10_000_000),
        guarded: 0,
        violations: 0,
        moves: Nanos::ZERO,
        bus: 0,
        latched: 0,
    }
}

/// A live session drives the left motor of two; all is well.
pub fn healthy() -> (VerdictSegment, VerdictView) {
    let (segment, view) = bare(&["left", "right"], &["can0"]);
    segment.front(Generation(3), 4300);
    segment.front_beat(before(4_000_000));
    segment.bus(0, &WELL);
    let live = SessionVerdict {
        session: SESSION,
        incarnation: OWNER.incarnation,
        state: SessionState::Live,
        deadline: Nanos(NOW.0 + 1_900_000_000),
        last_beat: before(100_000_000),
        trip: TripId::NONE,
        beats: 77,
        window: 2 * SECOND,
    };
    segment.session(OWNER.slot, &live);
    let driven = MotorVerdict {
        state: MotorState::Granted,
        velocity: Some(1.5),
        position: Some(-12.5),
        power: 3,
        ..idle()
    };
    segment.motor(MotorIndex(0), &driven);
    segment.grant(MotorIndex(0), Some(OWNER));
    segment.motor(MotorIndex(1), &idle());
    segment.counter(Counter::WorstTripNanos, 43_000);
    segment.rejects(Reject::WrongSession, 6);
    (segment, view)
}

/// Everything that can be wrong at once: an expired session, an e-stop, a dead bus, a dying supervisor.
pub fn tripped() -> (VerdictSegment, VerdictView) {
    let (mut segment, view) = healthy();
    segment.phase(Phase::Stopping);
    segment.front(Generation(3), 0);
    segment.latch(TripId(7));
    segment.degraded(Degraded::Scheduling.number() | Degraded::Memory.number());
    let off = BusVerdict {
        up: 0,
        errors: 9,
        last_error: 105,
        health: BusHealth::BusOff,
        error_frames: 3,
        queue_full: 4,
        tx_errors: 248,
        ..WELL
    };
    segment.bus(0, &off);
    let gone = SessionVerdict {
        session: SESSION,
        incarnation: OWNER.incarnation,
        state: SessionState::Tripped,
        deadline: before(3 * SECOND),
        last_beat: before(5 * SECOND),
        trip: TripId(6),
        beats: 77,
        window: 2 * SECOND,
    };
    segment.session(OWNER.slot, &gone);
    let stopped = MotorVerdict {
        state: MotorState::Stopped,
        trip: TripId(7),
        reason: Some(Reason::OperatorStop),
        first_stop: before(2 * SECOND),
        confirmed: before(2 * SECOND - 1_000_000),
        standstill: before(SECOND),
        power: 4,
        guarded: 2,
        latched: 1,
        ..idle()
    };
    segment.motor(MotorIndex(0), &stopped);
    segment.grant(MotorIndex(0), None);
    let unverified = MotorVerdict {
        state: MotorState::Unverified,
        stage: 2,
        trip: TripId(6),
        reason: Some(Reason::Expired),
        first_stop: before(3 * SECOND - 43_000),
        velocity: None,
        power: 5,
        fault: 0x0100_0000,
        feedback: Nanos::ZERO,
        latched: 1,
        ..idle()
    };
    segment.motor(MotorIndex(1), &unverified);
    segment.event(&Event::new(EventKind::Armed, before(89 * SECOND)));
    segment.event(&trip_event());
    segment.event(&Event { trip: TripId(6), ..Event::new(EventKind::Unverified, before(2 * SECOND)) });
    (segment, view)
}

/// A session fell silent while it held both motors.
pub fn trip_event() -> Event {
    let mut motors = MotorSet::default();
    motors.insert(MotorIndex(0));
    motors.insert(MotorIndex(1));
    Event {
        kind: EventKind::Trip,
        at: before(3 * SECOND - 40_000),
        trip: TripId(6),
        reason: Some(Reason::Expired),
        session: SESSION,
        slot: OWNER.slot,
        last_beat: before(5 * SECOND),
        deadline: before(3 * SECOND),
        first_stop: before(3 * SECOND - 43_000),
        all_stopped: before(3 * SECOND - 55_500),
        motors,
    }
}
