"""Tinymovr: the package tinymovr, with its specs of every firmware, its codec and its channel, against the family
`tinymovr`.

Writes are compared with a channel that carries the hash of the spec, as the package opens it once it knows the drive;
reads with one that carries none, as it opens it first: that is how Lanyard reads.

Left out, because the package is wrong there:
* Heartbeats of nodes above 63: it cuts the node of a heartbeat to six bits (config.py, `create_device_with_hash_msg`).
"""

import math
import pathlib

import can
import tinymovr
import tinymovr.channel
import yaml
from avlos.definitions import RemoteBitmask, RemoteEnum, RemoteFunction, RemoteNode
from avlos.deserializer import deserialize
from tinymovr.channel import CANChannel, arbitration_from_ids
from tinymovr.codec import DataType, MultibyteCodec
from tinymovr.config import create_device_with_hash_msg

from ours import Frame, as_secs_f32, close, equal, main, single, speed

ROUNDS = 300
FOLDER = pathlib.Path(tinymovr.__file__).parent / "specs"
FIRMWARES = ["2.4", "2.5", "2.6", "3.0", "3.1"]
SPECS = {name: deserialize(yaml.safe_load((FOLDER / f"tinymovr_{name.replace('.', '_')}_x.yaml").read_text()))
         for name in FIRMWARES}
IDLE, CLOSED_LOOP = "IDLE", "CL_CONTROL"


class Router:
    """In place of the package's bus: notes what is sent, and gives the answers back at once."""

    def __init__(self):
        self.sent, self.receive, self.drive = [], None, zeros

    def add_client(self, _, receive):
        self.receive = receive

    def send(self, message):
        frame = Frame.of(message)
        self.sent.append(frame)
        for answer in self.drive(frame):
            self.receive(message_of(answer))


def message_of(frame):
    return can.Message(arbitration_id=frame.id, data=frame.data, is_extended_id=frame.extended)


def zeros(frame):
    """A drive that answers everything with zeros: reads, and the calls that return something."""
    return [Frame(frame.id, bytes(8), extended=True)]


ROUTER = Router()
tinymovr.channel.get_router = lambda: ROUTER

# An attribute keeps the channel it was first used with, so there is one for each spec.
CHANNELS = {name: CANChannel(0) for name in FIRMWARES}
for name, root in SPECS.items():
    root.set_channel(CHANNELS[name])


class Theirs:
    def __init__(self, firmware, node):
        self.root, self.channel, self.node = SPECS[firmware], CHANNELS[firmware], node
        self.hash = self.root.hash_uint32

    def frames(self, *actions):
        """What they send when told to do this: `("write", path, value)`, `("read", path)` or `("call", path, ...)`."""
        ROUTER.sent = []
        for action in actions:
            self.do(*action)
        return ROUTER.sent

    def do(self, kind, path, *values):
        self.channel.node_id, self.channel.compare_hash = self.node, 0 if kind == "read" else self.hash & 0xFF
        self.channel.queue.clear()
        ROUTER.receive = self.channel._recv_cb
        attribute = self.root
        for name in path.split("."):
            attribute = attribute.remote_attributes[name]
        if kind == "read":
            value = attribute.get_value()
            return getattr(value, "magnitude", value)
        return attribute.set_value(*values) if kind == "write" else attribute(*values)

    def answer(self, path, value):
        """What the drive answers to a read that carries no hash."""
        attribute = self.root
        for name in path.split("."):
            attribute = attribute.remote_attributes[name]
        data = MultibyteCodec().serialize([value], attribute.dtype)
        return Frame(arbitration_from_ids(attribute.ep_id, 0, self.node), data, extended=True)


VELOCITY_ESTIMATE, POSITION_ESTIMATE = "sensors.user_frame.velocity_estimate", "sensors.user_frame.position_estimate"
READS = [("read", VELOCITY_ESTIMATE), ("read", "controller.state"), ("read", POSITION_ESTIMATE)]


def some_drive(rng, firmware=None):
    settings = {"node": rng.randrange(1, 256), "firmware": firmware or rng.choice(FIRMWARES),
                "ticks_per_rev": rng.choice([8192, rng.randrange(100, 1 << 24)]),
                "watchdog_ms": rng.choice([0, 200, rng.randrange(100, 10_001)])}
    return settings, Theirs(settings["firmware"], settings["node"])


def still(velocity=0.0):
    return [("write", "controller.mode", "VELOCITY"), ("write", "controller.velocity.setpoint", velocity),
            ("write", "controller.current.Iq_setpoint", 0.0)]


def check_commands(ours, rng):
    """Velocity, both stages, polls, the watchdog's questions, and enabling, with every spec."""
    for _ in range(ROUNDS):
        settings, theirs = some_drive(rng)
        drive = ours.drive("tinymovr", settings)
        rps = speed(rng)
        setpoint = "write", "controller.velocity.setpoint", rps * settings["ticks_per_rev"]
        equal(f"{rps} rev/s, {settings}", drive.velocity(rps), theirs.frames(setpoint, *READS))
        stop = drive.stop()
        equal(f"controlled, {settings}", stop["controlled"], theirs.frames(*still()))
        equal(f"torque-off, {settings}", stop["torque-off"], theirs.frames(("write", "controller.state", IDLE)))
        equal(f"polls, {settings}", drive.poll(), theirs.frames(
            ("read", "controller.state"), ("read", VELOCITY_ESTIMATE), ("read", "controller.errors"),
            ("read", POSITION_ESTIMATE)))
        equal(f"questions for its watchdog, {settings}", drive.watchdog_ask(), theirs.frames(
            ("read", "watchdog.enabled"), ("read", "watchdog.timeout")))
        millis = settings["watchdog_ms"]
        watchdog = [("write", "watchdog.enabled", bool(millis))]
        if millis:
            watchdog.insert(0, ("write", "watchdog.timeout", as_secs_f32(millis)))
        equal(f"enable, {settings}", drive.enable(), [
            theirs.frames(("read", "protocol_hash")),
            theirs.frames(*watchdog),
            theirs.frames(*still()),
            theirs.frames(("write", "controller.state", CLOSED_LOOP), ("read", "controller.state"),
                          ("read", POSITION_ESTIMATE)),
        ])
    return ROUNDS


# Of all that can be written or called, what cannot move the motor: whatever the value, or with this one.
HARMLESS = {"controller.idle", "watchdog.enabled", "watchdog.timeout"}
RESTS = {"controller.state": (IDLE, CLOSED_LOOP), "controller.mode": ("VELOCITY", "POSITION"),
         "controller.velocity.setpoint": (0.0, 0.25), "controller.current.Iq_setpoint": (0.0, -0.25)}


def attributes(node, prefix=""):
    for name, attribute in node.remote_attributes.items():
        if isinstance(attribute, RemoteNode):
            yield from attributes(attribute, f"{prefix}{name}.")
        else:
            yield prefix + name, attribute


def check_guard(ours, rng):
    """Every attribute of every spec: read, written, called."""
    count = 0
    for firmware in FIRMWARES:
        settings, theirs = some_drive(rng, firmware)
        drive = ours.drive("tinymovr", settings)

        def expect(moves, *action):
            [frame] = theirs.frames(action)
            equal(f"{action} {frame}, {settings}", drive.is_motion(frame), moves)

        for path, attribute in attributes(theirs.root):
            if isinstance(attribute, RemoteFunction):
                # One without arguments is a remote request, like a read.
                expect(path not in HARMLESS, "call", path, *(1 for _ in attribute.arguments))
            else:
                if not isinstance(attribute, (RemoteEnum, RemoteBitmask)) and attribute.dtype != DataType.STR:
                    expect(False, "read", path)
                if path in RESTS:
                    rests, moves = RESTS[path]
                    expect(False, "write", path, rests)
                    expect(True, "write", path, moves)
                elif getattr(attribute, "setter_name", None):
                    options = getattr(attribute, "options", None)
                    expect(path not in HARMLESS, "write", path, list(options)[-1] if options else 1)
            count += 1
    return count


def check_reading(ours, rng):
    """Answers that their codec writes, as Lanyard reads them."""
    for _ in range(ROUNDS):
        settings, theirs = some_drive(rng)
        drive, ticks = ours.drive("tinymovr", settings), settings["ticks_per_rev"]
        velocity, position = single(speed(rng) * ticks), single(rng.uniform(-1e7, 1e7))
        seen = drive.decode(theirs.answer(VELOCITY_ESTIMATE, velocity))
        close("velocity", seen["velocity"], velocity / ticks, 1e-9)
        seen = drive.decode(theirs.answer(POSITION_ESTIMATE, position))
        close("position", seen["position"], position / ticks, 1e-9)
        state = rng.randrange(3)
        seen = drive.decode(theirs.answer("controller.state", state))
        equal("state", (seen["state"], seen["power"]), (state, ["Off", "Transition", "On"][state]))
        errors = rng.choice([0, rng.randrange(256)])
        equal("errors", drive.decode(theirs.answer("controller.errors", errors))["fault"], errors or None)
        equal("hash", drive.decode(theirs.answer("protocol_hash", theirs.hash))["answer"], 0)
        wrong = theirs.hash ^ 1 << rng.randrange(32)
        seen = drive.decode(theirs.answer("protocol_hash", wrong))
        equal("wrong hash", seen["refused"], {"request": 0, "code": wrong})
        seconds = single(rng.uniform(0.01, 60.0))
        equal("watchdog off", drive.watchdog(theirs.answer("watchdog.enabled", False)), {"us": 0})
        close("watchdog", drive.watchdog(theirs.answer("watchdog.timeout", seconds))["us"] / 1e6, seconds, 1e-6)
    return ROUNDS


def check_simulated(ours, rng):
    """They find the simulated drive by its heartbeat, turn it, read it, and stop it."""
    for _ in range(30):
        firmware, node = rng.choice(["2.4", "3.1"]), rng.randrange(1, 64)
        ticks = rng.randrange(1000, 100_000)
        sim = ours.simulated(f"tinymovr:node={node},firmware={firmware},ticks_per_rev={ticks}")
        ROUTER.drive = sim.hear
        try:
            [heartbeat, *_] = sim.run(2000)
            found = create_device_with_hash_msg(message_of(heartbeat))
            equal("found", (found._channel.node_id, found.hash_uint32), (node, SPECS[firmware].hash_uint32))
            equal("its hash", found.protocol_hash, SPECS[firmware].hash_uint32)
            equal("at first", found.controller.state.name, IDLE)
            rps = speed(rng, 20.0)
            found.controller.mode = "VELOCITY"
            found.controller.velocity.setpoint = rps * ticks
            found.controller.state = CLOSED_LOOP
            sim.run(3000)
            status, frame = sim.status(), found.sensors.user_frame
            close("the speed they asked for", status["velocity"], rps, 1e-3)
            close("velocity", status["velocity"], frame.velocity_estimate.magnitude / ticks, 1e-3)
            close("position", status["position"], frame.position_estimate.magnitude / ticks, 1e-2)
            equal("turning", found.controller.state.name, CLOSED_LOOP)
            millis = rng.randrange(100, 10_000)
            found.watchdog.timeout, found.watchdog.enabled = millis / 1000, True
            close("its watchdog", found.watchdog.timeout.magnitude, millis / 1000, 1e-6)
            sim.run(millis + 1)
            equal("after its watchdog", (found.controller.state.name, found.watchdog.triggered), (IDLE, False))
            errors = rng.choice([1, 2, 3])
            sim.order(f"fault {errors}")
            equal("errors", found.controller.errors.value, errors)
        finally:
            ROUTER.drive = zeros
    return 30


main(globals())
