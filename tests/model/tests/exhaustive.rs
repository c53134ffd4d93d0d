//! Every state of the model, within a few scopes that together contain every event.

use std::time::{Duration, Instant};

use drivers::AfterStop;
use lanyard_model::supervisor::{Before, Settings};
use lanyard_model::{Forgers, Scope};
use shm_proto::verdicts::{Reason, ResetPolicy};
use stateright::{Checker, HasDiscoveries, Model};

/// Nothing but sessions, commands, frames and feedback.
const fn quiet(policy: ResetPolicy, after: AfterStop) -> Scope {
    Scope {
        settings: Settings { policy, after },
        before: Before::None,
        opens: 2,
        estops: 0,
        bus_failures: 0,
        bus_doubts: 0,
        front_deaths: 0,
        front_starts: 0,
        front_silences: 0,
        drive_faults: 0,
        drive_starts: 0,
        presses: 0,
        hangs: 0,
        supervisor_deaths: 0,
        forgers: Forgers::None,
    }
}

/// A run that has not come to its end by then proves nothing, and fails. On an idle machine every scope
/// takes some seconds.
const PATIENCE: Duration = Duration::from_secs(300);

/// Visits every state and judges all properties. `at_least` is half of what there was to see when this was
/// written: a model that has lost its states is noticed even if it still reaches every named event.
fn explore(name: &str, scope: Scope, at_least: usize) {
    let began = Instant::now();
    // What must be reached is a discovery, too, and no reason to end early; what must not be reached is one.
    let ends = HasDiscoveries::AnyFailures;
    let checker = scope.checker().threads(2).timeout(PATIENCE).finish_when(ends).spawn_bfs().join();
    let states = checker.unique_state_count();
    println!(
        "{name}: {states} states, {} transitions, {} steps deep, {:.1} s",
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64()
    );
    assert!(began.elapsed() < PATIENCE, "{name}: not every state was visited");
    checker.assert_properties();
    assert!(states >= at_least, "{name}: the model has lost most of its states");
}

#[test]
fn sessions_and_a_restarted_front_with_automatic_reset() {
    let scope = Scope { front_deaths: 1, front_starts: 1, ..quiet(ResetPolicy::Auto, AfterStop::Release) };
    explore("automatic", scope, 1_000_000);
}

#[test]
fn sessions_with_manual_reset() {
    explore("manual", quiet(ResetPolicy::Manual, AfterStop::Hold), 880_000);
}

#[test]
fn everything_that_befalls_the_front_and_the_drive() {
    let scope = Scope {
        opens: 1,
        front_deaths: 1,
        front_starts: 1,
        front_silences: 1,
        drive_faults: 1,
        ..quiet(ResetPolicy::Manual, AfterStop::Hold)
    };
    explore("front and drive", scope, 2_700_000);
}

#[test]
fn a_drive_that_turns_by_itself() {
    for (policy, after) in [(ResetPolicy::Auto, AfterStop::Hold), (ResetPolicy::Manual, AfterStop::Release)] {
        let scope = Scope { opens: 1, drive_starts: 2, ..quiet(policy, after) };
        explore(&format!("by itself, {policy:?}"), scope, 210_000);
    }
}

#[test]
fn a_front_that_stays_silent() {
    let scope = Scope { front_silences: 1, ..quiet(ResetPolicy::Auto, AfterStop::Hold) };
    explore("silent front", scope, 3_000_000);
}

#[test]
fn a_bus_that_fails_while_the_front_may_die() {
    let scope = Scope {
        opens: 1,
        front_deaths: 1,
        bus_failures: 1,
        bus_doubts: 1,
        ..quiet(ResetPolicy::Auto, AfterStop::Hold)
    };
    explore("bus", scope, 400_000);
}

#[test]
fn a_bus_that_comes_and_goes() {
    let scope = Scope { opens: 1, bus_failures: 5, ..quiet(ResetPolicy::Manual, AfterStop::Release) };
    explore("flapping", scope, 1_900_000);
}

#[test]
fn operator_stops_and_resets() {
    let scope = Scope { opens: 1, estops: 2, ..quiet(ResetPolicy::Auto, AfterStop::Hold) };
    explore("operator, automatic", scope, 190_000);
    let scope = Scope { opens: 1, estops: 1, ..quiet(ResetPolicy::Manual, AfterStop::Release) };
    explore("operator, manual", scope, 110_000);
}

#[test]
fn a_supervisor_after_one_that_died() {
    for (policy, after) in [(ResetPolicy::Auto, AfterStop::Hold), (ResetPolicy::Manual, AfterStop::Release)] {
        for before in
            [Before::DiedDriving, Before::LeftOpen(Reason::Expired), Before::LeftOpen(Reason::OperatorStop)]
        {
            let scope = Scope { opens: 1, front_deaths: 1, before, ..quiet(policy, after) };
            explore(&format!("{before:?}, {policy:?}"), scope, 39_000);
        }
    }
}

#[test]
fn a_supervisor_that_hangs() {
    let scope = Scope { opens: 1, hangs: 1, ..quiet(ResetPolicy::Auto, AfterStop::Hold) };
    explore("hung", scope, 940_000);
}

#[test]
fn a_supervisor_that_is_killed() {
    let scope = Scope {
        opens: 1,
        supervisor_deaths: 1,
        forgers: Forgers::Some,
        ..quiet(ResetPolicy::Auto, AfterStop::Release)
    };
    explore("killed", scope, 570_000);
}

#[test]
fn a_stop_that_is_pressed_while_the_supervisor_may_die() {
    let scope =
        Scope { opens: 1, presses: 1, supervisor_deaths: 1, ..quiet(ResetPolicy::Auto, AfterStop::Hold) };
    explore("pressed and killed", scope, 1_270_000);
}
