//! What the fuzzer asks, asked of a bounded number of random inputs.

use proptest::prelude::*;

/// Bytes the fuzzer would soon find: a number of deeds, each of a sensible kind, then any content.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let deed = (0_u8..6, any::<[u8; 3]>(), small_or_any(), times(), any::<u32>()).prop_map(
        |(kind, [a, b, c], first, second, tail)| {
            // Few slots and incarnations, so that deeds meet.
            let head = [kind, a % 3, b % 6, c % 6];
            let mut bytes = head.to_vec();
            bytes.extend(first.to_le_bytes());
            bytes.extend(second.to_le_bytes());
            bytes.extend((tail % 70_000_000).to_le_bytes());
            bytes
        },
    );
    let deeds = proptest::collection::vec(deed, 0..120);
    (deeds, proptest::collection::vec(any::<u8>(), 0..200)).prop_map(|(deeds, content)| {
        let count = u8::try_from(deeds.len()).unwrap_or(u8::MAX);
        [vec![count], deeds.concat(), content].concat()
    })
}

fn small_or_any() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0_u64..200, 1 => any::<u64>()]
}

/// Nanoseconds from now, mostly within two seconds.
fn times() -> impl Strategy<Value = i64> {
    prop_oneof![3 => -2_000_000_000_i64..1_000_000_000, 1 => any::<i64>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_segment_does_harm(bytes in input()) {
        lanyard_fuzz::feed(&bytes);
    }

    #[test]
    fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        lanyard_fuzz::feed(&bytes);
    }
}

#[test]
fn nothing_at_all_does_no_harm() {
    lanyard_fuzz::feed(&[]);
    for byte in [0, 1, u8::MAX] {
        lanyard_fuzz::feed(&vec![byte; 20_000]);
    }
}
