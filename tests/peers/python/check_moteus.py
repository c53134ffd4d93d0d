"""moteus: the package moteus, whose `Controller` makes commands, whose `Transport` and `PythonCanDevice` make frames of
them, and whose `multiplex` and `protocol` write and read answers, against the family `moteus`.
"""

import io
import math

import moteus
from moteus import multiplex as mp
from moteus.protocol import Mode, Register, Writer, parse_message
from moteus.pythoncan_device import PythonCanDevice
from moteus.transport import Transport

from ours import Frame, as_secs_f32, close, equal, main, speed

ROUNDS = 300
BROADCAST = 0x7F

# Nothing is ever sent on this bus; the device turns the package's frames into those of python-can.
DEVICE = PythonCanDevice(interface="virtual", channel="nobody", fd=True)
TRANSPORT = Transport([DEVICE])


class Theirs:
    def __init__(self, ident, host, prefix):
        self.controller = moteus.Controller(id=ident, source_can_id=host, can_prefix=prefix, transport=TRANSPORT)
        self.everyone = moteus.Controller(id=BROADCAST, source_can_id=host, can_prefix=prefix, transport=TRANSPORT)

    def frame(self, make, **arguments):
        return as_sent(getattr(self.controller, f"make_{make}")(**arguments))


def as_sent(command):
    return Frame.of(DEVICE._frame_to_can_message(TRANSPORT._command_to_frame(command)))


def some_drive(rng):
    ident, host = rng.sample(range(1, 127), 2)
    host, prefix = rng.choice([0, host]), rng.choice([0, 0, rng.randrange(0x2000)])
    settings = {"id": ident, "host": host, "prefix": prefix,
                "watchdog_ms": rng.choice([0, 200, rng.randrange(100, 10_001)])}
    return settings, Theirs(ident, host, prefix)


def velocity_frame(theirs, settings, rps):
    watchdog = settings["watchdog_ms"]
    more = {"watchdog_timeout": as_secs_f32(watchdog)} if watchdog else {}
    return theirs.frame("position", position=math.nan, velocity=rps, query=True, **more)


def check_commands(ours, rng):
    """Velocity, each stage, poll, broadcast and enabling."""
    for _ in range(ROUNDS):
        settings, theirs = some_drive(rng)
        drive = ours.drive("moteus", settings)
        rps = speed(rng)
        equal(f"{rps} rev/s, {settings}", drive.velocity(rps), [velocity_frame(theirs, settings, rps)])
        stop = drive.stop()
        equal(f"controlled, {settings}", stop["controlled"], [theirs.frame("zero_velocity", query=True)])
        equal(f"quick, {settings}", stop["quick"], [theirs.frame("brake", query=True)])
        equal(f"torque-off, {settings}", stop["torque-off"], [theirs.frame("stop", query=True)])
        equal(f"poll, {settings}", drive.poll(), [theirs.frame("query")])
        equal(f"broadcast, {settings}", drive.broadcast(), as_sent(theirs.everyone.make_zero_velocity()))
        equal(f"enable, {settings}", drive.enable(), [
            [theirs.frame("stop", query=True)],
            [velocity_frame(theirs, settings, 0.0)],
        ])
    return ROUNDS


def check_guard(ours, rng):
    """Their commands of every kind, to the drive, to all, and to another."""
    moving = {
        "position": {"position": 0.0, "velocity": 0.0},
        "vfoc": {"theta": 0.0, "voltage": 0.0},
        "current": {"d_A": 0.0, "q_A": 0.0},
        "stay_within": {"lower_bound": -1.0, "upper_bound": 1.0},
        "set_output_exact": {"position": 0.0},
        "diagnostic_write": {"data": b"d pos 0 1 1\n"},
    }
    resting = {"stop": {}, "brake": {}, "zero_velocity": {}, "query": {}}
    count = 0
    for _ in range(30):
        settings, theirs = some_drive(rng)
        drive = ours.drive("moteus", settings)
        other = settings["id"] % 126 + 1
        for moves, kinds in (True, moving), (False, resting):
            for make, arguments in kinds.items():
                frame = theirs.frame(make, **arguments)
                equal(f"{make} {frame}, {settings}", drive.is_motion(frame), moves)
                equal(f"{make} to all", drive.is_motion(
                    as_sent(getattr(theirs.everyone, f"make_{make}")(**arguments))), moves)
                elsewhere = Frame(frame.id & ~0x7F | other, frame.data, frame.extended, fd=True)
                equal(f"{make} to another", drive.is_motion(elsewhere), False)
                count += 3
    return count


POWER = {Mode.STOPPED: "Off", Mode.FAULT: "Fault", Mode.POSITION: "On", Mode.TIMEOUT: "QuickStop",
         Mode.ZERO_VELOCITY: "QuickStop", Mode.BRAKE: "QuickStop", Mode.STAY_WITHIN: "On", Mode.CURRENT: "On"}
WIDTHS = [mp.INT8, mp.INT16, mp.INT32, mp.F32]


def check_reading(ours, rng):
    """Answers with any resolution, as they write and as they read them."""
    for _ in range(ROUNDS):
        settings, _ = some_drive(rng)
        drive = ours.drive("moteus", settings)
        mode, fault = rng.choice(list(POWER)), rng.choice([0, rng.randrange(32, 51), rng.randrange(96, 104)])
        widths = [rng.choice([mp.INT8, mp.INT16, mp.INT32]), *(rng.choice(WIDTHS) for _ in range(3))]
        values = [int(mode), rng.uniform(-100.0, 100.0), speed(rng), rng.uniform(-5.0, 5.0)]
        buffer = io.BytesIO()
        writer = Writer(buffer)
        combiner = mp.WriteCombiner(writer, 0x20, int(Register.MODE), widths)
        kinds = [writer.write_int, writer.write_position, writer.write_velocity, writer.write_torque]
        for kind, value, width in zip(kinds, values, widths):
            if combiner.maybe_write():
                kind(value, width)
        combiner = mp.WriteCombiner(writer, 0x20, int(Register.VOLTAGE), 3 * [mp.INT8])
        for kind, value in (writer.write_voltage, 24.0), (writer.write_temperature, 30.0), (writer.write_int, fault):
            if combiner.maybe_write():
                kind(value, mp.INT8)
        number = settings["prefix"] << 16 | settings["id"] << 8 | settings["host"]
        command = moteus.Command()
        command.raw, command.arbitration_id, command.data = True, number, buffer.getvalue()
        frame = as_sent(command)
        seen, theirs = drive.decode(frame), parse_message(frame_to_parse(frame)).values
        what = f"{frame}, widths {widths}"
        equal(what, (seen["state"], seen["power"]), (theirs[Register.MODE], POWER[mode]))
        # In a fault there is a code; a drive that tells none yet tells no news. Otherwise it is a limit notice.
        expected = (fault or "no news") if mode == Mode.FAULT else None
        equal(f"fault, {what}", seen.get("fault", "no news"), expected)
        # Too coarse to be told from standing still, or too short for a position: no news.
        if widths[1] in (mp.INT8, mp.INT16):
            equal(f"position, {what}", seen["position"], None)
        else:
            close(f"position, {what}", seen["position"], theirs[Register.POSITION], 1e-9)
        if widths[2] == mp.INT8:
            equal(f"velocity, {what}", seen["velocity"], None)
        else:
            close(f"velocity, {what}", seen["velocity"], theirs[Register.VELOCITY], 1e-9)
    return ROUNDS


def frame_to_parse(frame):
    return moteus.Frame(arbitration_id=frame.id, data=frame.data, is_extended_id=frame.extended)


def check_simulated(ours, rng):
    """They turn the simulated drive, read it with any resolution, and stop it in each way."""
    for _ in range(40):
        ident = rng.randrange(1, 127)
        host = rng.choice([0, ident % 126 + 1])
        sim, theirs = ours.simulated(f"moteus:node={ident}"), Theirs(ident, host, 0)

        def tell(make, **arguments):
            """What their `Controller` makes of the one answer."""
            [answer] = sim.hear(theirs.frame(make, **arguments))
            result = theirs.controller._parser(frame_to_parse(answer))
            equal("who answers whom", (result.id, answer.id & 0x7F, answer.fd), (ident, host, True))
            return result.values

        equal("at first", tell("query")[Register.MODE], Mode.STOPPED)
        rps = speed(rng, 20.0)
        more = {"position": math.nan, "velocity": rps, "watchdog_timeout": 10.0, "query": True}
        tell("position", **more)
        sim.run(3000)
        resolution = moteus.QueryResolution()
        # An int16 ends at 8.2 rev/s.
        resolution.velocity = rng.choice([mp.F32, mp.INT32] + [mp.INT16] * (abs(rps) < 8.0))
        resolution.position = rng.choice([mp.F32, mp.INT32])
        read, status = tell("query", query_override=resolution), sim.status()
        equal("mode", read[Register.MODE], Mode.POSITION)
        close("the speed they asked for", status["velocity"], rps, 1e-3)
        close("velocity", status["velocity"], read[Register.VELOCITY], 1e-3)
        close("position", status["position"], read[Register.POSITION], 1e-3)
        kind, mode = rng.choice([("stop", Mode.STOPPED), ("brake", Mode.BRAKE), ("zero_velocity", Mode.ZERO_VELOCITY)])
        tell(kind, query=True)
        sim.run(5000)
        read = tell("query")
        equal(f"after {kind}", (read[Register.MODE], abs(read[Register.VELOCITY]) < 0.01), (mode, True))
        fault = rng.randrange(32, 51)
        sim.order(f"fault {fault}")
        read = tell("query")
        equal("a fault", (read[Register.MODE], read[Register.FAULT]), (Mode.FAULT, fault))
    return 40


try:
    main(globals())
finally:
    DEVICE.close()
