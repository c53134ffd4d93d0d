//! How many readings prove standstill: for every family, with frames as its drives send them.
//!
//! The numbers here are written a second time on purpose. With fewer readings a shaft that reverses would be proven to
//! stand still, and no other test would notice.

mod common;

use common::{COMMON, all, bytes, examples};
use drivers::registry::{self, Common};
use drivers::{AfterStop, ArbitrationId, Drive, Frame, RevolutionsPerSecond, Standstill};

const DOCS: &str = include_str!("../../docs/drives.md");

/// What the drive of a family's example says, and what that has to prove.
struct Family {
    name: &'static str,
    /// Readings that prove standstill: as `docs/drives.md` says.
    readings: usize,
    /// The speed up to which a reading counts: as `docs/drives.md` says.
    rpm: &'static str,
    /// What it says once of its power stage or its output, where that is a frame of its own.
    off: Option<&'static str>,
    /// A reading at rest, with the power off.
    still: &'static str,
    /// The same of a shaft that turns.
    turning: &'static str,
}

/// In the order of the registry.
const FAMILIES: [Family; 17] = [
    Family {
        name: "agilex",
        readings: 5,
        rpm: "1.18",
        off: Some("211#0000000000000000"),
        still: "221#0000000000000000",
        turning: "221#0064000000000000",
    },
    Family {
        name: "cia402",
        readings: 3,
        rpm: "1.20",
        off: Some("585#4B41600040020000"),
        still: "585#436C600000000000",
        turning: "585#436C600000000100",
    },
    Family {
        name: "cubemars-mit",
        readings: 3,
        rpm: "1.20",
        off: None,
        still: "000#017FFF7FF7FF1E00",
        turning: "000#017FFF9007FF1E00",
    },
    Family {
        name: "cubemars-servo",
        readings: 3,
        rpm: "1.20",
        off: None,
        still: "00002901#0000000000001E00",
        turning: "00002901#0000046E00001E00",
    },
    Family {
        name: "cyphal",
        readings: 3,
        rpm: "30.00",
        off: Some("10606614#020000E3"),
        still: "10606714#0000000000000027",
        turning: "10606714#4000000000000029",
    },
    Family {
        name: "damiao",
        readings: 3,
        rpm: "1.20",
        off: None,
        still: "011#017FFF7FF7FF1E20",
        turning: "011#017FFF9007FF1E20",
    },
    Family {
        name: "dji",
        readings: 20,
        rpm: "10.00",
        off: None,
        still: "201#0000000000001E00",
        turning: "201#0000006400001E00",
    },
    Family {
        name: "dronecan",
        readings: 5,
        rpm: "30.00",
        off: None,
        still: "10040A14#4E0000B05C000020",
        turning: "10040A14#4E0000B05CD20425",
    },
    Family {
        name: "frames",
        readings: 3,
        rpm: "3.00",
        off: None,
        still: "241#9C32000000000000",
        turning: "241#9C32000064000000",
    },
    Family {
        name: "moteus",
        readings: 3,
        rpm: "3.00",
        off: None,
        still: "100##2100002F010000803F0000000000000000230D301E00",
        turning: "100##2100002F010000803F0000803F00000000230D301E00",
    },
    Family {
        name: "odrive",
        readings: 3,
        rpm: "3.00",
        off: Some("061#0000000001000000"),
        still: "069#0000000000000000",
        turning: "069#000000000000803F",
    },
    Family {
        name: "rev-spark",
        readings: 5,
        rpm: "18.00",
        off: Some("0205B801#0000FFFFFFFFDFFF"),
        still: "0205B881#0000000000000000",
        turning: "0205B881#0000C84200000000",
    },
    Family {
        name: "rmd",
        readings: 3,
        rpm: "0.50",
        off: None,
        still: "241#9C32000000000000",
        turning: "241#9C32000064000000",
    },
    Family {
        name: "roboteq",
        readings: 3,
        rpm: "3.00",
        off: Some("581#4B11210008000000"),
        still: "581#4B03210100000000",
        turning: "581#4B03210164000000",
    },
    Family {
        name: "robstride",
        readings: 3,
        rpm: "1.20",
        off: None,
        still: "02007FFF#8000800080000131",
        turning: "02007FFF#8000900080000131",
    },
    Family {
        name: "tinymovr",
        readings: 3,
        rpm: "3.00",
        off: Some("00200015#00"),
        still: "0020003B#00000000",
        turning: "0020003B#00000046",
    },
    Family {
        name: "vesc",
        readings: 3,
        rpm: "3.00",
        off: None,
        still: "0000090A#0000000000000000",
        turning: "0000090A#00004E2000000000",
    },
];

/// Three digits are a standard identifier, eight an extended one; `##` is CAN FD.
fn frame(text: &str) -> Frame {
    let (id, payload) = text.split_once('#').unwrap();
    let number = u32::from_str_radix(id, 16).unwrap();
    let id = match id.len() {
        3 => ArbitrationId::standard(u16::try_from(number).unwrap()),
        _ => ArbitrationId::extended(number),
    };
    match payload.strip_prefix('#') {
        Some(payload) => Frame::fd(id, &bytes(payload)),
        None => Frame::classic(id, &bytes(payload)),
    }
}

/// How many of the frames, one after the other, it takes until the last stage of the drive is proven; `None`: all of them
/// prove nothing.
fn needed<'a>(drive: &Drive, frames: impl IntoIterator<Item = &'a str>) -> Option<usize> {
    let proof = drive.stop.stages().last().unwrap().proof;
    let mut tracker = Standstill::NOTHING_SEEN;
    let place = frames.into_iter().position(|text| {
        let seen =
            drive.decode(&frame(text)).unwrap_or_else(|| panic!("{}: {text} tells nothing", drive.family));
        tracker.observe(&proof, &seen)
    });
    place.map(|place| place + 1)
}

/// Fails if a family is forgotten: it would have no proof that is known to need more than one reading.
#[test]
fn every_family_is_here() {
    let names = FAMILIES.iter().map(|family| family.name);
    assert!(names.eq(registry::FAMILIES.iter().map(|family| family.name)));
}

/// Fails if fewer readings than the documents say prove standstill, or if that many do not.
#[test]
fn so_many_readings_prove_standstill_and_no_fewer() {
    for (drive, family) in examples().iter().zip(&FAMILIES) {
        let word = family.off.into_iter();
        let words = word.clone().count();
        let readings = word.chain([family.still; 50]);
        assert_eq!(needed(drive, readings), Some(words + family.readings), "{}", family.name);
    }
}

/// Fails if readings that are not in a row are counted together.
#[test]
fn a_reading_of_a_shaft_that_turns_begins_anew() {
    for (drive, family) in examples().iter().zip(&FAMILIES) {
        let before = vec![family.still; family.readings - 1];
        let reversal = family.off.into_iter().chain(before).chain([family.turning]);
        let seen = reversal.clone().count();
        let all = reversal.chain([family.still; 50]);
        assert_eq!(needed(drive, all), Some(seen + family.readings), "{}", family.name);
        let turning = family.off.into_iter().chain([family.turning; 50]);
        assert_eq!(needed(drive, turning), None, "{}", family.name);
    }
}

/// Fails if a stage, a variant of a family, or an option of the configuration makes do with fewer readings.
#[test]
fn the_number_is_that_of_the_family_in_every_stage_and_variant() {
    let slow = Common { standstill: Some(RevolutionsPerSecond(1.0)), ..COMMON };
    let hold = Common { after: AfterStop::Hold, ..COMMON };
    let built = |common: Common| {
        registry::FAMILIES
            .iter()
            .filter_map(move |family| registry::build(family, &(family.example)(), &common).ok())
    };
    let drives: Vec<Drive> = all().into_iter().chain(built(slow)).chain(built(hold)).collect();
    assert!(drives.len() > 2 * FAMILIES.len(), "{}: some can hold", drives.len());
    for drive in drives {
        let family = FAMILIES.iter().find(|family| family.name == drive.family).unwrap();
        for stage in drive.stop.stages() {
            let asked = usize::from(stage.proof.samples);
            assert_eq!(asked, family.readings, "{}, {}", drive.family, stage.kind.name());
        }
    }
}

/// Fails if the documents, or the code, say another number or another speed than is tested here.
#[test]
fn the_documents_say_the_same() {
    for (drive, family) in examples().iter().zip(&FAMILIES) {
        let (_, section) = DOCS.split_once(&format!("\n## {}\n", family.name)).unwrap();
        let says = format!("Stands still at {} rpm or less in {} readings", family.rpm, family.readings);
        assert!(section.split("\n## ").next().unwrap().contains(&says), "{}: {says}", family.name);
        let rpm = drive.stop.stage(0).proof.max_speed.rpm();
        assert_eq!(format!("{rpm:.2}"), family.rpm, "{}", family.name);
    }
}
