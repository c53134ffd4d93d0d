//! What a controller's driver tells, and the supervisor publishes: frames that really crossed the wire, and
//! the health of the bus.

use std::time::Duration;

use anyhow::{Result, ensure};
use shm_proto::verdicts::{BusHealth, BusVerdict};
use tests::clock::Moment;
use tests::expect;
use tests::interface::Changed;
use tests::intruder::Intruder;
use tests::robot::{LEFT, RIGHT, START};

use crate::adapter::Stall;
use crate::player::Player;
use crate::scene::{NEAR, NOBODYS, patient_setup, play, press_stop, setup};

fn wait_for_bus(player: &Player, what: &str, is: impl Fn(&BusVerdict) -> bool) -> Result<BusVerdict> {
    expect::within(START, what, || match player.bus() {
        Ok(bus) if is(&bus) => Ok(bus),
        other => Err(format!("{other:?}")),
    })
}

/// Every frame of the supervisor that the kernel has taken is confirmed: none is under way any more.
fn wait_until_all_is_confirmed(player: &Player) -> Result<BusVerdict> {
    wait_for_bus(player, "every frame handed over is confirmed", |bus| bus.confirmed == bus.sent)
}

/// Fails if an interface with a real echo is not known for one, or if a stop frame that has crossed the wire
/// is not confirmed, or one is confirmed that has not.
#[test]
fn every_stop_frame_that_crosses_the_wire_is_confirmed() -> Result<()> {
    play(setup(), |robot, player| {
        ensure!(player.bus()?.confirms == 1, "{NEAR} echoes what has left, and that is not known");
        let before = wait_until_all_is_confirmed(player)?;
        ensure!(before.confirmed > 0, "the stops at the start are not confirmed");
        player.drive(robot)?;
        let from = Moment::now();
        press_stop(robot)?;
        robot.verified(&LEFT)?;
        robot.verified(&RIGHT)?;
        let after = wait_until_all_is_confirmed(player)?;
        // Nobody but the supervisor sends stop frames here, and it sends nothing else to an ODrive.
        let told = |frame: &tests::wire::Seen| {
            [&LEFT, &RIGHT].iter().any(|motor| motor.is_stop(frame) || motor.is_torque_off(frame))
        };
        let crossed = robot.listener.count(from, Moment::now(), told)?;
        let confirmed = after.confirmed - before.confirmed;
        ensure!(crossed > 0, "no stop frame has crossed the wire");
        ensure!(confirmed == crossed as u64, "{crossed} stop frames have crossed, {confirmed} are confirmed");
        Ok(())
    })
}

/// Fails if frames that wait behind a stalled adapter are taken for confirmed, or are not confirmed later.
#[test]
fn nothing_is_confirmed_while_the_adapter_is_stalled() -> Result<()> {
    play(patient_setup(), |robot, player| {
        player.drive(robot)?;
        player.withhold();
        let before = wait_until_all_is_confirmed(player)?;
        let others = Intruder::local(NEAR)?;
        let stall = Stall::begin(NEAR)?;
        // The controller is busy with somebody else's frame: not even the first of the stop can leave.
        others.fill(NOBODYS, &[])?;
        press_stop(robot)?;
        wait_for_bus(player, "the queue takes stop frames, then refuses them", |bus| {
            bus.sent > before.sent && bus.queue_full > before.queue_full
        })?;
        // Long enough for a confirmation to be noticed: the supervisor looks at least every tick, 10 ms.
        std::thread::sleep(Duration::from_millis(200));
        let during = player.bus()?;
        ensure!(during.confirmed == before.confirmed, "confirmed during the stall: {before:?}, {during:?}");
        stall.end()?;
        robot.verified(&LEFT)?;
        let after = wait_until_all_is_confirmed(player)?;
        ensure!(after.confirmed >= during.sent, "what had waited is not confirmed: {during:?}, {after:?}");
        Ok(())
    })
}

/// Fails if the health of the bus is not what its controller says: error-active in order, down when it is
/// down, and error-active again.
#[test]
fn health_follows_the_interface() -> Result<()> {
    play(setup(), |_, player| {
        let is = |health| move |bus: &BusVerdict| bus.health == health;
        wait_for_bus(player, "an interface that is up is error-active", is(BusHealth::Active))?;
        let down = Changed::down(NEAR)?;
        wait_for_bus(player, "an interface that is down is called that", is(BusHealth::Down))?;
        down.restore()?;
        wait_for_bus(player, "it is error-active again", is(BusHealth::Active)).map(drop)
    })
}
