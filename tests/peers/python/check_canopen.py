"""CANopen: the package canopen, as master (SDO client, PDO maps, NMT) and as drive (SDO server, emergencies), against
the family `cia402`.

Left out:
* `BaseNode402.state = ...`: it sleeps and asks until the drive is where it should be, and takes its own way there.
  The controlwords and the states of its table are compared one by one instead.
"""

import struct

import canopen
from canopen.objectdictionary import ODArray, ODRecord, ODVariable, ObjectDictionary, datatypes as types
from canopen.profiles.p402 import OperationMode, State402

from ours import Frame, close, equal, main, speed

ROUNDS = 300

CONTROLWORD, STATUSWORD, MODE, POSITION, VELOCITY, TARGET = 0x6040, 0x6041, 0x6060, 0x6064, 0x606C, 0x60FF
ABORT_OPTION, QUICK_STOP_OPTION, HALT_OPTION = 0x6007, 0x605A, 0x605D
OBJECTS = {
    0x1017: types.UNSIGNED16,
    ABORT_OPTION: types.INTEGER16,
    CONTROLWORD: types.UNSIGNED16,
    STATUSWORD: types.UNSIGNED16,
    QUICK_STOP_OPTION: types.INTEGER16,
    HALT_OPTION: types.INTEGER16,
    MODE: types.INTEGER8,
    POSITION: types.INTEGER32,
    VELOCITY: types.INTEGER32,
    TARGET: types.INTEGER32,
}


def dictionary():
    """The part of a drive's object dictionary that is talked about here."""
    whole = ObjectDictionary()
    for index, kind in OBJECTS.items():
        variable = ODVariable(f"object {index:04X}", index)
        variable.data_type = kind
        whole.add_object(variable)

    def add(container, members):
        for sub, kind in members.items():
            member = ODVariable(f"{container.name} {sub}", container.index, sub)
            member.data_type = kind
            container.add_member(member)
        whole.add_object(container)

    add(ODArray("consumer heartbeat", 0x1016), {0: types.UNSIGNED8, 1: types.UNSIGNED32})
    for communication, mapping in (0x1400, 0x1600), (0x1800, 0x1A00):
        add(ODRecord(f"PDO {communication:04X}", communication),
            {0: types.UNSIGNED8, 1: types.UNSIGNED32, 2: types.UNSIGNED8, 3: types.UNSIGNED16})
        # As a record: of an array the package asks the drive for the number of its entries.
        add(ODRecord(f"map {mapping:04X}", mapping),
            {0: types.UNSIGNED8, **{sub: types.UNSIGNED32 for sub in range(1, 9)}})
    return whole


class Wire(canopen.Network):
    """A network without a bus: what is sent is noted and given to `others`, whose frames come back at once."""

    def __init__(self, others=lambda frame: []):
        super().__init__()
        self.others, self.sent = others, []

    def send_message(self, can_id, data, remote=False):
        frame = Frame(can_id, bytes(data), remote=remote)
        self.sent.append(frame)
        self.receive(self.others(frame))

    def send_periodic(self, can_id, data, period, remote=False):
        """Once is enough; what would go on is the caller's to stop."""
        self.send_message(can_id, data, remote)
        return Periodic()

    def receive(self, frames):
        for frame in frames:
            self.notify(frame.id, bytearray(frame.data), 0.0)

    def taken(self):
        """What was sent since the last time."""
        sent, self.sent = self.sent, []
        return sent


class Periodic:
    def stop(self):
        pass

    def update(self, data):
        pass


def agreeable(frame):
    """A drive that confirms every expedited write, and has four zeros in every object (CiA 301)."""
    if 0x600 < frame.id < 0x680:
        command = {1: 0x60, 2: 0x43}[frame.data[0] >> 5]
        return [Frame(frame.id - 0x80, bytes([command]) + frame.data[1:4] + bytes(4))]
    return []


def master(node, others):
    """Their master on a wire with one drive."""
    wire = Wire(others)
    remote = canopen.RemoteNode(node, dictionary())
    wire.add_node(remote)
    return wire, remote


def some_drive(rng, transport=None):
    node = rng.randrange(1, 127)
    settings = {
        "node": node,
        "transport": transport or rng.choice(["sdo", "pdo"]),
        "counts_per_rev": rng.choice([4096, 65536, rng.randrange(100, 1_000_000)]),
        "heartbeat_ms": rng.choice([0, 250, rng.randrange(1, 65536)]),
        "drive_heartbeat_ms": rng.choice([0, 100, rng.randrange(1, 65536)]),
        "abort_option": rng.choice([2, 3]),
        "mode": rng.choice(["profile-velocity", "cyclic-velocity"]),
        "master_node": 127,
    }
    if rng.random() < 0.3:
        settings["velocity_units_per_rps"] = 60
    if rng.random() < 0.3:
        settings["halt_option"] = rng.choice([1, 2])
    return node, settings


def units(settings, rps):
    """Velocity units, rounded half away from zero."""
    exact = rps * settings.get("velocity_units_per_rps", settings["counts_per_rev"])
    return int(abs(exact) + 0.5) * (-1 if exact < 0 else 1)


def check_commands(ours, rng):
    """Velocity, both stages of the stop, polls and the heartbeat."""
    for _ in range(ROUNDS):
        node, settings = some_drive(rng)
        drive = ours.drive("cia402", settings, rng.choice(["hold", "release"]))
        wire, remote = master(node, agreeable)
        pdo = settings["transport"] == "pdo"
        by_pdo = mapped(remote.rpdo[1], 0x200 + node, CONTROLWORD, TARGET)

        def stopping(word):
            by_pdo[CONTROLWORD].raw, by_pdo[TARGET].raw = word, 0
            if pdo:
                by_pdo.transmit()
            remote.sdo[CONTROLWORD].raw = word
            return wire.taken()

        stop = drive.stop()
        equal(f"controlled, {settings}", stop["controlled"], stopping(State402.CW_QUICK_STOP))
        equal(f"torque-off, {settings}", stop["torque-off"], stopping(State402.CW_DISABLE_VOLTAGE))

        rps = speed(rng)
        if pdo:
            by_pdo[CONTROLWORD].raw, by_pdo[TARGET].raw = State402.CW_OPERATION_ENABLED, units(settings, rps)
            by_pdo.transmit()
        else:
            remote.sdo[TARGET].raw = units(settings, rps)
        equal(f"{rps} rev/s, {settings}", drive.velocity(rps), wire.taken())

        for index in STATUSWORD, VELOCITY, POSITION:
            remote.sdo.upload(index, 0)
        equal(f"polls, {settings}", drive.poll(), wire.taken())
        remote.sdo.upload(0x1016, 1)
        equal(f"the question for its watchdog, {settings}", drive.watchdog_ask(), wire.taken())

        beat = drive.heartbeat()
        if beat:
            producer = canopen.LocalNode(settings["master_node"], dictionary())
            wire.add_node(producer)
            producer.nmt.state = "OPERATIONAL"
            wire.taken()
            producer.nmt.start_heartbeat(100)
            equal("heartbeat", [beat["granted"]], wire.taken())
    return ROUNDS


def mapped(pdo, cob_id, *objects):
    pdo.cob_id, pdo.trans_type, pdo.enabled = cob_id, 255, True
    pdo.clear()
    for index in objects:
        pdo.add_variable(index)
    return pdo


def check_enable(ours, rng):
    """The whole programme, as their master would go through it."""
    for _ in range(ROUNDS):
        node, settings = some_drive(rng)
        after = rng.choice(["hold", "release"])
        drive = ours.drive("cia402", settings, after)
        wire, remote = master(node, agreeable)
        steps = []

        def step(*actions):
            for action in actions:
                action()
            steps.append(wire.taken())

        def write(index, value, sub=None):
            if sub is None:
                remote.sdo[index].raw = value
            else:
                remote.sdo[index][sub].raw = value

        def go_to(state):
            write(CONTROLWORD, State402.CW_COMMANDS_CODE[state])

        pdo = settings["transport"] == "pdo"
        step(lambda: remote.nmt.send_command(0x80 if pdo else 0x01),
             lambda: write(CONTROLWORD, State402.CW_DISABLE_VOLTAGE))
        if pdo:
            receive = mapped(remote.rpdo[1], 0x200 + node, CONTROLWORD, TARGET)
            transmit = mapped(remote.tpdo[1], 0x180 + node, STATUSWORD, VELOCITY)
            transmit.rtr_allowed, transmit.inhibit_time = False, 50
            receive.save()
            transmit.save()
            steps.extend([frame] for frame in wire.taken())
        if settings["drive_heartbeat_ms"]:
            step(lambda: write(0x1017, settings["drive_heartbeat_ms"]))
        step(lambda: write(ABORT_OPTION, settings["abort_option"]))
        step(lambda: write(QUICK_STOP_OPTION, 6 if after == "hold" else 2))
        if "halt_option" in settings:
            step(lambda: write(HALT_OPTION, settings["halt_option"]))
        if settings["heartbeat_ms"]:
            step(lambda: write(0x1016, settings["master_node"] << 16 | settings["heartbeat_ms"], 1))
        step(lambda: write(MODE, {
            "profile-velocity": OperationMode.PROFILED_VELOCITY,
            "cyclic-velocity": OperationMode.CYCLIC_SYNCHRONOUS_VELOCITY,
        }[settings["mode"]]))
        step(lambda: write(TARGET, 0))
        step(lambda: remote.nmt.send_command(0x01), lambda: go_to("SWITCH ON DISABLED"))
        step(lambda: go_to("READY TO SWITCH ON"))
        step(lambda: go_to("SWITCHED ON"))
        step(lambda: go_to("OPERATION ENABLED"))
        equal(f"enable, {after}, {settings}", drive.enable(), steps)
    return ROUNDS


POWER = {
    "NOT READY TO SWITCH ON": "Transition",
    "SWITCH ON DISABLED": "Off",
    "READY TO SWITCH ON": "Off",
    "SWITCHED ON": "Transition",
    "OPERATION ENABLED": "On",
    "FAULT": "Fault",
    "FAULT REACTION ACTIVE": "Transition",
    "QUICK STOP ACTIVE": "QuickStop",
}


def check_reading(ours, rng):
    """What their SDO server, emergency producer and PDO map send, as Lanyard reads it."""
    for _ in range(ROUNDS):
        node, settings = some_drive(rng)
        drive = ours.drive("cia402", settings)
        per_rps = settings.get("velocity_units_per_rps", settings["counts_per_rev"])
        wire = Wire()
        local = canopen.LocalNode(node, dictionary())
        wire.add_node(local)

        def answered(question):
            wire.receive([question])
            # A node that is told to send heartbeats begins at once.
            [answer] = [frame for frame in wire.taken() if frame.id == 0x580 + node]
            return drive.decode(answer)

        word = rng.randrange(0x10000)
        # Half of the words at random are no state of the table.
        if rng.random() < 0.7:
            mask, value = rng.choice(list(State402.SW_MASK.values()))
            word = word & ~mask | value
        speed_units, counts = rng.randrange(-2**31, 2**31), rng.randrange(-2**31, 2**31)
        local.sdo[STATUSWORD].raw, local.sdo[VELOCITY].raw, local.sdo[POSITION].raw = word, speed_units, counts
        status, velocity, position = (answered(question) for question in drive.poll())
        states = [state for state, (mask, value) in State402.SW_MASK.items() if word & mask == value]
        power = POWER[states[0]] if states else "Transition"
        equal(f"statusword {word:#06x} {states}", status["power"], power)
        close("velocity", velocity["velocity"], speed_units / per_rps, 1e-6 * abs(speed_units / per_rps))
        close("position", position["position"], counts / settings["counts_per_rev"], 0)

        millis = rng.choice([0, rng.randrange(1, 65536)])
        local.sdo[0x1016][1].raw = 127 << 16 | millis
        [question] = drive.watchdog_ask()
        wire.receive([question])
        [answer] = wire.taken()
        equal("its watchdog", drive.watchdog(answer), {"us": 1000 * millis})

        for step in drive.enable():
            for frame in (frame for frame in step if frame.id == 0x600 + node):
                key = frame.data[2] << 16 | frame.data[1] << 8 | frame.data[3]
                equal(f"their answer to {frame}", answered(frame)["answer"], key)

        # An object that the server does not have.
        refused = Frame(0x600 + node, bytes([0x2F, 0x34, 0x12, 0x00, 1, 0, 0, 0]))
        equal("refusal", answered(refused)["refused"], {"request": 0x123400, "code": 0x0602_0000})

        code = rng.choice([0, 0x8130, rng.randrange(1, 0x10000)])
        local.emcy.send(code, rng.randrange(256), rng.randbytes(5))
        [emergency] = wire.taken()
        equal(f"emergency {code:#x}", drive.decode(emergency)["fault"], code or None)

        if settings["transport"] == "pdo":
            pdo = mapped(local.tpdo[1], 0x180 + node, STATUSWORD, VELOCITY)
            pdo[STATUSWORD].raw, pdo[VELOCITY].raw = word, speed_units
            pdo.transmit()
            [report] = wire.taken()
            seen = drive.decode(report)
            equal("TPDO 1", (seen["power"], seen["velocity"]), (power, velocity["velocity"]))
    return ROUNDS


def check_guard(ours, rng):
    """Controlwords as their master writes them: those on the way up are motion, those that stop are not."""
    for _ in range(20):
        node, settings = some_drive(rng)
        drive = ours.drive("cia402", settings)
        wire, remote = master(node, agreeable)
        for state, word in State402.CW_COMMANDS_CODE.items():
            remote.sdo[CONTROLWORD].raw = word
            [by_sdo] = wire.taken()
            pdo = mapped(remote.rpdo[1], 0x200 + node, CONTROLWORD, TARGET)
            pdo[CONTROLWORD].raw = word
            pdo.transmit()
            [by_pdo] = wire.taken()
            up = state in ("READY TO SWITCH ON", "SWITCHED ON", "OPERATION ENABLED")
            equal(f"{state}, {by_sdo}", drive.is_motion(by_sdo), up)
            equal(f"{state}, {by_pdo}", drive.is_motion(by_pdo), up)
    return 20 * len(State402.CW_COMMANDS_CODE)


def check_simulated(ours, rng):
    """Their master enables the simulated drive, turns it, reads it in every way, and stops it."""
    for _ in range(40):
        node, counts = rng.randrange(1, 127), rng.choice([4096, 65536])
        sim = ours.simulated(f"cia402:node={node},counts_per_rev={counts}")
        wire, remote = master(node, sim.hear)
        equal("boot-up", sim.run(1)[:1], [Frame(0x700 + node, b"\0")])

        def state():
            word = remote.sdo[STATUSWORD].raw
            return [state for state, (mask, value) in State402.SW_MASK.items() if word & mask == value]

        remote.nmt.send_command(0x01)
        remote.sdo[MODE].raw = OperationMode.PROFILED_VELOCITY
        for step in "SWITCH ON DISABLED", "READY TO SWITCH ON", "SWITCHED ON", "OPERATION ENABLED":
            remote.sdo[CONTROLWORD].raw = State402.CW_COMMANDS_CODE[step]
            equal("state, by SDO", state(), [step])
        rps = speed(rng, 20.0)
        remote.sdo[TARGET].raw = round(rps * counts)
        report = mapped(remote.tpdo[1], 0x180 + node, STATUSWORD, VELOCITY)
        report.subscribe()
        wire.receive(sim.run(3000))
        velocity = sim.status()["velocity"]
        close("the speed they asked for", velocity, round(rps * counts) / counts, 1e-9)
        close("606C by SDO", velocity, remote.sdo[VELOCITY].raw / counts, 0.51 / counts)
        close("6064 by SDO", sim.status()["position"], remote.sdo[POSITION].raw / counts, 0.51 / counts)
        close("606C by TPDO 1", velocity, report[VELOCITY].raw / counts, 0.51 / counts)
        equal("6041 by TPDO 1", report[STATUSWORD].raw & 0x6F, 0x27)
        equal("heartbeat", remote.nmt.state, "OPERATIONAL")

        remote.sdo[CONTROLWORD].raw = State402.CW_QUICK_STOP
        equal("after their quick stop", state() in (["QUICK STOP ACTIVE"], ["SWITCH ON DISABLED"]), True)
        wire.receive(sim.run(5000))
        equal("at its end", (state(), sim.status()["velocity"]), (["SWITCH ON DISABLED"], 0.0))

        code = rng.choice([0x2310, 0x3210, rng.randrange(0x1000, 0xFFFF)])
        wire.receive(sim.order(f"fault {code}"))
        wire.receive(sim.run(2000))
        equal("after a fault", state(), ["FAULT"])
        equal("emergencies", [error.code for error in remote.emcy.active], [code])
    return 40


main(globals())
