//! One motor of every drive family, as a robot would have it: its table in the configuration and its simulated drive.
//!
//! What lives here: the list, for tests that play the same scene with each family. What must never: what the product
//! itself says of a family; the stages are those of docs/drives.md, read by hand.

use std::time::Duration;

use crate::sim::inject::Stop;

/// What every table has: 300 rpm are 5 revolutions a second, so a power of 0.4 is 2.
pub const COMMON: &str = "max_rpm = 300\n";

/// One family.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name, and how its commands are formed where there is more than one way.
    pub name: &'static str,
    /// Its table in the configuration, without name, bus and [`COMMON`].
    pub table: &'static str,
    /// Its simulated drive, as `lanyard-sim` takes it.
    pub drive: &'static str,
    /// The node of that.
    pub node: u8,
    /// The kinds of its stages, in their order, as the simulated drive counts them.
    pub stages: &'static [Stop],
    /// The simulated drive's own watchdog, if it has one as it comes: what it takes for a sign of life has to be missing that
    /// long.
    pub watchdog: Option<Duration>,
    /// At which speed it counts as standing still unless the configuration says otherwise, rpm: that of docs/drives.md. Drives of
    /// propellers report nothing finer.
    pub standstill_rpm: f64,
    /// The frames of its bus.
    pub bus: Bus,
}

/// The frames that a bus carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// Classic CAN.
    Classic,
    /// CAN FD, too.
    Fd,
}

impl Family {
    /// The whole table.
    #[must_use]
    pub fn table(&self) -> String {
        format!("{COMMON}{}", self.table)
    }

    /// Whether its axis is to be held after a stop.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.table.contains("after_stop = \"hold\"")
    }

    /// The simulated drive with more keys.
    #[must_use]
    pub fn drive_with(&self, keys: &str) -> String {
        if keys.is_empty() { self.drive.to_owned() } else { format!("{},{keys}", self.drive) }
    }
}

/// Every family.
pub const ALL: &[Family] = &[
    Family {
        name: "agilex",
        table: "driver = \"agilex\"\n\
                wheel_circumference_mm = 510\n\
                track_width_mm = 583\n\
                after_stop = \"release\"",
        drive: "agilex:node=1",
        node: 1,
        stages: &[Stop::Controlled, Stop::Quick, Stop::TorqueOff],
        watchdog: Some(Duration::from_millis(500)),
        standstill_rpm: 1.18,
        bus: Bus::Classic,
    },
    Family {
        name: "cia402",
        table: "driver = \"cia402\"\n\
                node = 5\n\
                counts_per_rev = 4096\n\
                after_stop = \"release\"",
        drive: "cia402:node=5",
        node: 5,
        stages: &[Stop::Quick, Stop::TorqueOff],
        watchdog: Some(Duration::from_millis(250)),
        standstill_rpm: 1.2,
        bus: Bus::Classic,
    },
    Family {
        name: "cubemars_mit",
        table: "driver = \"cubemars-mit\"\n\
                id = 1\n\
                model = \"AK80-9\"\n\
                after_stop = \"release\"",
        drive: "cubemars-mit:node=1",
        node: 1,
        stages: &[Stop::Controlled, Stop::TorqueOff],
        watchdog: None,
        standstill_rpm: 1.2,
        bus: Bus::Classic,
    },
    Family {
        name: "cubemars_servo",
        table: "driver = \"cubemars-servo\"\n\
                id = 1\n\
                pole_pairs = 21\n\
                gear = 9\n\
                after_stop = \"release\"",
        drive: "cubemars-servo:node=1",
        node: 1,
        stages: &[Stop::Controlled, Stop::Quick, Stop::TorqueOff],
        watchdog: None,
        standstill_rpm: 1.2,
        bus: Bus::Classic,
    },
    Family {
        name: "damiao",
        table: "driver = \"damiao\"\n\
                id = 1\n\
                feedback_id = 17\n\
                model = \"4310\"\n\
                after_stop = \"hold\"",
        drive: "damiao:node=1,feedback_id=17",
        node: 1,
        stages: &[Stop::Controlled, Stop::TorqueOff],
        watchdog: None,
        standstill_rpm: 1.2,
        bus: Bus::Classic,
    },
    Family {
        name: "dji",
        table: "driver = \"dji\"\n\
                model = \"c620\"\n\
                id = 1\n\
                after_stop = \"release\"",
        drive: "dji:node=1",
        node: 1,
        stages: &[Stop::TorqueOff],
        watchdog: None,
        standstill_rpm: 10.0,
        bus: Bus::Classic,
    },
    Family {
        name: "frames",
        table: "driver = \"frames\"\n\
                controlled = [\"302#0100000000000000\"]\n\
                quick = [\"302#0200000000000000\"]\n\
                torque_off = [\"302#0000000000000000\"]\n\
                enable = [\"302#0300000000000000\"]\n\
                velocity = \"302#0100000000000000\"\n\
                velocity_byte = 2\n\
                velocity_type = \"i16le\"\n\
                velocity_rpm_per_count = 0.1\n\
                feedback = \"382#..02............\"\n\
                speed_byte = 2\n\
                speed_type = \"i16le\"\n\
                speed_rpm_per_count = 0.1\n\
                power_byte = 0\n\
                power_on = [1]\n\
                power_off = [0]\n\
                power_fault = [225]\n\
                after_stop = \"release\"",
        drive: "frames:node=2",
        node: 2,
        stages: &[Stop::Controlled, Stop::Quick, Stop::TorqueOff],
        watchdog: None,
        standstill_rpm: 3.0,
        bus: Bus::Classic,
    },
    Family {
        name: "moteus",
        table: "driver = \"moteus\"\n\
                id = 1\n\
                watchdog_ms = 10000\n\
                after_stop = \"release\"",
        drive: "moteus:node=1",
        node: 1,
        stages: &[Stop::Controlled, Stop::Quick, Stop::TorqueOff],
        watchdog: None,
        standstill_rpm: 3.0,
        bus: Bus::Fd,
    },
    Family {
        name: "odrive",
        table: "driver = \"odrive\"\n\
                node = 3\n\
                firmware = \"0.6\"\n\
                after_stop = \"hold\"",
        drive: "odrive:node=3",
        node: 3,
        stages: &[Stop::Controlled, Stop::TorqueOff, Stop::Quick],
        watchdog: None,
        standstill_rpm: 3.0,
        bus: Bus::Classic,
    },
    Family {
        name: "rmd",
        table: "driver = \"rmd\"\n\
                id = 1\n\
                after_stop = \"hold\"",
        drive: "rmd:node=1",
        node: 1,
        stages: &[Stop::Controlled, Stop::TorqueOff],
        watchdog: None,
        standstill_rpm: 0.5,
        bus: Bus::Classic,
    },
    Family {
        name: "robstride",
        table: "driver = \"robstride\"\n\
                id = 127\n\
                model = \"rs02\"\n\
                after_stop = \"release\"",
        drive: "robstride:node=127",
        node: 127,
        stages: &[Stop::Controlled, Stop::TorqueOff],
        watchdog: None,
        standstill_rpm: 1.2,
        bus: Bus::Classic,
    },
    Family {
        name: "tinymovr",
        table: "driver = \"tinymovr\"\n\
                node = 1\n\
                firmware = \"2.4\"\n\
                ticks_per_rev = 8192\n\
                after_stop = \"release\"",
        drive: "tinymovr:node=1",
        node: 1,
        stages: &[Stop::Controlled, Stop::TorqueOff],
        watchdog: None,
        standstill_rpm: 3.0,
        bus: Bus::Classic,
    },
    Family {
        name: "vesc",
        table: "driver = \"vesc\"\n\
                id = 1\n\
                pole_pairs = 14\n\
                after_stop = \"release\"",
        drive: "vesc:node=1,pole_pairs=14",
        node: 1,
        stages: &[Stop::Controlled, Stop::Quick, Stop::TorqueOff],
        watchdog: Some(Duration::from_millis(1000)),
        standstill_rpm: 3.0,
        bus: Bus::Classic,
    },
    Family {
        name: "cyphal",
        table: "driver = \"cyphal\"\n\
                esc_node = 20\n\
                index = 0\n\
                setpoint_subject = 100\n\
                readiness_subject = 101\n\
                feedback_subject = 102\n\
                dynamics_subject = 103\n\
                mode = \"speed\"\n\
                after_stop = \"release\"",
        drive: "cyphal:node=20",
        node: 20,
        stages: &[Stop::Controlled, Stop::TorqueOff],
        watchdog: Some(Duration::from_millis(1000)),
        standstill_rpm: 30.0,
        bus: Bus::Classic,
    },
    Family {
        name: "dronecan_raw",
        table: "driver = \"dronecan\"\n\
                esc_node = 20\n\
                index = 3\n\
                command = \"raw\"\n\
                full_rpm = 3000\n\
                after_stop = \"release\"",
        drive: "dronecan:node=20,index=3",
        node: 20,
        stages: &[Stop::Controlled, Stop::TorqueOff],
        watchdog: Some(Duration::from_millis(200)),
        standstill_rpm: 30.0,
        bus: Bus::Classic,
    },
    Family {
        name: "dronecan_rpm",
        table: "driver = \"dronecan\"\n\
                esc_node = 20\n\
                index = 0\n\
                command = \"rpm\"\n\
                after_stop = \"release\"",
        drive: "dronecan:node=20",
        node: 20,
        stages: &[Stop::Controlled, Stop::TorqueOff],
        watchdog: Some(Duration::from_millis(200)),
        standstill_rpm: 30.0,
        bus: Bus::Classic,
    },
    Family {
        name: "rev_spark",
        table: "driver = \"rev-spark\"\n\
                device = 1\n\
                after_stop = \"release\"",
        drive: "rev-spark:node=1",
        node: 1,
        stages: &[Stop::Controlled, Stop::TorqueOff],
        watchdog: Some(Duration::from_millis(100)),
        standstill_rpm: 18.0,
        bus: Bus::Classic,
    },
    Family {
        name: "roboteq",
        table: "driver = \"roboteq\"\n\
                node = 1\n\
                loop = \"speed\"\n\
                speed = \"encoder\"\n\
                counts_per_rev = 4096\n\
                after_stop = \"hold\"",
        drive: "roboteq:node=1,counts_per_rev=4096",
        node: 1,
        stages: &[Stop::Controlled, Stop::TorqueOff],
        watchdog: Some(Duration::from_millis(1000)),
        standstill_rpm: 3.0,
        bus: Bus::Classic,
    },
];

/// The family of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Family> {
    ALL.iter().find(|family| family.name == name)
}
