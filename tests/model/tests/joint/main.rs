//! The model of two motors that one frame commands: every state of it, and its supervisor against the real one.

mod real;

use std::time::Instant;

use lanyard_model::joint::{Action, Joint, MOTORS, Pair, Part, Session, TwoMotors};
use stateright::{Checker, HasDiscoveries, Model};

/// Half of what there was to see when this was written.
const AT_LEAST: usize = 717_000;

#[test]
fn two_motors_of_one_frame() {
    let began = Instant::now();
    let checker = TwoMotors.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let states = checker.unique_state_count();
    println!("two motors: {states} states, {:.1} s", began.elapsed().as_secs_f64());
    checker.assert_properties();
    assert!(states >= AT_LEAST, "the model has lost most of its states");
}

/// What the supervisor can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Tick,
    Expire(u8),
    /// A frame of the front.
    Frame(Joint),
    /// A drive says whether it turns.
    Report(usize, Part),
    Take(usize, u8),
}

/// Gives the model one input; says whether it sends a stop.
fn apply(pair: &mut Pair, input: Input) -> bool {
    let actions: &[Action] = match input {
        Input::Tick => &[Action::Tick],
        Input::Expire(session) => &[Action::Expire(session)],
        Input::Frame(frame) => {
            pair.unread = frame;
            &[Action::Receive]
        }
        Input::Report(motor, part) => {
            pair.drives[motor] = part;
            &[Action::Report(motor)]
        }
        Input::Take(motor, session) => &[Action::Take(motor, session)],
    };
    for action in actions {
        *pair = pair.after(*action);
    }
    let sends = pair.outbox.is_some();
    if sends {
        *pair = pair.after(Action::SupervisorSends).after(Action::SupervisorFrame);
    }
    sends
}

/// Everything that can be told to it.
fn inputs(pair: &Pair) -> Vec<Input> {
    // Ticks are as likely as all else together, or hardly a stop would come to its end.
    let mut inputs = vec![Input::Tick; 6];
    let parts = [Part::Zero, Part::Motion];
    for motor in MOTORS {
        inputs.extend(parts.map(|part| Input::Report(motor, part)));
        for session in [0, 1] {
            if pair.sessions[usize::from(session)] == Session::Live {
                inputs.push(Input::Take(motor, session));
            }
        }
    }
    inputs.extend(parts.map(|part| Input::Frame([Part::Motion, part])));
    inputs.push(Input::Frame([Part::Zero, Part::Motion]));
    for session in [0, 1] {
        if pair.sessions[usize::from(session)] == Session::Live {
            inputs.push(Input::Expire(session));
        }
    }
    inputs
}

/// A walk of that many inputs, the same on every machine (SplitMix64).
fn walk(mut seed: u64, steps: usize) -> Vec<Input> {
    let mut pair = Pair::started();
    (0..steps)
        .map(|_| {
            seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            let inputs = inputs(&pair);
            let input = inputs[usize::try_from((mixed ^ (mixed >> 31)) % inputs.len() as u64).unwrap_or(0)];
            apply(&mut pair, input);
            input
        })
        .collect()
}

#[test]
fn walks_do_the_same_in_model_and_code() {
    const WALKS: u64 = 2_000;
    const STEPS: usize = 60;
    for seed in 0..WALKS {
        let path = walk(seed, STEPS);
        let (mut pair, mut real) = (Pair::started(), real::Real::started(&path));
        for (index, input) in path.iter().enumerate() {
            let sends = apply(&mut pair, *input);
            real.apply(&pair, *input, &path[index + 1..]);
            let differs = real.difference(&pair, sends);
            assert_eq!(differs, None, "walk {seed}: {:?}", &path[..=index]);
        }
    }
}
