//! What is judged: the files whose mutants must not survive, in parts, and the tests that have to notice.
//!
//! What must never live here: how cargo-mutants is run.

use std::fmt::Write as _;

/// Files that are judged by the same tests.
pub struct Part {
    /// As `--part` takes it.
    pub name: &'static str,
    /// Paths from the workspace's root, as `cargo mutants --file` takes them.
    pub files: &'static [&'static str],
    /// Which test programs of the package that is changed, and of those that are named, as `cargo test` takes them.
    pub tests: &'static [&'static str],
    /// Those that judge only what the first ones leave, because they cost more.
    pub further: &'static [&'static str],
}

/// The tests of every drive that there is, with any frames and speeds.
const OF_ALL_DRIVES: &[&str] = &["--test", "meaning", "--test", "properties"];

/// All parts. First what decides whether a motor is stopped: the believer of beats, the state machine, the kernel's stop.
/// Then the programme and proof of a stop, the families one by one, and what surrounds the state machine.
pub const JUDGED: &[Part] = &[
    Part { name: "core", files: &["supervisor/src/core/*.rs"], tests: &["--test", "core"], further: &[] },
    Part {
        name: "beats",
        files: &["shm-proto/src/beat.rs", "shm-proto/src/beats.rs", "shm-proto/src/record.rs"],
        // Not those of the hand-over and the seals: they take seconds and have nothing to do with beats.
        tests: &[
            "--lib",
            "--test",
            "concurrent",
            "--test",
            "hostile_ring",
            "--test",
            "killed_writer",
            "--test",
            "ring",
            "--test",
            "validate",
            "--test",
            "verdicts",
        ],
        further: &[],
    },
    Part {
        name: "kernel",
        files: &["supervisor/src/kernel_stop.rs", "supervisor/src/kernel_frame.rs"],
        tests: &["--lib"],
        further: &[],
    },
    Part {
        name: "stop",
        files: &[
            "drivers/src/stop.rs",
            "drivers/src/feedback.rs",
            "drivers/src/watchdog.rs",
            "drivers/src/enable.rs",
        ],
        tests: &["--test", "enable", "--test", "readings", "--test", "standstill", "--test", "stop"],
        further: OF_ALL_DRIVES,
    },
    Part {
        name: "meaning",
        files: &["drivers/src/drive.rs", "drivers/src/meaning.rs"],
        tests: &["--test", "dji", "--test", "meaning", "--test", "properties"],
        further: &[],
    },
    Part {
        name: "unattended",
        files: &["drivers/src/unattended.rs", "drivers/src/marker.rs"],
        tests: &["--test", "marker", "--test", "unattended"],
        further: &["--package", "supervisor", "--test", "kernel_jobs"],
    },
    Part {
        name: "odrive-vesc",
        files: &["drivers/src/odrive.rs", "drivers/src/vesc.rs"],
        tests: &["--test", "odrive", "--test", "readings", "--test", "vectors", "--test", "vesc"],
        further: OF_ALL_DRIVES,
    },
    Part {
        name: "canopen",
        files: &["drivers/src/canopen/*.rs", "drivers/src/cia402/*.rs", "drivers/src/roboteq.rs"],
        tests: &["--test", "cia402", "--test", "readings", "--test", "roboteq", "--test", "vectors"],
        further: OF_ALL_DRIVES,
    },
    Part {
        name: "moteus-tinymovr",
        files: &["drivers/src/moteus.rs", "drivers/src/moteus/*.rs", "drivers/src/tinymovr.rs"],
        tests: &["--test", "moteus", "--test", "readings", "--test", "tinymovr"],
        further: OF_ALL_DRIVES,
    },
    Part {
        name: "robstride-damiao",
        files: &["drivers/src/damiao.rs", "drivers/src/robstride.rs"],
        tests: &["--test", "damiao", "--test", "readings", "--test", "robstride"],
        further: OF_ALL_DRIVES,
    },
    Part {
        name: "cubemars",
        files: &["drivers/src/cubemars_mit.rs", "drivers/src/cubemars_servo.rs", "drivers/src/mit.rs"],
        tests: &["--test", "cubemars_mit", "--test", "cubemars_servo", "--test", "readings"],
        further: OF_ALL_DRIVES,
    },
    Part {
        name: "dji-rmd-spark",
        files: &["drivers/src/dji.rs", "drivers/src/rev_spark.rs", "drivers/src/rmd.rs"],
        tests: &["--test", "dji", "--test", "readings", "--test", "rev_spark", "--test", "rmd"],
        further: OF_ALL_DRIVES,
    },
    Part {
        name: "uavcan",
        files: &["drivers/src/cyphal.rs", "drivers/src/dronecan.rs", "drivers/src/half.rs"],
        tests: &["--lib", "--test", "cyphal", "--test", "dronecan", "--test", "readings"],
        further: OF_ALL_DRIVES,
    },
    Part {
        name: "agilex-frames",
        files: &["drivers/src/agilex.rs", "drivers/src/frames/*.rs"],
        tests: &["--test", "agilex", "--test", "frames", "--test", "readings"],
        further: OF_ALL_DRIVES,
    },
    Part {
        name: "inheritance",
        files: &["supervisor/src/inheritance.rs"],
        tests: &["--test", "core"],
        further: &[],
    },
    Part {
        name: "runtime",
        files: &[
            "supervisor/src/bcm.rs",
            "supervisor/src/intake.rs",
            "supervisor/src/meter.rs",
            "supervisor/src/queue.rs",
            "supervisor/src/runtime.rs",
            "supervisor/src/wakeups.rs",
        ],
        tests: &["--lib", "--test", "kernel_jobs", "--test", "runtime"],
        further: &[],
    },
    Part {
        name: "service",
        files: &[
            "supervisor/src/doors/*.rs",
            "supervisor/src/estop.rs",
            "supervisor/src/hardware_watchdog.rs",
            "supervisor/src/holder.rs",
            "supervisor/src/keeper.rs",
            "supervisor/src/latches/*.rs",
            "supervisor/src/log.rs",
            "supervisor/src/netlink.rs",
            "supervisor/src/notify.rs",
            "supervisor/src/service.rs",
        ],
        // Those on CAN interfaces judge more of it, and take minutes each time.
        tests: &["--lib", "--test", "core", "--test", "runtime"],
        further: &[],
    },
];

/// The parts as `--list` shows them.
pub fn list() -> String {
    let mut text = String::new();
    for part in JUDGED {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}: {}\n    judged by {}", part.name, part.files.join(", "), judges(part));
    }
    text
}

/// The test programs of a part, in words.
fn judges(part: &Part) -> String {
    let names = part.tests.iter().chain(part.further).filter(|word| !["--package", "--test"].contains(word));
    names.map(|word| if *word == "--lib" { "unit tests" } else { word }).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    use super::{JUDGED, list};

    /// Fails if a file or a test program of a part was renamed: cargo-mutants would then judge nothing, and say nothing.
    #[test]
    fn files_and_tests_of_every_part_exist() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        for part in JUDGED {
            for file in part.files {
                let place = root.join(file.trim_end_matches("*.rs"));
                assert!(place.exists(), "{}: {file}", part.name);
            }
            let own = part.files[0].split('/').next().expect("a folder");
            let words = || part.tests.iter().chain(part.further);
            let named = words().zip(words().skip(1)).filter(|(word, _)| **word == "--package");
            let packages: Vec<&str> = named.map(|(_, package)| *package).chain([own]).collect();
            let is_test = |(before, _): &(&&str, &&str)| **before == "--test";
            let tests = words().zip(words().skip(1)).filter(is_test).map(|(_, test)| test);
            for test in tests {
                let known = |package: &&str| {
                    let tests = root.join(package).join("tests");
                    tests.join(format!("{test}.rs")).exists() || tests.join(test).join("main.rs").exists()
                };
                assert!(packages.iter().any(known), "{}: {test}", part.name);
            }
        }
    }

    #[test]
    fn parts_have_names_of_their_own() {
        let names: HashSet<_> = JUDGED.iter().map(|part| part.name).collect();
        assert_eq!(names.len(), JUDGED.len());
        assert!(list().contains("runtime: "));
    }

    /// Fails if a drive family is judged by no part.
    #[test]
    fn every_family_is_judged() {
        let drivers =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("drivers/src");
        let registry = std::fs::read_to_string(drivers.join("registry.rs")).expect("the families");
        let families = registry
            .lines()
            .filter_map(|line| line.trim().strip_prefix("crate::")?.strip_suffix("::FAMILY,"));
        let mut count = 0;
        for family in families {
            let judged = |file: &&str| {
                **file == format!("drivers/src/{family}.rs") || **file == format!("drivers/src/{family}/*.rs")
            };
            assert!(JUDGED.iter().flat_map(|part| part.files).any(judged), "{family}");
            count += 1;
        }
        assert!(count >= 17, "{count} families");
    }
}
