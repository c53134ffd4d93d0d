//! The programme that sets a drive up and brings it to *operation enabled*.

use super::keys::Keys;
use super::objects as o;
use super::statusword::{controlword, state};
use super::{Model, RPDO, TPDO1, Transport};
use crate::canopen::{self, Object, sdo};
use crate::enable::{EnableProgramme, EnableStep, Until};
use crate::feedback::Power;
use crate::frame::{Frame, FrameList};
use alloc::vec;
use alloc::vec::Vec;

/// PDO transmission type 255: acted on, or sent, when it arrives or changes, without SYNC.
const EVENT_DRIVEN: u8 = 255;
/// Bit 31 of a PDO's identifier: the PDO is off. Bit 30: no remote requests.
const PDO_OFF: u32 = 1 << 31;
const PDO_NO_REMOTE: u32 = 1 << 30;
/// Statusword and velocity at most every 5 ms (in 100 us): the noise of a velocity would otherwise put a
/// frame on the bus in every control cycle.
const TPDO1_INHIBIT: u16 = 50;

/// A step that writes one object and waits until the drive has confirmed it. A drive that refuses one
/// (see [`crate::Observation::refused`]) is not enabled: what is set up here is what stops it later.
fn write(object: Object, frame: Frame) -> EnableStep {
    EnableStep { frames: FrameList::new(&[frame]), until: Some(Until::Answer(object.key())) }
}

/// From any state to *operation enabled*. At most one SDO request a step; NMT commands go to another
/// handler of the node, and starting a node twice does nothing.
pub(super) fn programme(keys: &Keys) -> EnableProgramme {
    let model = &keys.model;
    let node = model.node;
    let command = |word| sdo::write_u16(node, o::CONTROLWORD, word);
    // Many drives take a PDO mapping only while pre-operational.
    let first = match model.transport {
        Transport::Sdo => canopen::start(node),
        Transport::Pdo => canopen::make_pre_operational(node),
    };
    // Torque off first: the set-up must not reach a drive that moves, and the fault reset after it needs a
    // rising edge of bit 7, of which this is the low half.
    let mut steps = vec![EnableStep {
        frames: FrameList::new(&[first, command(controlword::DISABLE_VOLTAGE)]),
        until: Some(Until::Answer(o::CONTROLWORD.key())),
    }];
    if model.transport == Transport::Pdo {
        set_up_pdos(model, &mut steps);
    }
    set_up(keys, &mut steps);
    let advance = |word, until| EnableStep { frames: FrameList::new(&[command(word)]), until: Some(until) };
    steps.extend([
        EnableStep {
            frames: FrameList::new(&[canopen::start(node), command(controlword::FAULT_RESET)]),
            until: Some(Until::State(state::SWITCH_ON_DISABLED)),
        },
        advance(controlword::SHUTDOWN, Until::State(state::READY_TO_SWITCH_ON)),
        advance(controlword::SWITCH_ON, Until::State(state::SWITCHED_ON)),
        advance(controlword::ENABLE_OPERATION, Until::Power(Power::On)),
    ]);
    EnableProgramme::new(&steps)
}

/// Watchdogs, reactions, mode, and a target of 0.
fn set_up(keys: &Keys, steps: &mut Vec<EnableStep>) {
    let node = keys.model.node;
    if keys.drive_heartbeat_ms > 0 {
        let frame = sdo::write_u16(node, o::PRODUCER_HEARTBEAT, keys.drive_heartbeat_ms);
        steps.push(write(o::PRODUCER_HEARTBEAT, frame));
    }
    steps.push(write(o::ABORT_OPTION, sdo::write_u16(node, o::ABORT_OPTION, keys.abort_option)));
    steps.push(write(
        o::QUICK_STOP_OPTION,
        sdo::write_u16(node, o::QUICK_STOP_OPTION, keys.quick_stop_option),
    ));
    if let Some(option) = keys.halt_option {
        steps.push(write(o::HALT_OPTION, sdo::write_u16(node, o::HALT_OPTION, option)));
    }
    if keys.heartbeat_ms > 0 {
        // After 6007, so that the reaction is there when the watchdog first runs out; it starts with the
        // first heartbeat it hears (CANopenNode `CO_HBconsumer.h`).
        let consumer = u32::from(keys.master_node) << 16 | u32::from(keys.heartbeat_ms);
        steps.push(write(o::CONSUMER_HEARTBEAT, sdo::write_u32(node, o::CONSUMER_HEARTBEAT, consumer)));
    }
    steps.push(write(o::MODE, sdo::write_u8(node, o::MODE, keys.mode)));
    steps.push(write(o::TARGET_VELOCITY, sdo::write_i32(node, o::TARGET_VELOCITY, 0)));
}

/// RPDO1 = controlword, target velocity; TPDO1 = statusword, velocity. CiA 301's order: off, no objects,
/// the objects, their number, on. The default mapping of both is the first object alone (unverified).
fn set_up_pdos(model: &Model, steps: &mut Vec<EnableStep>) {
    let node = model.node;
    let mapped =
        |object: Object, bits: u32| u32::from(object.index) << 16 | u32::from(object.sub) << 8 | bits;
    let rpdo_id = u32::from(RPDO[0]) + u32::from(node);
    let tpdo_id = PDO_NO_REMOTE | (u32::from(TPDO1) + u32::from(node));
    let word = |object, value| write(object, sdo::write_u32(node, object, value));
    let byte = |object, value| write(object, sdo::write_u8(node, object, value));
    steps.extend([
        word(o::RPDO1_ID, PDO_OFF | rpdo_id),
        byte(o::RPDO1_TYPE, EVENT_DRIVEN),
        byte(o::RPDO1_COUNT, 0),
        word(o::RPDO1_FIRST, mapped(o::CONTROLWORD, 16)),
        word(o::RPDO1_SECOND, mapped(o::TARGET_VELOCITY, 32)),
        byte(o::RPDO1_COUNT, 2),
        word(o::RPDO1_ID, rpdo_id),
        word(o::TPDO1_ID, PDO_OFF | tpdo_id),
        byte(o::TPDO1_TYPE, EVENT_DRIVEN),
        write(o::TPDO1_INHIBIT, sdo::write_u16(node, o::TPDO1_INHIBIT, TPDO1_INHIBIT)),
        byte(o::TPDO1_COUNT, 0),
        word(o::TPDO1_FIRST, mapped(o::STATUSWORD, 16)),
        word(o::TPDO1_SECOND, mapped(o::VELOCITY, 32)),
        byte(o::TPDO1_COUNT, 2),
        word(o::TPDO1_ID, tpdo_id),
    ]);
}
