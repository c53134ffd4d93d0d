"""DroneCAN: the package dronecan, which makes transfers of messages and messages of transfers, against the family
`dronecan`.

Compared only where Lanyard can know:
* A Status is three frames, and Lanyard reads each for itself. From 32768 rpm on the second, which has the lower 16 of
  the 18 bits, tells another speed. The third takes that back from 65536 rpm on; between the two it cannot, and near
  65536 rpm the second reads as standing still.
* Of a command in several frames it does not tell which element is whose.
Currents close to `idle_amps` are left out: an f16 has steps.
"""

import math

import dronecan
from dronecan.transport import Transfer

import ours as side
from ours import Frame, close, equal, main, speed

ROUNDS = 300
ESC, SAFETY = dronecan.uavcan.equipment.esc, dronecan.uavcan.equipment.safety
HIGHEST, MEDIUM = 0, 16
FULLY_ARMED = 255


def transfer(message, source, priority, number):
    """The frames of a message as they send it."""
    sent = Transfer(payload=message, source_node_id=source, transfer_priority=priority, transfer_id=number)
    return [Frame(frame.message_id, bytes(frame.bytes), extended=True) for frame in sent.to_frames()]


def received(frames):
    """The message in these frames as they read it; the checksum is compared."""
    read = Transfer()
    read.from_frames([dronecan.transport.Frame(frame.id, frame.data) for frame in frames])
    return read


def twice(message, source, priority):
    """What Lanyard sends ahead of time: with the numbers 0 and 1."""
    return [frame for number in (0, 1) for frame in transfer(message, source, priority, number)]


def some_esc(rng, command=None):
    command = command or rng.choice(["raw", "rpm"])
    source, node = rng.randrange(1, 126), rng.randrange(1, 128)
    while node == source:
        node = rng.randrange(1, 128)
    settings = {"esc_node": node, "source_node": source, "command": command,
                "index": rng.randrange(4 if command == "raw" else 3)}
    if command == "raw":
        settings["full_rpm"] = rng.randrange(600, 32_768)
    return settings


def command(settings, rps):
    """The message that turns the ESC at this speed, and the others not."""
    rpm = rps * 60
    if settings["command"] == "raw":
        elements, exact, most = 4, rpm / settings["full_rpm"] * 8191, 8191
    else:
        elements, exact, most = 3, rpm, 131_071
    element = min(most, int(abs(exact) + 0.5)) * (-1 if exact < 0 else 1)
    values = [element if index == settings["index"] else 0 for index in range(elements)]
    return ESC.RawCommand(cmd=values) if settings["command"] == "raw" else ESC.RPMCommand(rpm=values)


def fastest(settings):
    return settings.get("full_rpm", 32_767) / 60


def check_commands(ours, rng):
    """Velocity, both stages, and enabling."""
    for _ in range(ROUNDS):
        settings = some_esc(rng)
        most, source = fastest(settings), settings["source_node"]
        drive = ours.drive("dronecan", settings, max_rps=side.single(0.999 * most))
        rps = speed(rng, 0.99 * most)
        equal(f"{rps} rev/s, {settings}", drive.velocity(rps), twice(command(settings, rps), source, HIGHEST))
        zero = twice(command(settings, 0.0), source, HIGHEST)
        stop = drive.stop()
        equal(f"controlled, {settings}", stop["controlled"], zero)
        disarm = twice(SAFETY.ArmingStatus(status=0), source, HIGHEST)
        equal(f"torque-off, {settings}", stop["torque-off"], zero + disarm)
        arm = twice(SAFETY.ArmingStatus(status=FULLY_ARMED), source, MEDIUM)
        equal(f"enable, {settings}", drive.enable(), [zero + arm])
    return ROUNDS


def check_guard(ours, rng):
    """Commands for up to 20 ESCs, from anybody, with any number: does one of their frames move this one?"""
    for _ in range(ROUNDS):
        settings = some_esc(rng)
        drive = ours.drive("dronecan", settings, max_rps=10.0)
        source, priority, number = rng.randrange(1, 128), rng.randrange(32), rng.randrange(32)
        kind, most = rng.choice([("cmd", 8191), ("rpm", 131_071)])
        count = rng.randrange(1, 21)
        values = [rng.choice([0, 0, rng.randrange(-most, most)]) for _ in range(count)]
        message = ESC.RawCommand(cmd=values) if kind == "cmd" else ESC.RPMCommand(rpm=values)
        frames = transfer(message, source, priority, number)
        index = settings["index"]
        moved = index < count and values[index] != 0
        if len(frames) == 1:
            equal(f"{values} {frames}, {settings}", drive.is_motion(frames[0]), moved)
        elif moved:
            # Of a longer one no element is told from the next, but one that moves this ESC is never missed.
            equal(f"{values} {frames}, {settings}", any(drive.is_motion(frame) for frame in frames), True)
        elif not any(values):
            equal(f"{values} {frames}, {settings}", any(drive.is_motion(frame) for frame in frames[1:-1]), False)
        armed = rng.choice([0, FULLY_ARMED, rng.randrange(256)])
        [frame] = transfer(SAFETY.ArmingStatus(status=armed), source, priority, number)
        equal(f"arming {armed}", drive.is_motion(frame), armed != 0)
        [node_status, *_] = transfer(dronecan.uavcan.protocol.NodeStatus(uptime_sec=rng.randrange(1 << 32)),
                                     source, priority, number)
        equal("a node's status", drive.is_motion(node_status), False)
    return ROUNDS


def check_reading(ours, rng):
    """Status of ESCs as they send it, as Lanyard reads it."""
    for _ in range(ROUNDS):
        settings = some_esc(rng)
        drive = ours.drive("dronecan", settings, max_rps=10.0)
        rpm = rng.choice([0, rng.randrange(-32_768, 32_768), rng.randrange(-131_072, 131_072)])
        amps = rng.choice([0.0, math.nan, rng.uniform(0.25, 100.0), rng.uniform(-0.19, 0.19), -rng.uniform(0.25, 9.0)])
        index = rng.choice([settings["index"], rng.randrange(32)])
        message = ESC.Status(error_count=rng.randrange(1 << 32), voltage=rng.uniform(0.0, 60.0), current=amps,
                             temperature=rng.uniform(250.0, 400.0), rpm=rpm,
                             power_rating_pct=rng.randrange(128), esc_index=index)
        frames = transfer(message, settings["esc_node"], rng.randrange(32), rng.randrange(32))
        equal("frames of a Status", len(frames), 3)
        first, second, third = (drive.decode(frame) for frame in frames)
        what = f"{message} {frames}"
        equal(what, first, None)
        output = None if math.isnan(amps) else "Zero" if abs(amps) <= 0.2 else "Driving"
        equal(what, second["output"], output)
        taken_back = not -65_536 <= rpm < 65_536 or index != settings["index"]
        equal(what, third and third["output"], "Driving" if taken_back else None)
        if -32_768 <= rpm < 32_768:
            close(what, second["velocity"] * 60, rpm, 1e-3)
        other = transfer(message, settings["esc_node"] % 127 + 1, 7, 0)
        equal("another node", [drive.decode(frame) for frame in other], 3 * [None])
    return ROUNDS


def check_simulated(ours, rng):
    """They arm and turn the simulated ESC, read what it sends, and stop it."""
    count = 0
    for _ in range(30):
        kind, node, source = rng.choice(["raw", "rpm"]), rng.randrange(1, 64), rng.randrange(64, 126)
        index, full = rng.randrange(4 if kind == "raw" else 3), rng.randrange(1000, 32_768)
        sim = ours.simulated(f"dronecan:node={node},index={index},full_rpm={full},timeout_ms=0")
        settings = {"command": kind, "index": index, **({"full_rpm": full} if kind == "raw" else {})}
        numbers = iter(range(32))

        def tell(message):
            for frame in transfer(message, source, HIGHEST, next(numbers)):
                sim.hear(frame)

        def statuses(ms):
            """All their transfers of that time, complete ones only, as in their `TransferManager`."""
            manager, messages = dronecan.transport.TransferManager(), []
            for frame in sim.run(ms):
                complete = manager.receive_frame(dronecan.transport.Frame(frame.id, frame.data))
                if complete:
                    read = Transfer()
                    read.from_frames(complete)
                    equal("who sends", read.source_node_id, node)
                    messages.append(read.payload)
            kinds = {dronecan.get_dronecan_data_type(message).full_name for message in messages}
            equal("what it sends", kinds >= {"uavcan.equipment.esc.Status"}, True)
            return [message for message in messages if isinstance_of(message, "uavcan.equipment.esc.Status")]

        rps = rng.uniform(1.0, 16.0) * rng.choice([-1, 1])
        tell(SAFETY.ArmingStatus(status=FULLY_ARMED))
        tell(command(settings, rps))
        sim.run(3000)
        read, status = statuses(200), sim.status()
        resolution = max(1, full / 8191) / 60
        close("the speed they asked for", status["velocity"], rps, resolution)
        for message in read:
            equal("index", message.esc_index, index)
            close("speed", status["velocity"] * 60, message.rpm, 1.01)
        tell(command(settings, 0.0))
        tell(SAFETY.ArmingStatus(status=0))
        sim.run(10_000)
        still = statuses(200)[-1]
        equal("stopped", (still.rpm, abs(still.current) < 0.2), (0, True))
        count += len(read)
    return count


def isinstance_of(message, name):
    return dronecan.get_dronecan_data_type(message).full_name == name


main(globals())
