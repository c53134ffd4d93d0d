//! Phases, states, reasons, counters: each a word in shared memory and a name for people.

macro_rules! numbered {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $number:literal, $text:literal;)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The number it has in shared memory.
            #[must_use]
            pub const fn number(self) -> u64 {
                match self { $(Self::$variant => $number,)+ }
            }

            /// The value with that number, if there is one.
            #[must_use]
            pub const fn from_number(number: u64) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }

            /// The name used in status, events and documents.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

numbered! {
    /// What the supervisor is doing.
    Phase {
        /// Stopping every motor before anything may move.
        Starting = 1, "starting";
        /// Watching.
        Armed = 2, "armed";
        /// Told to exit: stopping every motor.
        Stopping = 3, "stopping";
        /// About to exit; every motor was told to stop.
        Ended = 4, "ended";
    }
}

numbered! {
    /// The verdict on a session.
    SessionState {
        /// Nobody is in the slot.
        Vacant = 0, "vacant";
        /// It beats in time.
        Live = 1, "live";
        /// It fell silent, or was ended; it never moves anything again.
        Tripped = 2, "tripped";
        /// Its client said goodbye.
        Closed = 3, "closed";
    }
}

numbered! {
    /// What a motor is doing, as far as the supervisor knows.
    MotorState {
        /// Nobody's; may be granted.
        Idle = 0, "idle";
        /// Granted to the session in the grant word.
        Granted = 1, "granted";
        /// Being stopped.
        Stopping = 2, "stopping";
        /// Proven to stand still.
        Stopped = 3, "stopped";
        /// Every stage was sent and timed out without proof; the last one is repeated.
        Unverified = 4, "unverified";
    }
}

numbered! {
    /// Why motors were stopped.
    Reason {
        /// The supervisor started and did not know what the motors were doing.
        Startup = 1, "startup";
        /// A session was silent for longer than its window.
        Expired = 2, "session expired";
        /// The front ended the session and did not say why, or gave its place to another.
        Closed = 3, "session closed";
        /// The front process ended.
        FrontDead = 4, "front dead";
        /// The front process lives but does not beat.
        FrontSilent = 5, "front silent";
        /// The beats of a session or an owner word were not to be believed.
        Corrupt = 6, "corrupt beats";
        /// Somebody pressed stop: `lanyard estop`, or a client's StopAll.
        OperatorStop = 7, "operator stop";
        /// The supervisor's own loop was late.
        SelfOverrun = 8, "self overrun";
        /// The bus the motor hangs on does not work.
        BusFault = 9, "bus fault";
        /// The drive reported a fault.
        DriveFault = 10, "drive fault";
        /// The supervisor was told to exit.
        Shutdown = 11, "shutdown";
        /// A stopped motor moved or was energised again.
        Violation = 12, "stop violated";
        /// A running drive has said nothing for too long.
        FeedbackLost = 13, "feedback lost";
        /// The supervisor before this one died while a session drove the motor, or nobody knows.
        SupervisorDied = 14, "supervisor died";
        /// The client closed its session.
        ClosedByClient = 15, "closed by client";
        /// The client's connection ended without that: it was killed, or hung up.
        ClientLost = 16, "client connection ended";
        /// The client sent what is not allowed, and was cut off.
        CutOff = 17, "client cut off";
        /// The client beat on and sent no command for longer than `require_progress` of something it kept moving.
        NoProgress = 18, "no progress";
        /// The client was silent for longer than the window of something it drove, which is shorter than its own.
        Overdue = 19, "window of a part expired";
        /// The target of a tunnel closed its connection, or cannot be reached any more.
        TargetLost = 20, "target lost";
        /// The listener of a tunnel was closed.
        ListenerClosed = 21, "listener closed";
        /// The server behind what the client drove is lost.
        UpstreamLost = 22, "upstream lost";
        /// The front was told to exit, and ended its sessions.
        FrontEnded = 23, "front ended";
        /// Another master on the bus made the drive deaf to its stops.
        MadeDeaf = 24, "drive made deaf";
        /// Another motor on the bus could not be proven to stand still after its last stage: the sign of life that both
        /// drives hear is withdrawn, so that its own watchdog stops it.
        HeartbeatWithdrawn = 25, "heartbeat withdrawn";
        /// The motor was faster than it may be told to turn.
        Overspeed = 26, "overspeed";
        /// The motor turned against every command of the last second.
        WrongWay = 27, "turned the wrong way";
        /// Somebody else on the bus, not on this computer, commanded the motor while a session drove it; or stops that are
        /// not ours went on beside its session, wherever they came from.
        OtherMaster = 28, "another master";
        /// What was held before the start cannot be known: the file that keeps it is missing, damaged or of another
        /// version, or cannot be written.
        LatchesLost = 29, "latches lost";
    }
}

numbered! {
    /// What an event tells.
    EventKind {
        /// The supervisor is armed.
        Armed = 1, "armed";
        /// A front was handed its segments.
        FrontAttached = 2, "front attached";
        /// Motors were stopped, or a session that owned none ended.
        Trip = 3, "trip";
        /// A motor was proven to stand still after a trip.
        Standstill = 4, "standstill";
        /// Every stage of a motor's stop timed out without proof.
        Unverified = 5, "unverified";
        /// A stage of a motor's stop timed out; the next one follows.
        Escalated = 6, "escalated";
        /// An operator reset a trip.
        Reset = 7, "reset";
        /// A bus stopped working.
        BusDown = 8, "bus down";
        /// A bus works again.
        BusUp = 9, "bus up";
        /// The bus guard answered a motion frame for a stopped motor.
        Guarded = 10, "guarded";
        /// The hardware watchdog has reset the machine: it, or the supervisor on it, had hung.
        WatchdogReset = 11, "watchdog reset";
        /// A session ended while all of its motors were proven to be at rest: they are stopped all the same, which
        /// interrupts nothing and is no trip.
        EndedAtRest = 12, "ended at rest";
        /// The supervisor no longer sends the sign of life that a motor hears which nothing else has stopped.
        HeartbeatWithdrawn = 13, "heartbeat withdrawn";
        /// A program of this computer speaks for the drives of a bus, or for its interface, and is not believed. Told
        /// once for each bus.
        Disbelieved = 14, "local feedback";
        /// Stops that are not this supervisor's came in for a motor that a session drives.
        ForeignStops = 15, "stops of others";
        /// A motor that no session has turns although its drive says that it has no torque: it is pushed, or it rolls.
        MovesWithoutPower = 16, "moves without power";
    }
}

numbered! {
    /// How the supervisor before this one ended, as far as what it left behind tells.
    Predecessor {
        /// There was none since the machine started, or it left nothing.
        None = 0, "none";
        /// Told to exit; it said its last word.
        Ended = 1, "ended";
        /// In the middle of its work.
        Died = 2, "died";
        /// It left something that cannot be read: of another version, or broken.
        Unreadable = 3, "unreadable";
    }
}

numbered! {
    /// How trips are cleared.
    ResetPolicy {
        /// A new session may take a motor that stands still.
        Auto = 1, "auto";
        /// `lanyard reset TRIP_ID` must come first.
        Manual = 2, "manual";
        /// A new session may take a motor that stands still, with a command that comes some time after a Stop. The
        /// front sees to the Stop: the supervisor latches as little as under [`Self::Auto`].
        Neutral = 3, "neutral";
    }
}

numbered! {
    /// What the system refused the supervisor, or the configuration gave up; each weakens a guarantee. The number is a
    /// bit.
    Degraded {
        /// Not scheduled with SCHED_FIFO.
        Scheduling = 1, "not SCHED_FIFO";
        /// Not pinned to its CPU.
        Affinity = 2, "not pinned";
        /// Memory is not locked.
        Memory = 4, "memory not locked";
        /// It keeps privileges that it does not need.
        Privileges = 8, "privileges kept";
        /// System calls are not restricted.
        SystemCalls = 16, "system calls not restricted";
        /// Idle CPUs may sleep deeply and wake late.
        Latency = 32, "CPU sleep not limited";
        /// The kernel would not stop the motors if the supervisor hung or was killed.
        KernelStop = 64, "no kernel-armed stop";
        /// The hardware watchdog that the configuration names is not fed by this supervisor.
        Watchdog = 128, "no hardware watchdog";
        /// The configuration takes the drives of a bus for programs of this computer (`local_drives`).
        LocalDrives = 256, "local drives";
        /// An operator's stop, and whatever else waits for a reset, is not kept on disk.
        LatchesNotKept = 512, "latches not on disk";
        /// What was held before the start is not known, and a motor is still held for that.
        LatchesLost = 1024, "latches lost";
    }
}

/// Where the latches are, besides the memory of the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// Every latch is on disk.
    OnDisk,
    /// The disk has yet to say that it has the last change.
    Pending,
    /// The disk refuses, or does not answer.
    Refused,
}

impl Keeping {
    /// The name used in status and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OnDisk => "on disk",
            Self::Pending => "pending",
            Self::Refused => "refused",
        }
    }
}

numbered! {
    /// How well a bus works, from best to worst. Active to bus-off are the fault confinement states of the
    /// interface's own CAN controller (ISO 11898-1).
    BusHealth {
        /// The interface does not say (vcan, slcan).
        Unknown = 0, "unknown";
        /// Error active: in order.
        Active = 1, "error-active";
        /// An error counter has reached 96: the bus is disturbed.
        Warning = 2, "error-warning";
        /// Error passive: the controller can no longer make itself heard; often nobody acknowledges.
        Passive = 3, "error-passive";
        /// Bus-off: the controller has left the bus.
        BusOff = 4, "bus-off";
        /// The interface is down, stopped or gone.
        Down = 5, "down";
    }
}

numbered! {
    /// Whole-supervisor counters. The number is the place.
    Counter {
        /// Passes of the real-time loop.
        Loops = 0, "loops";
        /// Passes that came later than a whole tick.
        LateLoops = 1, "late-loops";
        /// Longest lateness of a pass, nanoseconds.
        WorstLatenessNanos = 2, "worst-lateness-ns";
        /// Beats accepted.
        Beats = 3, "beats";
        /// Trips.
        Trips = 4, "trips";
        /// Stop frames handed to the kernel.
        StopFrames = 5, "stop-frames";
        /// Frames the kernel refused.
        SendErrors = 6, "send-errors";
        /// Motion frames answered by the bus guard.
        Guarded = 7, "guarded";
        /// Owner words that named no live session.
        BadOwners = 8, "bad-owners";
        /// Longest time from a deadline to the first stop frame, nanoseconds.
        WorstTripNanos = 9, "worst-trip-ns";
        /// Heap allocations and releases of the real-time thread since arming: 0, or a promise is broken.
        Allocations = 10, "allocations";
        /// Page faults of the real-time thread since arming that needed no disk.
        MinorFaults = 11, "minor-faults";
        /// Page faults of the real-time thread since arming that needed a disk.
        MajorFaults = 12, "major-faults";
        /// Times the real-time thread went to sleep since arming.
        VoluntarySwitches = 13, "voluntary-switches";
        /// Times the real-time thread was pushed off its CPU since arming.
        InvoluntarySwitches = 14, "involuntary-switches";
        /// Passes so late that everything was stopped.
        SelfOverruns = 15, "self-overruns";
        /// Times the kernel-armed stop was put off: the sign that the supervisor lives.
        KernelStopRearms = 16, "kernel-stop-rearms";
        /// Times the kernel refused to arm or put off its stop.
        KernelStopErrors = 17, "kernel-stop-errors";
    }
}
