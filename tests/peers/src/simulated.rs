//! What is asked of simulated drives. They share no code with the crate `drivers`.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tests::sim::control::Command;
use tests::sim::{Drive, Time};

use crate::wire::{self, index, text};

/// A drive on a bus of its own, with a clock of its own.
struct Simulation {
    drive: Drive,
    now: Time,
}

/// The drives made so far.
#[derive(Default)]
pub struct Simulated {
    drives: Vec<Simulation>,
}

impl Simulated {
    /// The answer, if the question is one for simulated drives.
    ///
    /// `sim_new` answers with the drive's number, which all others name as `sim`. What a drive sends is the answer
    /// of `sim_frame`, `sim_tick` and `sim_order`; an order is written as for the control socket, without the node.
    pub fn answer(&mut self, ask: &str, question: &Value) -> Result<Option<Value>> {
        if ask == "sim_new" {
            let drive = Drive::from_spec(text(question, "spec")?)?;
            self.drives.push(Simulation { drive, now: Time::ZERO });
            return Ok(Some(json!(self.drives.len() - 1)));
        }
        let mut out = Vec::new();
        match ask {
            "sim_frame" => {
                let simulation = self.named(question)?;
                simulation.drive.on_frame(simulation.now, &wire::simulated_frame(question)?, &mut out);
            }
            "sim_tick" => {
                let time = Duration::try_from_secs_f64(wire::number(question, "ms")? / 1000.0)?;
                self.named(question)?.pass(time, &mut out);
            }
            "sim_order" => {
                let simulation = self.named(question)?;
                let line = format!("{} {}", simulation.drive.node(), text(question, "order")?);
                let Command::Order(_, order) = Command::parse(&line)? else {
                    bail!("{line:?} is no order");
                };
                simulation.drive.order(simulation.now, &order, &mut out);
            }
            "sim_status" => {
                let simulation = self.named(question)?;
                return Ok(Some(simulation.drive.status(simulation.now)));
            }
            _ => return Ok(None),
        }
        Ok(Some(out.iter().map(wire::from_simulated).collect()))
    }

    fn named(&mut self, question: &Value) -> Result<&mut Simulation> {
        self.drives.get_mut(index(question, "sim")?).context("there is no such simulated drive")
    }
}

impl Simulation {
    /// Lets time pass, with a tick whenever the drive wants one, as the bus does.
    fn pass(&mut self, time: Duration, out: &mut Vec<tests::sim::frame::Frame>) {
        let end = self.now + time;
        loop {
            // A drive that always wants to be ticked now must not keep the time from passing.
            let next = self.drive.next_due().max(self.now + Duration::from_micros(1));
            if next > end {
                break;
            }
            self.now = next;
            self.drive.tick(self.now, out);
        }
        self.now = end;
        self.drive.tick(self.now, out);
    }
}
