"""A robot's own server behind Lanyard: the component server of the unmodified viam-sdk, told what to do line by line.

Its components do what a viam-server's would: whatever they are told, they turn a motor over CAN by themselves, and go
on until their Stop. What each was told, and when, is kept for the test; so are calls that were taken back. A test can
have a Stop hang, fail or take its time, commands that do not return, and calls that are carried out in any order, whether
they were taken back or not, as a server does that runs each on a thread of its own.
"""

import asyncio
import math
import random
import struct
import time

import can
from viam.components.arm import Arm
from viam.components.base import Base
from viam.components.button import Button
from viam.components.gantry import Gantry
from viam.components.gripper import Gripper
from viam.components.motor import Motor
from viam.components.servo import Servo
from viam.components.switch import Switch
from viam.rpc.server import Server

from testecho import TestEcho

# ODrive CANSimple.
SET_AXIS_STATE, SET_CONTROLLER_MODES, SET_INPUT_VEL = 0x07, 0x0B, 0x0D
CLOSED_LOOP, VELOCITY, PASSTHROUGH = 8, 2, 1
# Half of what an ODrive's watchdog is usually set to.
REFRESH = 0.05
TURNS_PER_SECOND = 1.5
# How long a call may lie about where calls are carried out in any order.
DISORDER = 0.03


class Axis:
    """A motor that this server drives over CAN."""

    def __init__(self, bus, node):
        self.bus, self.node, self.task = bus, node, None
        self.speed = TURNS_PER_SECOND

    def send(self, command, data):
        identifier = self.node << 5 | command
        self.bus.send(can.Message(arbitration_id=identifier, data=data, is_extended_id=False))

    def turn(self, speed=TURNS_PER_SECOND):
        self.speed = speed
        if self.task is None:
            self.send(SET_CONTROLLER_MODES, struct.pack("<II", VELOCITY, PASSTHROUGH))
            self.send(SET_AXIS_STATE, struct.pack("<I", CLOSED_LOOP))
            self.task = asyncio.get_running_loop().create_task(self.keep_turning())

    async def keep_turning(self):
        while True:
            self.send(SET_INPUT_VEL, struct.pack("<ff", self.speed, 0.0))
            await asyncio.sleep(REFRESH)

    def rest(self):
        if self.task is not None:
            self.task.cancel()
            self.task = None

    def stop(self):
        self.rest()
        self.send(SET_INPUT_VEL, bytes(8))


class Moving:
    """What all components have in common."""

    def __init__(self, name, robot, axes):
        super().__init__(name)
        self.robot, self.axes = robot, axes
        self.key = f"{self.API.resource_subtype}/{name}"

    async def lie_about(self):
        """Waits for as long as chance has it, if there is any; being taken back does not end that."""
        if self.robot.chance is None:
            return
        waiting = asyncio.ensure_future(asyncio.sleep(self.robot.chance.uniform(0, DISORDER)))
        while not waiting.done():
            try:
                await asyncio.shield(waiting)
            except asyncio.CancelledError:
                pass

    async def begin(self, did, speed=TURNS_PER_SECOND):
        await self.lie_about()
        self.robot.note(self.key, did)
        for axis in self.axes:
            if speed:
                axis.turn(speed)
            else:
                axis.stop()
        await self.lie_about()
        if self.key in self.robot.endless:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.robot.note(self.key, "cancelled")
                raise

    async def stop(self, **_):
        await self.lie_about()
        self.robot.note(self.key, "stop")
        trouble = self.robot.troubles.get(self.key)
        if trouble == "hang":
            await asyncio.Event().wait()
        elif trouble == "slow":
            await asyncio.sleep(0.6)
        elif trouble:
            # Fails so often.
            self.robot.troubles[self.key] = trouble - 1
            raise RuntimeError("the brake is stuck")
        for axis in self.axes:
            axis.stop()
        self.robot.note(self.key, "stopped")

    async def is_moving(self):
        return any(axis.task is not None for axis in self.axes)


def moves(*methods):
    """A class of components of which these methods move something, and whose other methods do nothing."""

    def made(cls):
        for method in methods:

            async def move(self, *_, did=method, **__):
                await self.begin(did)

            setattr(cls, method, move)
        cls.__abstractmethods__ = frozenset()
        return cls

    return made


@moves("move_to_position", "move_to_joint_positions", "move_through_joint_positions")
class OurArm(Moving, Arm):
    async def move_through_joint_positions_streamed(self, batches, **_):
        async for points in batches:
            await self.begin(f"move_through_joint_positions_streamed {len(points)}")
            yield Arm.TrajectoryUpdate()


@moves("move_straight", "spin", "set_power", "set_velocity")
class OurBase(Moving, Base):
    pass


@moves("push")
class OurButton(Moving, Button):
    pass


@moves("move_to_position")
class OurGantry(Moving, Gantry):
    pass


@moves("open", "go_to_inputs")
class OurGripper(Moving, Gripper):
    async def grab(self, **_):
        await self.begin("grab")
        return True


@moves("go_for", "go_to", "set_rpm")
class OurMotor(Moving, Motor):
    async def set_power(self, power, **_):
        await self.begin("set_power", math.copysign(TURNS_PER_SECOND, power) if power else 0.0)


@moves("move")
class OurServo(Moving, Servo):
    pass


@moves("set_position")
class OurSwitch(Moving, Switch):
    pass


class OurTestEcho(Moving, TestEcho):
    async def echo_multiple(self, message):
        await self.begin(f"echo_multiple {message}")
        return message


KINDS = {
    kind.API.resource_subtype: kind
    for kind in (OurArm, OurBase, OurButton, OurGantry, OurGripper, OurMotor, OurServo, OurSwitch, OurTestEcho)
}


class Upstream:
    """What the requests of the test do."""

    def __init__(self):
        self.notes, self.troubles, self.endless = [], {}, set()
        self.axes, self.task, self.chance = {}, None, None

    def note(self, key, did):
        self.notes.append({"at": time.clock_gettime_ns(time.CLOCK_BOOTTIME), "resource": key, "did": did})

    async def serve(self, port, bus, resources):
        """`resources` maps keys like arm/arm1 to the CAN nodes that the component turns."""
        wire = can.Bus(interface="socketcan", channel=bus)
        nodes = {node for nodes in resources.values() for node in nodes}
        self.axes = {node: Axis(wire, node) for node in nodes}
        components = []
        for key, nodes in resources.items():
            kind, name = key.split("/")
            components.append(KINDS[kind](name, self, [self.axes[node] for node in nodes]))
        self.task = asyncio.create_task(Server(components).serve("127.0.0.1", port))
        # It says nothing when it listens; a client that comes too early tries again.

    async def told(self):
        """Everything that components were told."""
        return self.notes

    async def still(self):
        """Lets go of every motor, as a component would whose target is reached."""
        for axis in self.axes.values():
            axis.rest()

    async def trouble(self, key, kind):
        """Has a Stop hang ("hang"), take 0.6 s ("slow"), fail so often (a number), or nothing of it (None)."""
        self.troubles[key] = kind

    async def disorder(self, seed):
        """From now on calls are carried out in any order."""
        self.chance = random.Random(seed)

    async def endless_commands(self, key):
        """Commands for a component do not return any more."""
        self.endless.add(key)
