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

/// Bytes that parsers know the beginnings of, and any others.
fn said() -> impl Strategy<Value = Vec<u8>> {
    let known = prop_oneof![
        Just(b"\x07xEtRoK\x07".to_vec()),
        Just(b"< send 123 1 ".to_vec()),
        Just(b"< add 0 1 123 0 >".to_vec()),
        Just(b"\x02\0\x01\0\x01".to_vec()),
        Just(br#"{"destination":"","path":{"Hops":0},"target":{"Plain":""#.to_vec()),
        Just(b"\x10\x0d\0\x04MQTT\x05".to_vec()),
        Just(b"127.0.0.1:1".to_vec()),
    ];
    let any = proptest::collection::vec(any::<u8>(), 0..12);
    proptest::collection::vec(prop_oneof![known, any], 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn no_parser_is_harmed(bytes in said()) {
        for parser in front::parsers() {
            (parser.feed)(&bytes);
        }
    }
}

#[test]
fn everything_that_is_fed_has_a_name_of_its_own() {
    let names: Vec<_> = front::parsers().map(|parser| parser.name).collect();
    for name in &names {
        assert!(lanyard_fuzz::fed(name).is_ok());
        assert_eq!(names.iter().filter(|other| *other == name).count(), 1, "{name}");
    }
    let error = lanyard_fuzz::fed("nobody").unwrap_err();
    assert!(error.contains("beats, kortex-frame"), "{error}");
}
