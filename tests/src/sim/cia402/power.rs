//! The power state machine of CiA 402: which controlword leads where, and what the statusword shows.

/// The states of the power stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Starting up.
    NotReady,
    /// No high voltage may be switched on.
    SwitchOnDisabled,
    /// High voltage may be switched on.
    Ready,
    /// High voltage on, no torque.
    SwitchedOn,
    /// Torque on, the setpoint is followed.
    Enabled,
    /// Torque on, ramping to zero or held there.
    QuickStop,
    /// Torque on, ramping to zero because of a fault.
    FaultReaction,
    /// No torque until the fault is reset.
    Fault,
}

impl State {
    /// The statusword bits that tell the state.
    pub fn statusword(self) -> u16 {
        match self {
            Self::NotReady => 0x00,
            Self::SwitchOnDisabled => 0x40,
            Self::Ready => 0x21,
            Self::SwitchedOn => 0x23,
            Self::Enabled => 0x27,
            Self::QuickStop => 0x07,
            Self::FaultReaction => 0x0F,
            Self::Fault => 0x08,
        }
    }

    /// The name in status reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotReady => "not-ready",
            Self::SwitchOnDisabled => "switch-on-disabled",
            Self::Ready => "ready",
            Self::SwitchedOn => "switched-on",
            Self::Enabled => "operation-enabled",
            Self::QuickStop => "quick-stop-active",
            Self::FaultReaction => "fault-reaction",
            Self::Fault => "fault",
        }
    }

    /// Whether current flows.
    pub fn has_torque(self) -> bool {
        matches!(self, Self::Enabled | Self::QuickStop | Self::FaultReaction)
    }

    /// Where `command` leads. `stays` says whether a quick stop ends in [`State::QuickStop`] (option codes 5
    /// and 6), from where operation can be enabled again; `ramps` is false if a quick stop is not a ramp at all
    /// but takes the torque away (option code 0).
    pub fn after(self, command: Command, ramps: bool, stays: bool) -> Self {
        use Command::{DisableVoltage, EnableOperation, QuickStop, Shutdown, SwitchOn};
        match (self, command) {
            (Self::SwitchOnDisabled | Self::Ready | Self::SwitchedOn | Self::Enabled, Shutdown) => {
                Self::Ready
            }
            (Self::Ready | Self::SwitchedOn | Self::Enabled | Self::QuickStop, DisableVoltage)
            | (Self::Ready | Self::SwitchedOn, QuickStop) => Self::SwitchOnDisabled,
            (Self::Ready | Self::SwitchedOn | Self::Enabled, SwitchOn) => Self::SwitchedOn,
            // From ready straight on: through switched on, as drives do that enable in one step.
            (Self::Ready | Self::SwitchedOn | Self::Enabled, EnableOperation) => Self::Enabled,
            (Self::QuickStop, EnableOperation) if stays => Self::Enabled,
            (Self::Enabled, QuickStop) if ramps => Self::QuickStop,
            (Self::Enabled, QuickStop) => Self::SwitchOnDisabled,
            (state, _) => state,
        }
    }
}

/// What bits 0 to 3 of a controlword ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Bit 1 clear.
    DisableVoltage,
    /// Bit 1 set, bit 2 clear.
    QuickStop,
    /// x110
    Shutdown,
    /// 0111
    SwitchOn,
    /// 1111
    EnableOperation,
}

impl Command {
    /// Every controlword asks for one of the five.
    pub fn of(controlword: u16) -> Self {
        let bit = |n: u16| controlword & (1 << n) != 0;
        match (bit(1), bit(2), bit(0), bit(3)) {
            (false, ..) => Self::DisableVoltage,
            (true, false, ..) => Self::QuickStop,
            (true, true, false, _) => Self::Shutdown,
            (true, true, true, false) => Self::SwitchOn,
            (true, true, true, true) => Self::EnableOperation,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The state reached from `state` with a quick stop that ramps and then disables.
    fn after(state: State, controlword: u16) -> State {
        state.after(Command::of(controlword), true, false)
    }

    #[test]
    fn the_enable_sequence() {
        let mut state = State::SwitchOnDisabled;
        for (controlword, statusword) in
            [(0x07, 0x40), (0x0F, 0x40), (0x06, 0x21), (0x07, 0x23), (0x0F, 0x27)]
        {
            state = after(state, controlword);
            assert_eq!(state.statusword(), statusword);
        }
        assert_eq!(after(State::Ready, 0x0F), State::Enabled);
    }

    #[test]
    fn every_way_out_of_operation_enabled() {
        for (controlword, state) in [
            (0x00, State::SwitchOnDisabled),
            (0x02, State::QuickStop),
            (0x06, State::Ready),
            (0x07, State::SwitchedOn),
            (0x010F, State::Enabled),
        ] {
            assert_eq!(after(State::Enabled, controlword), state);
        }
        assert_eq!(State::Enabled.after(Command::QuickStop, false, false), State::SwitchOnDisabled);
    }

    #[test]
    fn a_quick_stop_is_left_as_its_option_allows() {
        let on = Command::EnableOperation;
        assert_eq!(State::QuickStop.after(on, true, false), State::QuickStop);
        assert_eq!(State::QuickStop.after(on, true, true), State::Enabled);
        assert_eq!(after(State::QuickStop, 0x06), State::QuickStop);
        assert_eq!(after(State::QuickStop, 0x00), State::SwitchOnDisabled);
    }

    #[test]
    fn a_fault_is_left_by_no_command() {
        for controlword in 0..=0x1FF {
            assert_eq!(after(State::Fault, controlword), State::Fault);
            assert_eq!(after(State::FaultReaction, controlword), State::FaultReaction);
            assert_eq!(after(State::NotReady, controlword), State::NotReady);
        }
    }
}
