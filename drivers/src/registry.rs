//! The one list of drive families.

use crate::drive::Drive;
use crate::settings::{Settings, SettingsError};
use crate::stop::AfterStop;
use crate::units::RevolutionsPerSecond;
use alloc::format;
use alloc::vec::Vec;

/// What every family is built from besides its own keys.
#[derive(Clone, Copy, Debug)]
pub struct Common {
    /// What becomes of the torque at standstill.
    pub after: AfterStop,
    /// Largest speed that counts as standing still; `None`: the family's own default.
    pub standstill: Option<RevolutionsPerSecond>,
    /// Largest speed that may be commanded, either direction.
    pub max_speed: RevolutionsPerSecond,
}

impl Common {
    /// The configured standstill speed, or the family's `default`.
    ///
    /// # Errors
    ///
    /// When the configured one is not positive or below `resolution`: a drive that cannot report less
    /// could never be proven to stand still.
    pub fn standstill_or(
        &self,
        default: RevolutionsPerSecond,
        resolution: RevolutionsPerSecond,
    ) -> Result<RevolutionsPerSecond, SettingsError> {
        match self.standstill {
            None => Ok(default),
            Some(given) if given.0.is_finite() && given.0 > 0.0 && given.0 >= resolution.0 => Ok(given),
            Some(_) => Err(SettingsError::new(
                "standstill_rpm",
                format!("must be above 0 and at least {:.3}, what the drive can resolve", resolution.rpm()),
            )),
        }
    }
}

/// One family: its name in the configuration and how a drive of it is built.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The word after `driver =`.
    pub name: &'static str,
    /// One sentence for documents and errors.
    pub about: &'static str,
    /// The keys `build` takes, besides those common to all motors.
    pub keys: &'static [Key],
    /// Builds one drive, everything prebuilt.
    pub build: fn(&Settings, &Common) -> Result<Drive, SettingsError>,
    /// The keys a person must give, with values that could be a robot's: for documents and tests.
    pub example: fn() -> Settings,
    /// What documents say of it besides what a built drive shows.
    pub sheet: Sheet,
}

/// A key of a family's motors.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As it stands in the configuration.
    pub name: &'static str,
    /// What it means, its unit, range and default, in a sentence or two.
    pub about: &'static str,
}

impl Family {
    /// The names of its keys.
    #[must_use]
    pub fn key_names(&self) -> Vec<&'static str> {
        self.keys.iter().map(|key| key.name).collect()
    }
}

/// What only words can say of a family.
#[derive(Clone, Copy, Debug)]
pub struct Sheet {
    /// Which feedback proves standstill, in a few words.
    pub proof: &'static str,
    /// Where its golden bytes come from.
    pub vectors: &'static str,
    /// What was never seen on hardware or rests on a single unofficial source, one item each.
    pub unverified: &'static [&'static str],
}

/// Every family Lanyard can stop: a line each, in the order of the alphabet.
pub const FAMILIES: &[Family] = &[
    crate::agilex::FAMILY,
    crate::cia402::FAMILY,
    crate::cubemars_mit::FAMILY,
    crate::cubemars_servo::FAMILY,
    crate::cyphal::FAMILY,
    crate::damiao::FAMILY,
    crate::dji::FAMILY,
    crate::dronecan::FAMILY,
    crate::frames::FAMILY,
    crate::moteus::FAMILY,
    crate::odrive::FAMILY,
    crate::rev_spark::FAMILY,
    crate::rmd::FAMILY,
    crate::roboteq::FAMILY,
    crate::robstride::FAMILY,
    crate::tinymovr::FAMILY,
    crate::vesc::FAMILY,
];

/// The family of that name.
#[must_use]
pub fn family(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| family.name == name)
}

/// Builds a drive of `family`, after refusing keys the family does not know.
///
/// # Errors
///
/// When a key is unknown, missing or out of range.
pub fn build(family: &Family, settings: &Settings, common: &Common) -> Result<Drive, SettingsError> {
    settings.only(&family.key_names())?;
    (family.build)(settings, common)
}
