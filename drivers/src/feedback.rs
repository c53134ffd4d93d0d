//! What a drive says of itself, in terms that mean the same for every family.

use crate::units::{Revolutions, RevolutionsPerSecond};

/// The drive's own word on its power stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// No torque can be produced.
    Off,
    /// Between off and on: being started, or on the way down.
    Transition,
    /// Torque is produced and commands are followed.
    On,
    /// A quick stop is active: torque holds or brakes, commands are not followed.
    QuickStop,
    /// The drive has stopped itself with a fault; no torque.
    Fault,
}

/// Whether a drive pushes, told by what it measures. For families that have no word on their power stage: no
/// current and no voltage is the most they can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Current, voltage or torque are zero, as far as the drive can tell.
    Zero,
    /// At least one is not.
    Driving,
}

/// The drive's own fault code, in the family's numbering. Zero never occurs: no fault is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault(pub u32);

/// What one received frame told about a drive; a field the frame does not speak of is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Observation {
    /// State of the power stage.
    pub power: Option<Power>,
    /// Whether it pushes.
    pub output: Option<Output>,
    /// The family's own state number (ODrive: axis state; CiA 402: masked statusword), as the steps
    /// of the family's [`crate::EnableProgramme`] wait for it.
    pub state: Option<u16>,
    /// Measured speed at the motor shaft.
    pub velocity: Option<RevolutionsPerSecond>,
    /// Measured position at the motor shaft.
    pub position: Option<Revolutions>,
    /// `Some(None)`: the drive says that it has no fault.
    pub fault: Option<Option<Fault>>,
    /// The drive has carried out the request of this number (the family's own numbering), as the steps
    /// of an [`crate::EnableProgramme`] wait for it. Only families whose requests are answered have it.
    pub answer: Option<u32>,
    /// The drive has refused a request.
    pub refused: Option<Refusal>,
}

/// A request that a drive has refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which one, in the numbering of [`Observation::answer`].
    pub request: u32,
    /// The reason, in the family's own numbering.
    pub code: u32,
}

/// Writes the names of the bits that are set, separated by commas; bits without a name as a number.
///
/// # Errors
///
/// When `out` does not take the text.
pub fn name_bits(bits: u32, names: &[(u32, &str)], out: &mut dyn core::fmt::Write) -> core::fmt::Result {
    let mut rest = bits;
    let mut between = "";
    for (bit, name) in names {
        if rest & bit == *bit && *bit != 0 {
            write!(out, "{between}{name}")?;
            between = ", ";
            rest &= !bit;
        }
    }
    if rest != 0 || bits == 0 {
        write!(out, "{between}{rest:#x}")?;
    }
    Ok(())
}
