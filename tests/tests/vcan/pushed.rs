//! Motors that nobody drives and that turn all the same, with their power off: pushed by hand, or rolling down a ramp.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::clock::Moment;
use tests::robot::{LEFT, START, STILL, Setup};

use crate::scene::play;

/// A second motor, of a family that has no word on its power stage.
const OTHER: &str = "cart";
/// Its node.
const OTHER_NODE: u8 = 9;

/// Fails if a motor that is pushed with its power off is not told of, if it is sent a frame that could hold it, or if it is
/// still shown once it stands still.
#[test]
fn a_motor_that_is_pushed_without_power_is_told_of_and_sent_nothing() -> Result<()> {
    let table = format!(
        "max_rpm = 300\ndriver = \"vesc\"\nid = {OTHER_NODE}\npole_pairs = 7\nafter_stop = \"release\""
    );
    let setup = Setup::base().with_drive(OTHER, &table, &format!("vesc:node={OTHER_NODE},pole_pairs=7"));
    play(setup, |robot, _| {
        let other = robot.lanyard.wait_for_motor(OTHER, STILL, "is at rest", |m| m.state() == "idle")?;
        for (name, node) in [(LEFT.name, LEFT.node), (OTHER, OTHER_NODE)] {
            let before = robot.lanyard.wait_for_motor(name, STILL, "is at rest", |m| m.state() == "idle")?;
            ensure!(before.0["moves"] == false, "{name} moves already: {}", before.0);
            let pushed = Moment::now();
            robot.sim.order(&format!("{node} push 1.0"))?;
            let moves =
                robot.lanyard.wait_for_motor(name, START, "moves", |motor| motor.0["moves"] == true)?;
            ensure!(moves.state() == "idle", "{name} is {}", moves.state());
            robot.lanyard.wait_for_event(pushed, START, &format!("{name} moves"), |event| {
                event.kind() == "moves without power" && event.concerns(name)
            })?;
            let told = robot.lanyard.run(&["status"])?;
            let line = format!("motor {name} MOVES WITH ITS POWER OFF");
            ensure!(told.code == Some(2) && told.stdout.contains(&line), "status: {}", told.stdout);
            std::thread::sleep(Duration::from_secs(1));
            let later = robot.lanyard.motor(name)?;
            ensure!(later.0["moves"] == true, "it still does: {}", later.0);
            ensure!(later.stops_sent() == before.stops_sent(), "{name} was sent a stop: {}", later.0);
            ensure!(!robot.sim.report(node)?.enabled(), "{name} was given torque");
            robot.sim.order(&format!("{node} push off"))?;
            robot.lanyard.wait_for_motor(name, STILL, "stands still", |motor| motor.0["moves"] == false)?;
        }
        let later = robot.lanyard.motor(OTHER)?;
        ensure!(later.stops_sent() == other.stops_sent(), "{OTHER} was sent a stop: {}", later.0);
        let events = robot.lanyard.events()?;
        let told = events.iter().filter(|event| event.kind() == "moves without power").count();
        ensure!(told == 2, "told {told} times of two pushes");
        robot.lanyard.is_well()
    })
}
