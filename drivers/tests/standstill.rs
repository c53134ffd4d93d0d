//! What counts as proof of standstill.

use drivers::{Observation, Power, PowerProof, Proof, RevolutionsPerSecond, Standstill};

const PROOF: Proof = Proof { max_speed: RevolutionsPerSecond(0.1), samples: 3, power: PowerProof::Off };

fn speed(rps: f32) -> Observation {
    Observation { velocity: Some(RevolutionsPerSecond(rps)), ..Observation::default() }
}

fn power(power: Power) -> Observation {
    Observation { power: Some(power), ..Observation::default() }
}

/// Whether the observations, one after the other, end in a proof.
fn proven(proof: &Proof, seen: &[Observation]) -> bool {
    let mut tracker = Standstill::NOTHING_SEEN;
    seen.iter().fold(false, |_, observation| tracker.observe(proof, observation))
}

#[test]
fn slow_readings_in_a_row_and_the_drives_word() {
    let off = power(Power::Off);
    assert!(proven(&PROOF, &[off, speed(0.1), speed(-0.1), speed(0.0)]));
    assert!(proven(&PROOF, &[speed(0.0), speed(0.0), speed(0.0), off]));
    assert!(!proven(&PROOF, &[off, speed(0.0), speed(0.0)]), "two are not three");
    assert!(!proven(&PROOF, &[off, speed(0.0), speed(0.0), speed(0.2), speed(0.0)]), "not in a row");
    assert!(!proven(&PROOF, &[off, speed(0.0), speed(0.0), speed(f32::NAN)]), "NaN is not slow");
    assert!(!proven(&PROOF, &[off, speed(0.0), speed(0.0), speed(f32::NEG_INFINITY)]));
}

#[test]
fn without_the_drives_word_nothing_is_proven() {
    assert!(!proven(&PROOF, &[speed(0.0); 50]));
    assert!(!proven(&PROOF, &[power(Power::Off); 50]), "nor without a speed");
}

#[test]
fn an_earlier_word_does_not_outlive_a_later_one() {
    for later in [Power::On, Power::Transition, Power::QuickStop] {
        let seen = [power(Power::Off), speed(0.0), speed(0.0), power(later), speed(0.0)];
        assert!(!proven(&PROOF, &seen), "{later:?}");
    }
}

#[test]
fn each_demand_accepts_its_states() {
    for (demand, accepted) in [
        (PowerProof::Any, &[Power::Off, Power::Transition, Power::On, Power::QuickStop, Power::Fault][..]),
        (PowerProof::NotFollowing, &[Power::Off, Power::QuickStop, Power::Fault]),
        (PowerProof::Off, &[Power::Off, Power::Fault]),
    ] {
        let proof = Proof { power: demand, ..PROOF };
        for state in [Power::Off, Power::Transition, Power::On, Power::QuickStop, Power::Fault] {
            let seen = [power(state), speed(0.0), speed(0.0), speed(0.0)];
            assert_eq!(proven(&proof, &seen), accepted.contains(&state), "{demand:?} {state:?}");
        }
    }
    assert!(proven(&Proof { power: PowerProof::Any, ..PROOF }, &[speed(0.0); 3]));
}

#[test]
fn a_proof_of_no_samples_still_needs_one() {
    let proof = Proof { samples: 0, ..PROOF };
    assert!(!proven(&proof, &[power(Power::Off)]));
    assert!(proven(&proof, &[power(Power::Off), speed(0.0)]));
}

#[test]
fn a_long_stop_does_not_overflow() {
    let proof = Proof { samples: 255, ..PROOF };
    let mut tracker = Standstill::NOTHING_SEEN;
    tracker.observe(&proof, &power(Power::Off));
    let last = (0..1000).fold(false, |_, _| tracker.observe(&proof, &speed(0.0)));
    assert!(last);
}
