//! The profile for drives that no family is written for: notation, proof, and the mistakes that can be told.

mod common;

use common::{COMMON, bytes, settings, stop_frames, text};
use drivers::registry::{self, Common};
use drivers::{
    AfterStop, ArbitrationId, Drive, Fault, Format, Frame, Output, PollWhen, Power, PowerProof, Revolutions,
    RevolutionsPerSecond, Settings, SettingsError, Standstill, Until, Value, WatchdogSet,
};

const VECTORS: &str = include_str!("vectors/frames.txt");

type Keys = Vec<(&'static str, Value)>;

fn list(texts: &[&str]) -> Value {
    Value::Texts(texts.iter().map(|text| (*text).to_owned()).collect())
}

fn integers(numbers: &[i64]) -> Value {
    Value::Integers(numbers.to_vec())
}

fn rmd() -> Keys {
    vec![
        ("controlled", list(&["141#8100000000000000"])),
        ("torque_off", list(&["141#8000000000000000"])),
        ("poll", list(&["141#9C00000000000000"])),
        ("velocity", text("141#A200000000000000")),
        ("velocity_byte", Value::Integer(4)),
        ("velocity_type", text("i32le")),
        ("velocity_rpm_per_count", Value::Float(0.001_666_666_7)),
        ("feedback", text("241#9C..............")),
        ("speed_byte", Value::Integer(4)),
        ("speed_type", text("i16le")),
        ("speed_rpm_per_count", Value::Float(0.166_666_67)),
        ("output_byte", Value::Integer(2)),
        ("output_type", text("i16le")),
        ("output_threshold", Value::Integer(10)),
    ]
}

/// Seven pole pairs: 1 ERPM is 1/7 rpm.
fn vesc() -> Keys {
    vec![
        ("controlled", list(&["00000301#00000000"])),
        ("torque_off", list(&["00000101#00000000"])),
        ("broadcast", text("000001FF#00000000")),
        ("velocity", text("00000301#00000000")),
        ("velocity_byte", Value::Integer(0)),
        ("velocity_type", text("i32be")),
        ("velocity_rpm_per_count", Value::Float(1.0 / 7.0)),
        ("feedback", text("00000901#................")),
        ("speed_byte", Value::Integer(0)),
        ("speed_type", text("i32be")),
        ("speed_rpm_per_count", Value::Float(1.0 / 7.0)),
        ("output_byte", Value::Integer(4)),
        ("output_type", text("i16be")),
        // 0.1 A a count.
        ("output_threshold", Value::Integer(3)),
    ]
}

/// 4096 ticks a turn, state by remote request.
fn tinymovr() -> Keys {
    vec![
        ("controlled", list(&["00200016#01", "0020001B#00000000"])),
        ("torque_off", list(&["00200015#00"])),
        ("enable", list(&["00200016#01", "0020001B#00000000", "00200015#02"])),
        ("poll", list(&["00200015#R", "0020003B#R", "00200018#R"])),
        ("velocity", text("0020001B#00000000")),
        ("velocity_byte", Value::Integer(0)),
        ("velocity_type", text("f32le")),
        ("velocity_rpm_per_count", Value::Float(60.0 / 4096.0)),
        ("feedback", text("0020003B#........")),
        ("speed_byte", Value::Integer(0)),
        ("speed_type", text("f32le")),
        ("speed_rpm_per_count", Value::Float(60.0 / 4096.0)),
        ("power_frame", text("00200018#..")),
        ("power_byte", Value::Integer(0)),
        ("power_on", integers(&[2])),
        ("power_off", integers(&[0])),
    ]
}

/// A drive with a word on its power stage in the upper half of a byte that its number shares, a position, and
/// a reply identifier common to all: the layout of Damiao's.
fn nibble() -> Keys {
    vec![
        ("torque_off", list(&["001#FFFFFFFFFFFFFFFD"])),
        ("quick", list(&["001#0000000000000000"])),
        ("enable", list(&["001#FFFFFFFFFFFFFFFC"])),
        ("poll", list(&["7FF#0100CC0000000000"])),
        ("poll_feeds_watchdog", Value::Flag(false)),
        ("velocity", text("201#00000000")),
        ("velocity_byte", Value::Integer(0)),
        ("velocity_type", text("f32le")),
        ("velocity_rpm_per_count", Value::Float(9.549_297)),
        ("feedback", text("000#.1..............")),
        ("speed_byte", Value::Integer(3)),
        ("speed_type", text("u16be")),
        ("speed_zero", Value::Integer(32_768)),
        ("speed_rpm_per_count", Value::Float(-0.01)),
        ("position_byte", Value::Integer(1)),
        ("position_type", text("i16be")),
        ("position_revs_per_count", Value::Float(0.001)),
        ("power_frame", text("000#................")),
        ("power_byte", Value::Integer(0)),
        ("power_mask", Value::Integer(0xF0)),
        ("power_on", integers(&[0x10])),
        ("power_off", integers(&[0x00])),
        ("power_fault", integers(&[0x80, 0x90, 0xD0])),
        ("shared", list(&["000", "7FF"])),
        ("motion", list(&["101", "301"])),
        ("watchdog_ms", Value::Integer(100)),
    ]
}

fn try_build(common: &Common, keys: &Keys) -> Result<Drive, SettingsError> {
    registry::build(registry::family("frames").expect("the family"), &settings(keys), common)
}

fn build(keys: &Keys) -> Drive {
    try_build(&COMMON, keys).unwrap_or_else(|error| panic!("{error}"))
}

/// The same keys with one of them other, or gone.
fn with(mut keys: Keys, key: &'static str, value: Option<Value>) -> Keys {
    keys.retain(|(name, _)| *name != key);
    keys.extend(value.map(|value| (key, value)));
    keys
}

/// A classic frame from the notation of `cansend`.
fn frame(text: &str) -> Frame {
    let (id, payload) = text.split_once('#').expect("id#bytes");
    let number = u32::from_str_radix(id, 16).expect("hexadecimal");
    let id = match id.len() {
        3 => ArbitrationId::standard(u16::try_from(number).expect("11 bits")),
        _ => ArbitrationId::extended(number),
    };
    if payload == "R" { Frame::remote(id) } else { Frame::classic(id, &bytes(payload)) }
}

#[test]
fn drives_of_other_families_come_out_as_their_vectors_have_them() {
    let (mut told, mut heard) = (0, 0);
    for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
        let parts: Vec<&str> = line.split('|').map(str::trim).collect();
        let [name, message, id, payload] = parts[..] else { panic!("{line}") };
        let drive = match name {
            "rmd" => build(&rmd()),
            "vesc" => build(&vesc()),
            "tinymovr" => build(&tinymovr()),
            other => panic!("{other}"),
        };
        let golden = frame(&format!("{id}#{payload}"));
        if message.starts_with("RX") {
            let seen = drive.decode(&golden).expect(message);
            let still = message.contains("erpm=0");
            let speed = if still { 0.0 } else { -1234.0 / 7.0 / 60.0 };
            assert!((seen.velocity.expect("a speed").0 - speed).abs() < 1e-5, "{message}");
            assert_eq!(seen.output, Some(if still { Output::Zero } else { Output::Driving }));
            heard += 1;
            continue;
        }
        let mut ours = stop_frames(&drive);
        ours.extend(drive.broadcast);
        for speed in [0.0, 1.0] {
            ours.extend(drive.velocity(RevolutionsPerSecond(speed)).expect("in bounds").as_slice());
        }
        assert!(ours.contains(&golden), "{message}: {golden} is not among {ours:?}");
        told += 1;
    }
    assert_eq!((told, heard), (9, 2));
}

#[test]
fn the_notation_is_that_of_cansend() {
    for (written, expected) in [
        ("7FF#", Frame::classic(ArbitrationId::standard(0x7FF), &[])),
        ("000007ff#aB", Frame::classic(ArbitrationId::extended(0x7FF), &[0xAB])),
        (
            "1FFFFFFF#0102030405060708",
            Frame::classic(ArbitrationId::extended(0x1FFF_FFFF), &[1, 2, 3, 4, 5, 6, 7, 8]),
        ),
        ("001#R", Frame::remote(ArbitrationId::standard(1))),
        ("001##1010000", Frame::fd(ArbitrationId::standard(1), &[1, 0, 0])),
    ] {
        let drive = build(&with(rmd(), "latch", Some(list(&[written]))));
        let last = drive.stop.stages().last().expect("a stage").frames;
        assert_eq!(last.as_slice(), [expected], "{written}");
        let format = if written.contains("##") { Format::FdBrs } else { Format::Classic };
        assert_eq!(drive.format, format);
    }
    for (wrong, why) in [
        ("141", "141#8100000000000000"),
        ("141#810", "one digit is over"),
        ("141#810000000000000000", "0 to 8"),
        ("141##1010203040506070809", "12, 16"),
        ("141##001", "##1"),
        ("141#8x", "hexadecimal"),
        ("141#üü", "hexadecimal"),
        ("141#81......", "every digit"),
        ("800#81", "7FF"),
        ("20000000#81", "1FFFFFFF"),
        ("1#81", "three hexadecimal digits"),
        ("+41#81", "three hexadecimal digits"),
        ("üü#81", "three hexadecimal digits"),
        ("#81", "three hexadecimal digits"),
        ("", "identifier"),
    ] {
        let error = try_build(&COMMON, &with(rmd(), "torque_off", Some(list(&[wrong])))).unwrap_err();
        assert_eq!(error.key, "torque_off", "{wrong}");
        assert!(error.problem.contains(why), "{wrong}: {error}");
    }
}

#[test]
fn only_the_frame_that_is_given_is_feedback() {
    let drive = build(&rmd());
    let good = frame("241#9C1E0000F6FF0000");
    let seen = drive.decode(&good).expect("feedback");
    assert!((seen.velocity.expect("a speed").0 + 10.0 / 360.0).abs() < 1e-6);
    assert_eq!((seen.power, seen.output, seen.position), (None, Some(Output::Zero), None));
    for other in [
        "241#9A1E0000F6FF0000",
        "242#9C1E0000F6FF0000",
        "00000241#9C1E0000F6FF0000",
        "241#9C1E0000F6FF00",
        "141#9C1E0000F6FF0000",
        "241#R",
    ] {
        assert_eq!(drive.decode(&frame(other)), None, "{other}");
    }
    assert_eq!(drive.decode(&Frame::fd(good.id(), good.payload())), None);
    assert_eq!(drive.reports, [good.id()]);
}

#[test]
fn digits_masks_and_offsets_are_minded() {
    let drive = build(&nibble());
    let seen = drive.decode(&frame("000#1103E88000000000")).expect("feedback");
    assert_eq!((seen.power, seen.fault), (Some(Power::On), Some(None)));
    assert_eq!(seen.velocity, Some(RevolutionsPerSecond(0.0)));
    assert_eq!(seen.position, Some(Revolutions(1.0)));
    // Counts backwards, around 32768.
    let seen = drive.decode(&frame("000#0100008064000000")).expect("feedback");
    assert!((seen.velocity.expect("a speed").0 + 100.0 * 0.01 / 60.0).abs() < 1e-7);
    assert_eq!(seen.power, Some(Power::Off));
    let seen = drive.decode(&frame("000#D100008000000000")).expect("feedback");
    assert_eq!((seen.power, seen.fault), (Some(Power::Fault), Some(Some(Fault(0x1D0)))));
    assert_eq!(drive.explain(Fault(0x1D0)), "power byte 0xd0");
    // Neither on, off nor fault: on the way.
    assert_eq!(
        drive.decode(&frame("000#2100008000000000")).expect("feedback").power,
        Some(Power::Transition)
    );
    // Another drive's speed is not this one's.
    assert_eq!(drive.decode(&frame("000#1200008064000000")).expect("its power frame").velocity, None);
    assert_eq!(drive.shares, [ArbitrationId::standard(0), ArbitrationId::standard(0x7FF)]);
    let owns = [0x001, 0x101, 0x201, 0x301].map(ArbitrationId::standard);
    assert_eq!(drive.owns, owns);
    assert_eq!(drive.poll_when, PollWhen::Always);
    assert_eq!(drive.watchdog.set, WatchdogSet::ByLanyard(std::time::Duration::from_millis(100)));
}

#[test]
fn every_type_is_read_and_written_as_its_name_says() {
    for (name, rpm, expected) in [
        ("i8", -2.0, "FE"),
        ("i16le", -2.0, "FEFF"),
        ("i16be", -2.0, "FFFE"),
        ("i32le", 258.0, "02010000"),
        ("i32be", -2.0, "FFFFFFFE"),
        ("f32le", 1.5, "0000C03F"),
        ("f32be", 1.5, "3FC00000"),
    ] {
        let common =
            Common { max_speed: RevolutionsPerSecond(if name == "i8" { 2.0 } else { 50.0 }), ..COMMON };
        let mut keys = with(rmd(), "velocity", Some(text("141#A200000000000000")));
        for (key, value) in [
            ("velocity_byte", Value::Integer(2)),
            ("velocity_type", text(name)),
            ("velocity_rpm_per_count", Value::Integer(1)),
            ("speed_byte", Value::Integer(2)),
            ("speed_type", text(name)),
            ("speed_rpm_per_count", Value::Integer(1)),
        ] {
            keys = with(keys, key, Some(value));
        }
        let drive = try_build(&common, &keys).unwrap_or_else(|error| panic!("{name}: {error}"));
        let speed = RevolutionsPerSecond::from_rpm(rpm);
        let sent = drive.protocol.velocity(speed);
        let [sent] = sent.as_slice() else { panic!("one frame") };
        let payload = format!("A200{expected:0<12}");
        assert_eq!(sent.to_string(), format!("141#{payload}"), "{name}");
        let mut back = bytes(&payload);
        back[0] = 0x9C;
        let seen = drive.decode(&Frame::classic(ArbitrationId::standard(0x241), &back)).expect(name);
        assert!((seen.velocity.expect("a speed").0 - speed.0).abs() < 1e-6, "{name}");
    }
    let drive = build(&tinymovr());
    assert_eq!(drive.decode(&frame("0020003B#0000C07F")), None, "what is no number is no reading");
}

#[test]
fn proof_needs_the_drives_own_word_or_a_measured_current() {
    let last = |keys: &Keys| build(keys).stop.stages().last().expect("a stage").proof.power;
    assert_eq!(last(&nibble()), PowerProof::Off);
    assert_eq!(last(&tinymovr()), PowerProof::Off);
    assert_eq!(last(&vesc()), PowerProof::NoOutput);
    let drive = build(&vesc());
    let proof = drive.stop.stages().last().expect("a stage").proof;
    let proven = |hex: &str| {
        let mut still = Standstill::NOTHING_SEEN;
        (0..10).any(|_| {
            still.observe(&proof, &drive.decode(&frame(&format!("00000901#{hex}"))).expect("status"))
        })
    };
    assert!(proven("0000000000000000"));
    assert!(proven("0000000000030000"), "0.3 A is the threshold");
    assert!(proven("00000000FFFD0000"));
    assert!(!proven("0000000000040000"), "0.4 A is not none");
    assert!(!proven("00000000FFFC0000"));
    // 0.05 rev/s of 7 pole pairs are 21 ERPM.
    assert!(proven("0000001500000000"));
    assert!(!proven("0000001600000000"));
    for key in ["output_byte", "output_type", "output_threshold"] {
        let error = try_build(&COMMON, &with(rmd(), key, None)).unwrap_err();
        assert_eq!(error.key, key);
    }
    let mut bare = rmd();
    bare.retain(|(key, _)| !key.starts_with("output"));
    let error = try_build(&COMMON, &bare).unwrap_err();
    assert_eq!(error.key, "torque_off");
    assert!(error.problem.contains("could not be proven"), "{error}");
}

#[test]
fn what_is_not_a_listed_stop_or_poll_is_motion() {
    let drive = build(&rmd());
    for (written, motion) in [
        ("141#8100000000000000", false),
        ("141#8000000000000000", false),
        ("141#9C00000000000000", false),
        ("141#A200000064000000", true),
        ("141#A100000000000000", true),
        ("141#8000000000000001", true),
        ("141#80", true),
        ("141#", true),
        ("141#R", true),
        ("00000141#A200000064000000", false),
        ("142#A200000064000000", false),
        ("241#A200000064000000", false),
    ] {
        assert_eq!(drive.is_motion(&frame(written)), motion, "{written}");
    }
    let drive = build(&vesc());
    assert!(!drive.is_motion(&frame("000001FF#00000000")), "the broadcast itself");
    assert!(drive.is_motion(&frame("000001FF#00000001")), "a broadcast that drives");
    let drive = build(&nibble());
    assert!(drive.is_motion(&frame("301#0000000000000000")), "an identifier of motion");
    assert!(!drive.is_motion(&frame("7FF#0100550900000000")), "polls alone make no command identifier");
    // A request on the identifier of a report is no command, and neither is the report.
    let drive = build(&tinymovr());
    assert!(!drive.is_motion(&frame("0020003B#R")) && !drive.is_motion(&frame("0020003B#0000803F")));
}

#[test]
fn enabling_waits_for_the_power_stage_where_it_has_a_word() {
    assert!(build(&rmd()).enable.steps().is_empty());
    let drive = build(&nibble());
    assert_eq!(drive.enable.steps().last().expect("a step").until, Some(Until::Power(Power::On)));
    let many: Vec<String> = (0..9).map(|number| format!("001#0{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let steps = build(&with(nibble(), "enable", Some(list(&many)))).enable;
    let sizes: Vec<_> = steps.steps().iter().map(|step| step.frames.as_slice().len()).collect();
    assert_eq!(sizes, [4, 4, 1]);
    assert_eq!(steps.steps().iter().filter(|step| step.until.is_some()).count(), 1);
}

#[test]
fn holding_needs_a_stage_that_holds() {
    let hold = Common { after: AfterStop::Hold, ..COMMON };
    assert_eq!(try_build(&hold, &rmd()).expect("it holds with 0x81").stop.release(0), None);
    assert_eq!(build(&rmd()).stop.release(0), Some(1));
    let error = try_build(&hold, &with(rmd(), "controlled", None)).unwrap_err();
    assert_eq!(error.key, "after_stop");
    assert!(error.problem.contains("brake"), "{error}");
}

#[test]
fn the_standstill_speed_is_never_below_a_count() {
    let coarse = with(rmd(), "speed_rpm_per_count", Some(Value::Integer(6)));
    assert_eq!(build(&coarse).stop.stage(0).proof.max_speed, RevolutionsPerSecond(0.1));
    assert_eq!(build(&rmd()).stop.stage(0).proof.max_speed, RevolutionsPerSecond(0.05));
    let fine = Common { standstill: Some(RevolutionsPerSecond(0.099)), ..COMMON };
    assert_eq!(try_build(&fine, &coarse).unwrap_err().key, "standstill_rpm");
    assert!(try_build(&fine, &rmd()).is_ok());
    // A float has no count.
    let tiny = Common { standstill: Some(RevolutionsPerSecond(0.001)), ..COMMON };
    assert!(try_build(&tiny, &tinymovr()).is_ok());
}

#[test]
fn mistakes_that_can_be_told_are_named() {
    let integer = Value::Integer;
    let cases: Vec<(Keys, &str, Option<Value>, &str, &str)> = vec![
        (rmd(), "torque_off", None, "torque_off", "missing"),
        (rmd(), "torque_off", Some(text("141#80")), "torque_off", "list of texts"),
        (rmd(), "torque_off", Some(integers(&[1])), "torque_off", "list of texts"),
        (rmd(), "quick", Some(list(&["141#81"; 5])), "quick", "up to 4"),
        (rmd(), "velocity", None, "velocity", "missing"),
        (rmd(), "velocity", Some(text("141#R")), "velocity", "remote"),
        (rmd(), "velocity_byte", Some(integer(5)), "velocity_byte", "0 to 4"),
        (rmd(), "velocity_type", Some(text("i24le")), "velocity_type", "i16le"),
        (rmd(), "velocity_type", Some(text("i16le")), "velocity_type", "max_rpm"),
        (rmd(), "velocity_type", Some(text("u32le")), "velocity_type", "max_rpm"),
        (rmd(), "velocity_rpm_per_count", Some(integer(0)), "velocity_rpm_per_count", "at least"),
        (rmd(), "velocity", Some(text("141#A2")), "velocity_byte", "does not fit"),
        (rmd(), "feedback", None, "feedback", "missing"),
        (rmd(), "feedback", Some(text("241#R")), "feedback", "remote"),
        (rmd(), "feedback", Some(text("241#9C")), "speed_byte", "does not fit"),
        (rmd(), "feedback", Some(text("241#9C...0..........")), "output_byte", "dots"),
        (rmd(), "feedback", Some(text("141#9C..............")), "feedback", "also commanded"),
        (rmd(), "speed_byte", Some(integer(0)), "speed_byte", "dots"),
        (rmd(), "poll", Some(list(&["141#A200000001000000"])), "poll", "commands 0.002 rpm"),
        (rmd(), "controlled", Some(list(&["141#A2000000FFFFFFFF"])), "controlled", "commands -0.002 rpm"),
        (rmd(), "enable", Some(list(&["141#9C00000000000000"])), "poll", "also in enable"),
        (rmd(), "motion", Some(list(&["41"])), "motion", "three hexadecimal digits"),
        (rmd(), "watchdog_ms", Some(integer(0)), "watchdog_ms", "1 to 60000"),
        (rmd(), "speed_frame", Some(text("241#")), "speed_frame", "not a key"),
        (rmd(), "poll_feeds_watchdog", Some(text("no")), "poll_feeds_watchdog", "true or false"),
        (nibble(), "power_off", None, "power_off", "missing"),
        (nibble(), "power_on", Some(integers(&[])), "power_on", "missing"),
        (nibble(), "power_on", Some(integers(&[0x11])), "power_on", "power_mask"),
        (nibble(), "power_on", Some(integers(&[0x00])), "power_off", "already"),
        (nibble(), "power_on", Some(integers(&[256])), "power_on", "0 to 255"),
        (nibble(), "power_byte", Some(integer(8)), "power_byte", "0 to 7"),
        (nibble(), "position_type", None, "position_type", "missing"),
    ];
    for (keys, key, value, named, why) in cases {
        let what = format!("{key} = {value:?}");
        let error = try_build(&COMMON, &with(keys, key, value)).expect_err(&what);
        assert_eq!(error.key, named, "{what}: {error}");
        assert!(error.problem.contains(why), "{what}: {error}");
    }
}

/// An empty list in the file has no type of its own.
#[test]
fn an_empty_list_is_as_good_as_none() {
    let mut settings = Settings::default();
    settings.insert("power_fault", list(&[]));
    assert_eq!(settings.integers("power_fault", 0..=255).expect("no numbers").len(), 0);
    assert!(
        build(&with(nibble(), "power_fault", Some(list(&[]))))
            .decode(&frame("000#D100008000000000"))
            .is_some()
    );
}
