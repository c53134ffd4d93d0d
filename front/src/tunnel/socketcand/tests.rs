//! Elements that pass, elements that do not, and what the real server would make of what went on.

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use proptest::{prop_assert, prop_assert_eq, proptest};

use super::*;

/// What python-can's socketcand interface said to a socketcand, and what it was answered.
const RECORDED: &str = include_str!("../../../tests/vectors/socketcand.txt");

/// What became of some reads.
#[derive(Debug, Default, PartialEq)]
struct Passed {
    on: Vec<u8>,
    back: Vec<u8>,
    commands: u32,
    fault: Option<Fault>,
}

/// Passes reads until one ends the link.
fn passed<'a>(filter: &mut Socketcand, reads: impl IntoIterator<Item = &'a [u8]>) -> Passed {
    let mut all = Passed::default();
    for read in reads {
        let before = all.on.len();
        match filter.pass(read, Standing::Free, &mut all.on, &mut all.back) {
            Ok(content) => {
                // A listed frame goes on and is no beat.
                let went_on = all.on.len() > before;
                let is_right =
                    if filter.reach.is_some() { went_on || !content.beats } else { went_on == content.beats };
                assert!(is_right, "a beat without anything that goes on, or none");
                all.commands += content.commands;
            }
            Err(fault) => {
                all.fault = Some(fault);
                break;
            }
        }
    }
    all
}

fn strict() -> Socketcand {
    Socketcand::new(Some("can0"), Cyclic::Refused, None)
}

fn lenient() -> Socketcand {
    Socketcand::new(None, Cyclic::Allowed, None)
}

/// What went on of one read.
fn on(filter: &mut Socketcand, read: &str) -> String {
    String::from_utf8(passed(filter, [read.as_bytes()]).on).expect("as it came")
}

#[test]
fn what_python_can_says_passes_unchanged() {
    let mut filter = strict();
    let mut commands = 0;
    let lines = RECORDED.lines().filter_map(|line| line.strip_prefix("C->S b'")?.strip_suffix('\''));
    let elements: Vec<&str> = lines.collect();
    assert_eq!(elements.len(), 9, "the recording was not read");
    for element in elements {
        let passed = passed(&mut filter, [element.as_bytes()]);
        assert_eq!(passed.on, element.as_bytes());
        assert_eq!((passed.back.as_slice(), passed.fault), (&b""[..], None));
        commands += passed.commands;
    }
    assert_eq!(commands, 7, "handshakes command nothing, frames do");
}

#[test]
fn every_word_has_its_form() {
    let commands = [
        "< send 123 0 >",
        "< send 7FF 8 0 11 22 33 44 55 66 ff >",
        "< send 1FFFFFFF 1 a >",
        "< fdsend 123 01 12 1 2 3 4 5 6 7 8 9 a b c >",
        "< isotpconf 700 708 0 0 0 >",
        "< sendpdu 02100155667788 >",
    ];
    let jobs = ["< add 0 10000 141 2 a2 0 >", "< update 141 2 a2 1 >", "< sendpdu 0210015566778899 >"];
    let others = [
        "< open can0 >",
        "< rawmode >",
        "< bcmmode >",
        "< isotpmode >",
        "< controlmode >",
        "< echo >",
        "< delete 141 >",
        "< subscribe 0 0 141 >",
        "< unsubscribe 00000141 >",
        "< filter 0 0 141 1 ff >",
        "< muxfilter 0 0 141 2 ff 00 00 00 00 00 00 00 33 FF 00 00 00 00 00 00 >",
        "< statistics 1000 >",
    ];
    for (elements, each) in [(&commands[..], 1), (&others[..], 0)] {
        for element in elements {
            let passed = passed(&mut strict(), [element.as_bytes()]);
            assert_eq!((passed.on.as_slice(), passed.commands), (element.as_bytes(), each), "{element}");
            assert_eq!(passed.back, b"", "{element}");
        }
    }
    for element in jobs {
        let refused = passed(&mut strict(), [element.as_bytes()]);
        assert_eq!((refused.on.as_slice(), refused.back.as_slice()), (&b""[..], NOT_BY_ITSELF), "{element}");
        let allowed = passed(&mut lenient(), [element.as_bytes()]);
        assert_eq!((allowed.on.as_slice(), allowed.commands), (element.as_bytes(), 1), "{element}");
    }
}

/// Each of these is something that C's scanf, or the server's own comparison, would take or might take.
#[test]
fn other_forms_are_refused_even_where_the_server_takes_them() {
    let malformed = [
        "< send 0x123 1 f1 >",
        "< send -1 0 >",
        "< send +12 0 >",
        "< send 123456789 0 >",
        "< send 800 0 >",
        "< send FFFFFFFF 0 >",
        "< send 40000123 0 >",
        "< send 123 9 0 0 0 0 0 0 0 0 0 >",
        "< send 123 258 1 2 >",
        "< send 123 -0 >",
        "< send 123 2 1 >",
        "< send 123 1 1 2 >",
        "< send 123 1 100 >",
        "< send 123 1 0x >",
        "< send 123 >",
        "< send  >",
        "< sendpdu  0210 >",
        "< sendpdu 021 >",
        "< sendpdu 02 10 >",
        "< open can0 can1 >",
        "< delete 141 0 >",
        "< statistics -1 >",
    ];
    let unknown = [
        "<>",
        "< >",
        "<send 123 0 >",
        "<  send 123 0 >",
        "< send >",
        "< send 123 0>",
        "< SEND 123 0 >",
        "< Add 0 10000 141 0 >",
        "< ADD 0 10000 141 0 >",
        "<add 0 10000 141 0 >",
        "<  add 0 10000 141 0 >",
        "< echo>",
        "< can0 B 500000 >",
        "< rawmode>",
        "< Rawmode >",
        "< sen 123 0 >",
        "< sendx 123 0 >",
        "< hi >",
        "< open can0>",
        "< echo can0 >",
        "< echo  >",
    ];
    for mut filter in [strict(), lenient()] {
        for (elements, answer) in [(&malformed[..], MALFORMED), (&unknown[..], UNKNOWN)] {
            for element in elements {
                let passed = passed(&mut filter, [element.as_bytes()]);
                assert_eq!(String::from_utf8_lossy(&passed.on), "", "{element}");
                assert_eq!(passed.back, answer, "{element}");
                assert_eq!((passed.commands, passed.fault), (0, None), "{element}");
            }
        }
    }
}

#[test]
fn only_one_bus_is_opened() {
    for element in ["< open can1 >", "< open can00 >", "< open CAN0 >", "< open abcdefghijklmnop >"] {
        let passed = passed(&mut strict(), [element.as_bytes()]);
        assert_eq!((passed.on.as_slice(), passed.back.as_slice()), (&b""[..], NO_SUCH_BUS), "{element}");
    }
    assert_eq!(on(&mut lenient(), "< open can1 >"), "< open can1 >");
    assert_eq!(on(&mut lenient(), "< open abcdefghijklmnop >"), "", "longer than an interface's name");
}

#[test]
fn elements_wait_for_their_end_and_go_on_in_one_piece() {
    let mut filter = strict();
    assert_eq!(on(&mut filter, "< send 123"), "");
    assert_eq!(on(&mut filter, " 1 f1 "), "");
    assert_eq!(on(&mut filter, ">< echo ><"), "< send 123 1 f1 >< echo >");
    assert_eq!(on(&mut filter, " echo >\r\n"), "< echo >");
    assert_eq!(on(&mut filter, "\n \t< echo >\n< echo >\n"), "< echo >< echo >");
}

#[test]
fn refused_elements_do_not_take_their_neighbours_along() {
    let read = b"< send 123 0 >< add 0 10000 141 0 >< echo >< open can1 >< send 124 0 >";
    let passed = passed(&mut strict(), [&read[..]]);
    assert_eq!(passed.on, b"< send 123 0 >< echo >< send 124 0 >");
    assert_eq!(passed.back, [NOT_BY_ITSELF, NO_SUCH_BUS].concat());
    assert_eq!((passed.commands, passed.fault), (2, None));
}

#[test]
fn bytes_of_no_element_end_the_link() {
    let fault = |read: &[u8]| passed(&mut strict(), [read]).fault;
    assert_eq!(fault(b"GET / HTTP/1.1\r\n"), Some(Fault::Outside(b'G')));
    // The real server takes the first > for the end, wherever the < is.
    assert_eq!(fault(b"> < add 0 10000 141 0 >"), Some(Fault::Outside(b'>')));
    assert_eq!(fault(b"< echo >x"), Some(Fault::Outside(b'x')));
    assert_eq!(fault(b"< echo < add 0 10000 141 0 >"), Some(Fault::Nested));
    assert_eq!(fault(b"< echo\0 >"), Some(Fault::Unprintable(0)));
    assert_eq!(fault(b"< send\t123 0 >"), Some(Fault::Unprintable(b'\t')));
    assert_eq!(fault(b"< send 123\n0 >"), Some(Fault::Unprintable(b'\n')));
    assert_eq!(fault("< send 12\u{b2} 0 >".as_bytes()), Some(Fault::Unprintable(0xC2)));
    assert_eq!(fault(&[0]), Some(Fault::Outside(0)));
}

#[test]
fn what_never_ends_is_not_held_for_ever() {
    let longest = format!("< sendpdu {} >", "ab".repeat(4_095));
    assert_eq!(on(&mut lenient(), &longest), longest);
    let mut filter = strict();
    let endless = vec![b'a'; LONGEST - 1];
    assert_eq!(passed(&mut filter, [&b"<"[..], &endless]).fault, None);
    assert_eq!(passed(&mut filter, [&b">"[..]]).fault, Some(Fault::Endless(LONGEST)));
}

/// What the real server takes for elements, when it waits for the rest of half ones: it looks for the first `<`, and for
/// the first `>` behind the first byte.
fn taken_by_the_server(mut buffer: &[u8]) -> Vec<Vec<u8>> {
    let mut elements = Vec::new();
    while let Some(start) = buffer.iter().position(|byte| *byte == b'<') {
        let Some(stop) = buffer.iter().skip(1).position(|byte| *byte == b'>') else { break };
        let stop = stop + 1;
        elements.push(buffer.get(start..=stop).unwrap_or_default().to_vec());
        let next = buffer[stop..].iter().position(|byte| *byte == b'<');
        buffer = next.map_or(&[][..], |next| &buffer[stop + next..]);
    }
    elements
}

/// Words, arguments and gaps of elements, right ones and others.
const WORDS: &[&str] = &[
    "add",
    "update",
    "send",
    "sendpdu",
    "open",
    "echo",
    "delete",
    "rawmode",
    "fdsend",
    "subscribe",
    "ADD",
    "Update",
    "isotpconf",
];
const ARGUMENTS: &[&str] = &[
    "0 10000 141 8 a2 0 0 0 0 0 0 0",
    "141 1 a2",
    "141 0",
    "can0",
    "can1",
    "0 0 141",
    "",
    "0210",
    "0x141 1 1",
    "1FFFFFFF 1 f",
    "0210015566778899",
];
const GAPS: &[&str] = &[" ", "", "  ", "\t", "\n", "\0"];
const NOISE: &[&[u8]] = &[b"<", b">", b" ", b"\n", b"a", b"\0", b"< add ", b" >"];

/// Elements of good form, elements in any case and spacing, and what else may come between.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let sound = (select(WORDS), select(ARGUMENTS));
    let gaps = [select(GAPS), select(GAPS), select(GAPS)];
    prop_oneof![
        12 => sound.clone().prop_map(|(word, rest)| format!("< {word} {rest} >").into_bytes()),
        2 => (sound, gaps).prop_map(|((word, rest), [a, b, c])| format!("<{a}{word}{b}{rest}{c}>").into_bytes()),
        1 => select(NOISE).prop_map(<[u8]>::to_vec),
        2 => Just(b"< send 123 2 1 f1 >".to_vec()),
        1 => vec(any::<u8>(), 0..6),
    ]
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    vec(piece(), 0..12).prop_map(|pieces| pieces.concat())
}

/// The same bytes in other reads.
fn split<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn splits_change_nothing(bytes in stream(), cuts in vec(any::<usize>(), 0..20)) {
        for make in [strict, lenient] {
            let whole = passed(&mut make(), [bytes.as_slice()]);
            let split = passed(&mut make(), split(&bytes, &cuts));
            prop_assert_eq!(&whole.on, &split.on);
            prop_assert_eq!(&whole.back, &split.back);
            prop_assert_eq!(whole.fault, split.fault);
        }
    }

    /// Of what goes on the server takes exactly the elements that were looked at, each of a word and form it may have.
    #[test]
    fn nothing_refused_reaches_the_server(bytes in stream(), cuts in vec(any::<usize>(), 0..20)) {
        let mut filter = strict();
        let mut all = Vec::new();
        for read in split(&bytes, &cuts) {
            let mut on = Vec::new();
            let outcome = filter.pass(read, Standing::Free, &mut on, &mut Vec::new());
            // Whole elements in every write: the server hangs up otherwise.
            prop_assert!(on.is_empty() || (on.starts_with(b"<") && on.ends_with(b">")));
            prop_assert_eq!(taken_by_the_server(&on).concat(), on.clone());
            all.extend_from_slice(&on);
            if outcome.is_err() {
                break;
            }
        }
        let taken = taken_by_the_server(&all);
        prop_assert_eq!(taken.concat(), all);
        for element in taken {
            let text = String::from_utf8(element).expect("printable");
            let lower = text.to_ascii_lowercase();
            let words: Vec<&str> = lower.split_ascii_whitespace().collect();
            prop_assert!(text.split(' ').nth(1) == words.get(1).copied(), "{}", text);
            prop_assert!(!matches!(words.get(1), Some(&("add" | "update"))), "{}", text);
            let opened: Vec<&str> = text.split_ascii_whitespace().collect();
            prop_assert!(words.get(1) != Some(&"open") || opened == ["<", "open", "can0", ">"], "{}", text);
            prop_assert!(!text.contains("0x") && text.is_ascii() && !text.contains(['\0', '\t', '\n']), "{}", text);
        }
    }

    #[test]
    fn any_bytes_are_taken_or_refused(bytes in vec(any::<u8>(), 0..300), cuts in vec(any::<usize>(), 0..20)) {
        let whole = passed(&mut lenient(), [bytes.as_slice()]);
        prop_assert_eq!(whole.on, passed(&mut lenient(), split(&bytes, &cuts)).on);
    }
}

/// What passes to the target of one motor of two (`parsers::ROBOT`).
fn judged(cyclic: Cyclic) -> Socketcand {
    Socketcand::new(Some("can0"), cyclic, Some(crate::tunnel::parsers::robot()))
}

#[test]
fn elements_that_send_pass_if_their_frames_do() {
    let ours = ["< send 02D 4 0 0 0 40 >", "< send 7A0 0 >", "< send 02D 8 0 0 0 0 0 0 0 0 >"];
    let jobs = ["< add 0 10000 02D 4 0 0 0 40 >", "< update 02D 4 0 0 0 40 >"];
    let theirs = ["< send 04D 4 0 0 0 40 >", "< send 0000002D 4 0 0 0 40 >", "< send 000 2 81 0 >"];
    for element in ours {
        assert_eq!(on(&mut judged(Cyclic::Refused), element), element);
    }
    for element in jobs {
        assert_eq!(on(&mut judged(Cyclic::Allowed), element), element);
        let theirs = element.replace("02D", "04D");
        let passed = passed(&mut judged(Cyclic::Allowed), [theirs.as_bytes()]);
        assert_eq!((passed.on.as_slice(), passed.commands), (&b""[..], 0), "{theirs}");
        assert!(passed.back.starts_with(b"< error frame 04D") && passed.back.ends_with(b" >"), "{theirs}");
    }
    for element in theirs {
        let passed = passed(&mut judged(Cyclic::Allowed), [element.as_bytes()]);
        assert_eq!((passed.on.as_slice(), passed.commands, &passed.fault), (&b""[..], 0, &None), "{element}");
        assert!(passed.back.starts_with(b"< error frame "), "{element}");
    }
}

/// Of what ISO-TP sends the kernel makes the frames, and nobody here sees their bytes.
#[test]
fn channels_pass_where_they_are_listed() {
    let mut filter = judged(Cyclic::Allowed);
    assert_eq!(on(&mut filter, "< isotpconf 7A0 7A8 0 0 0 >"), "< isotpconf 7A0 7A8 0 0 0 >");
    assert_eq!(on(&mut filter, "< sendpdu 0210 >"), "< sendpdu 0210 >");
    for id in ["02D", "04D", "7A1", "00000001"] {
        let passed = passed(&mut filter, [format!("< isotpconf {id} 7A8 0 0 0 >").as_bytes()]);
        assert_eq!(passed.on, b"", "{id}");
        assert!(passed.back.starts_with(b"< error channel "), "{id}");
    }
}

#[test]
fn what_counts_is_what_drives_the_motors() {
    for (element, commands, motion, needs_grant) in [
        ("< send 02D 4 0 0 0 40 >", 1, 1, true),
        ("< send 02D 8 0 0 0 0 0 0 0 0 >", 1, 1, false),
        ("< send 027 4 8 0 0 0 >", 1, 1, true),
        ("< send 027 8 1 0 0 0 0 0 0 0 >", 1, 0, false),
        ("< send 038 1 0 >", 1, 0, false),
        ("< send 029 0 >", 0, 0, false),
        ("< send 7A0 1 1 >", 0, 0, false),
        ("< echo >", 0, 0, false),
        ("< send 04D 4 0 0 0 40 >", 0, 0, false),
    ] {
        let (mut on, mut back) = (Vec::new(), Vec::new());
        let content = judged(Cyclic::Refused).pass(element.as_bytes(), Standing::Free, &mut on, &mut back);
        let content = content.expect(element);
        let counted = (content.commands, content.motion, content.needs_grant);
        assert_eq!(counted, (commands, motion, needs_grant), "{element}");
        assert_eq!(content.beats, !on.is_empty() && !element.contains("7A0"), "{element}");
    }
}

proptest! {
    /// Every frame that the server would send of what goes on is for the target's motor, or listed.
    #[test]
    fn no_frame_of_another_motor_reaches_the_server(
        sent in vec((prop_oneof![0x20..0x60u32, Just(0x7A0), 0..0x800u32], vec(any::<u8>(), 0..9)), 1..12),
        cuts in vec(any::<usize>(), 0..20),
    ) {
        let element = |(id, bytes): &(u32, Vec<u8>)| {
            let bytes: String = bytes.iter().map(|byte| format!("{byte:x} ")).collect();
            let length = bytes.split_ascii_whitespace().count();
            format!("< send {id:03X} {length} {bytes}>")
        };
        let bytes: String = sent.iter().map(element).collect();
        let passed = passed(&mut judged(Cyclic::Allowed), split(bytes.as_bytes(), &cuts));
        let on = String::from_utf8(passed.on).expect("as it came");
        let gone: Vec<u32> = on.split("< send ").skip(1).map(|rest| u32::from_str_radix(&rest[..3], 16).unwrap()).collect();
        prop_assert!(gone.iter().all(|id| id >> 5 == 1 || *id == 0x7A0), "{gone:x?}");
        // A speed above the greatest ends the link, and a report is nobody's to send; all else of ours passes.
        if passed.fault.is_none() {
            let ours = sent.iter().filter(|(id, bytes)| {
                let report = (*id == 0x21 || *id == 0x29) && !bytes.is_empty();
                *id == 0x7A0 || id >> 5 == 1 && !report
            });
            prop_assert_eq!(ours.count(), gone.len());
        }
    }
}
