//! The one list of kinds of drives that can be simulated.

use anyhow::{Context, Result};

use super::model::Model;
use super::params::Params;

/// One kind: its name on the command line and how a drive of it is built.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The word before the colon.
    pub name: &'static str,
    /// The keys besides those of all drives, a line each: key, default in brackets, at column 21 what it is.
    pub keys_help: &'static str,
    /// Takes the keys and builds a drive that is switched on at time zero.
    pub build: fn(&mut Params) -> Result<Box<dyn Model>>,
}

/// Every kind there is.
pub const KINDS: &[Kind] = &[
    super::agilex::KIND,
    super::cia402::KIND,
    super::cubemars_mit::KIND,
    super::cubemars_servo::KIND,
    super::cyphal::KIND,
    super::damiao::KIND,
    super::dji::KIND,
    super::dronecan::KIND,
    super::frames::KIND,
    super::moteus::KIND,
    super::odrive::KIND,
    super::rev_spark::KIND,
    super::rmd::KIND,
    super::roboteq::KIND,
    super::robstride::KIND,
    super::tinymovr::KIND,
    super::vesc::KIND,
];

/// What the keys mean that every kind takes.
const COMMON_KEYS_HELP: &str = "\
node                 node id
accel (20)           acceleration limit, rev/s^2
quick_decel (60)     deceleration of a quick stop, rev/s^2
friction (0.15)      time constant of coasting, s
noise (0)            noise of the reported velocity, rev/s
running              already turning at this velocity, rev/s
heartbeat_ms (100)   0 = never";

/// The kind of that name.
///
/// # Errors
/// There is none; says which there are.
pub fn find(name: &str) -> Result<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name).with_context(|| {
        let known: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
        format!("unknown kind of drive {name:?} (known: {})", known.join(", "))
    })
}

/// All keys of all kinds, for `--help`: a paragraph for those in common and one for each kind.
pub fn keys_help() -> String {
    let common = paragraph("Keys of all drives (default):", COMMON_KEYS_HELP);
    let kinds = KINDS.iter().map(|kind| paragraph(&format!("Keys of {}:", kind.name), kind.keys_help));
    std::iter::once(common).chain(kinds).collect::<Vec<_>>().join("\n\n")
}

/// A heading and indented lines.
fn paragraph(heading: &str, lines: &str) -> String {
    let indented = lines.lines().map(|line| format!("  {line}"));
    std::iter::once(heading.to_owned()).chain(indented).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Drive, Time};

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }

    #[test]
    fn the_help_tells_the_keys_of_every_kind() {
        let help = keys_help();
        for kind in KINDS {
            let first = kind.keys_help.lines().next().expect("some key");
            assert!(help.contains(&format!("\n\nKeys of {}:\n  {first}", kind.name)), "{help}");
        }
        assert!(help.starts_with("Keys of all drives (default):\n  node "), "{help}");
    }

    #[test]
    fn every_kind_needs_a_node_only_and_says_what_it_is() {
        for kind in KINDS {
            let spec = format!("{}:node=1", kind.name);
            let mut params = Params::parse("node=1").expect("well formed");
            let model = (kind.build)(&mut params).expect(&spec);
            assert_eq!(model.kind(), kind.name);
            let mut drive = Drive::from_spec(&spec).expect(&spec);
            assert_eq!(drive.node(), 1);
            let status = drive.status(Time::ZERO);
            assert!(status["kind"] == kind.name && status["node"] == 1, "{status}");
            assert!(status["velocity"] == 0.0 && status["stops_seen"].is_object(), "{status}");
        }
    }
}
