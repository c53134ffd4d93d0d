//! What ends a step of an enable programme, and what a drive says of itself on the way there.

use drivers::feedback::name_bits;
use drivers::{Observation, Power, Refusal, Until};

const POWERS: [Power; 5] = [Power::Off, Power::Transition, Power::On, Power::QuickStop, Power::Fault];

fn power(power: Power) -> Observation {
    Observation { power: Some(power), ..Observation::default() }
}

/// Fails if the front goes on before the drive is where the step wants it, or never.
#[test]
fn a_step_waits_for_what_it_names() {
    for wanted in POWERS {
        for seen in POWERS {
            assert_eq!(Until::Power(wanted).met_by(&power(seen)), wanted == seen, "{wanted:?} {seen:?}");
            assert_eq!(Until::NotPower(wanted).met_by(&power(seen)), wanted != seen, "{wanted:?} {seen:?}");
        }
    }
    let state = |state| Observation { state: Some(state), ..Observation::default() };
    assert!(Until::State(8).met_by(&state(8)) && !Until::State(8).met_by(&state(1)));
    let answer = |request| Observation { answer: Some(request), ..Observation::default() };
    assert!(Until::Answer(7).met_by(&answer(7)) && !Until::Answer(7).met_by(&answer(6)));
}

/// Fails if a frame that says nothing of the power, the state or the request lets the front go on.
#[test]
fn silence_ends_no_step() {
    let nothing = Observation::default();
    for until in [Until::Power(Power::On), Until::NotPower(Power::Fault), Until::State(0), Until::Answer(0)] {
        assert!(!until.met_by(&nothing), "{until:?}");
        assert_eq!(until.refused_by(&nothing), None, "{until:?}");
    }
}

/// Fails if the refusal of a request is not seen, or if that of another one ends the programme.
#[test]
fn only_the_request_that_is_waited_for_is_refused() {
    let refusal = Refusal { request: 7, code: 0x0602_0000 };
    let seen = Observation { refused: Some(refusal), ..Observation::default() };
    assert_eq!(Until::Answer(7).refused_by(&seen), Some(refusal));
    assert_eq!(Until::Answer(6).refused_by(&seen), None);
    assert_eq!(Until::State(7).refused_by(&seen), None, "a state is no request");
}

/// Fails if a fault is left out of what an operator reads, or told twice.
#[test]
fn every_bit_of_a_fault_is_named_once() {
    let names: &[(u32, &str)] = &[(1, "over voltage"), (4, "over current"), (0x18, "hot"), (0, "never")];
    let words = |bits| {
        let mut text = String::new();
        name_bits(bits, names, &mut text).unwrap();
        text
    };
    assert_eq!(words(1), "over voltage");
    assert_eq!(words(5), "over voltage, over current");
    assert_eq!(words(0x18), "hot");
    assert_eq!(words(0x08), "0x8", "half of a field is another value");
    assert_eq!(words(0x1C), "over current, hot");
    assert_eq!(words(0x105), "over voltage, over current, 0x100");
    assert_eq!(words(0), "0x0", "something is said in any case");
}
