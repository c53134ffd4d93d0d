//! Controlword 6040 and statusword 6041: the state machine of CiA 402.

use core::fmt;

use crate::feedback::{Fault, Observation, Power};

/// Bits of the controlword: 0 switch on, 1 enable voltage, 2 quick stop (acts when *clear*),
/// 3 enable operation, 7 fault reset (rising edge), 8 halt.
pub(super) mod controlword {
    /// Takes the torque away from any state.
    pub const DISABLE_VOLTAGE: u16 = 0x0000;
    /// Brakes when operation is enabled; from any lower state it leads to *switch on disabled*.
    pub const QUICK_STOP: u16 = 0x0002;
    /// To *ready to switch on*.
    pub const SHUTDOWN: u16 = 0x0006;
    /// To *switched on*.
    pub const SWITCH_ON: u16 = 0x0007;
    /// To *operation enabled*.
    pub const ENABLE_OPERATION: u16 = 0x000F;
    /// Acknowledges a fault; otherwise the same as [`DISABLE_VOLTAGE`].
    pub const FAULT_RESET: u16 = 0x0080;
}

/// Whether a controlword with this lower byte could lead to, or keep, an energised motor: voltage
/// enabled and quick stop not asked for. That is the shutdown, switch-on and enable commands, and *halt*,
/// whose lower bits are those of *enable operation*.
pub(super) const fn may_energise(low_byte: u8) -> bool {
    const VOLTAGE_AND_NO_QUICK_STOP: u8 = 0b110;
    low_byte & VOLTAGE_AND_NO_QUICK_STOP == VOLTAGE_AND_NO_QUICK_STOP
}

/// Whether a controlword with this lower byte acknowledges a fault and energises nothing.
pub(super) const fn resets_fault(low_byte: u8) -> bool {
    low_byte & 0x80 != 0 && !may_energise(low_byte)
}

/// State numbers: the statusword masked with 0x4F or 0x6F as CiA 402 defines each state (checked
/// against python-canopen `p402.py` and ros2_canopen `state.cpp`).
pub mod state {
    /// Starting up.
    pub const NOT_READY: u16 = 0x00;
    /// No torque; waits for *shutdown*.
    pub const SWITCH_ON_DISABLED: u16 = 0x40;
    /// No torque; waits for *switch on*.
    pub const READY_TO_SWITCH_ON: u16 = 0x21;
    /// Power is applied to the output stage, the motor is not driven yet.
    pub const SWITCHED_ON: u16 = 0x23;
    /// Setpoints are followed.
    pub const OPERATION_ENABLED: u16 = 0x27;
    /// Braking or holding after a quick stop.
    pub const QUICK_STOP_ACTIVE: u16 = 0x07;
    /// Braking because of a fault.
    pub const FAULT_REACTION: u16 = 0x0F;
    /// Stopped by a fault, no torque.
    pub const FAULT: u16 = 0x08;
}

/// The state a statusword stands for; a word that stands for none is given masked with 0x6F.
const fn state_of(statusword: u16) -> u16 {
    match statusword & 0x4F {
        // In these four the bit 5 (quick stop) does not matter.
        short @ (state::NOT_READY | state::SWITCH_ON_DISABLED | state::FAULT_REACTION | state::FAULT) => {
            short
        }
        _ => statusword & 0x6F,
    }
}

/// What a statusword tells.
pub(super) fn observe(statusword: u16) -> Observation {
    let state = state_of(statusword);
    let power = match state {
        state::SWITCH_ON_DISABLED | state::READY_TO_SWITCH_ON => Power::Off,
        state::OPERATION_ENABLED => Power::On,
        state::QUICK_STOP_ACTIVE => Power::QuickStop,
        state::FAULT => Power::Fault,
        // Not ready: the drive leaves this state by itself, and a word of zeros is what a frame that nobody
        // filled holds; it proves nothing. Switched on: the output stage has power, so this is not yet, or no longer, off; either stop
        // command leads out of it. Fault reaction: the drive still brakes. And a word no state is
        // defined for must not leave an earlier "off" standing.
        _ => Power::Transition,
    };
    let fault = match state {
        // There is one, but only the emergency message says which.
        state::FAULT | state::FAULT_REACTION => None,
        _ => Some(None),
    };
    Observation { power: Some(power), state: Some(state), fault, ..Observation::default() }
}

/// What an emergency message tells: u16 code, u8 error register, five bytes of the manufacturer; the code
/// 0 takes all errors back (CiA 301; CANopenNode `CO_Emergency.h`). 0x8130 is the drive's own watchdog on
/// the master.
pub(super) fn emergency(payload: &[u8]) -> Option<Observation> {
    let [low, high, ..] = <[u8; 8]>::try_from(payload).ok()?;
    let code = u16::from_le_bytes([low, high]);
    let fault = (code != 0).then_some(Fault(u32::from(code)));
    Some(Observation { fault: Some(fault), ..Observation::default() })
}

/// Error codes of the emergency message by their class (CiA 301), the few that Lanyard itself causes by name
/// (CANopenNode `CO_Emergency.h`). The classes were not checked against a drive: unverified.
pub(super) fn fault_words(fault: Fault, out: &mut dyn fmt::Write) -> fmt::Result {
    let words = match fault.0 {
        0x8120 => "CAN error-passive",
        0x8130 => "heartbeat of the supervisor lost",
        0x8140 => "recovered from bus-off",
        0x2000..=0x2FFF => "current",
        0x3000..=0x3FFF => "voltage",
        0x4000..=0x4FFF => "temperature",
        0x5000..=0x5FFF => "hardware",
        0x6000..=0x6FFF => "software",
        0x7000..=0x7FFF => "additional modules (encoder, brake)",
        0x8000..=0x81FF => "communication",
        0x8200..=0x8FFF => "monitoring (following error, limits)",
        0x9000..=0x9FFF => "external",
        0xFF00..=0xFFFF => "specific to the manufacturer",
        _ => "unknown",
    };
    write!(out, "{:#06x} ({words})", fault.0)
}
