"""Lanyard's side of a comparison, and the running of the comparisons.

The scripts beside this file hold one package each against Lanyard. They ask the program `lanyard-frames`, whose
path is their first argument. Every comparison is a function `check_*(ours, rng)`; it is run with two seeds, one that
is always the same and one from the clock. Both are printed, and a second argument on the command line repeats one.
"""

import dataclasses
import json
import math
import random
import struct
import subprocess
import sys
import time
import traceback

FIXED_SEED = 402


@dataclasses.dataclass(frozen=True)
class Frame:
    id: int
    data: bytes = b""
    extended: bool = False
    fd: bool = False
    remote: bool = False

    @classmethod
    def read(cls, fields):
        return cls(**{**fields, "data": bytes.fromhex(fields["data"])})

    @classmethod
    def of(cls, message):
        """From a `can.Message`."""
        return cls(message.arbitration_id, bytes(message.data), message.is_extended_id, message.is_fd,
                   message.is_remote_frame)

    def fields(self):
        return {**dataclasses.asdict(self), "data": self.data.hex()}

    def __repr__(self):
        number = f"{self.id:08X}" if self.extended else f"{self.id:03X}"
        return f"{number}#{'#1' if self.fd else ''}{'R' if self.remote else ''}{self.data.hex()}"


class Ours:
    """The program `lanyard-frames`."""

    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, ask, **fields):
        self.process.stdin.write(json.dumps({"ask": ask, **fields}, allow_nan=False) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(f"{ask} {fields}: {answer['error']}")
        return answer["ok"]

    def drive(self, family, settings, after="release", max_rps=1000.0):
        return Drive(self, self.ask("build", family=family, settings=settings, after=after, max_rps=max_rps))

    def simulated(self, spec):
        return Simulated(self, self.ask("sim_new", spec=spec))


class Drive:
    """A drive as Lanyard commands and reads it."""

    def __init__(self, ours, number):
        self.ours, self.number = ours, number

    def ask(self, ask, **fields):
        return self.ours.ask(ask, drive=self.number, **fields)

    def stop(self):
        """Frames of each stage by its kind."""
        return {stage["kind"]: frames(stage["frames"]) for stage in self.ask("stop")}

    def enable(self):
        """Frames of each step."""
        return [frames(step) for step in self.ask("enable")]

    def velocity(self, rps):
        return frames(self.ask("velocity", rps=rps))

    def poll(self):
        return frames(self.ask("poll"))

    def watchdog_ask(self):
        return frames(self.ask("watchdog_ask"))

    def watchdog(self, frame):
        return self.ask("watchdog", frame=frame.fields())

    def broadcast(self):
        frame = self.ask("broadcast")
        return frame and Frame.read(frame)

    def heartbeat(self):
        beat = self.ask("heartbeat")
        return beat and {key: Frame.read(frame) for key, frame in beat.items()}

    def decode(self, frame):
        return self.ask("decode", frame=frame.fields())

    def is_motion(self, frame):
        return self.ask("is_motion", frame=frame.fields())


class Simulated:
    """A simulated drive on a bus of its own, whose time passes when it is told to."""

    def __init__(self, ours, number):
        self.ours, self.number = ours, number

    def ask(self, ask, **fields):
        return self.ours.ask(ask, sim=self.number, **fields)

    def hear(self, frame):
        return frames(self.ask("sim_frame", frame=frame.fields()))

    def run(self, ms):
        return frames(self.ask("sim_tick", ms=ms))

    def order(self, order):
        return frames(self.ask("sim_order", order=order))

    def status(self):
        return self.ask("sim_status")


def frames(answer):
    return [Frame.read(frame) for frame in answer]


def equal(what, ours, theirs):
    if ours != theirs:
        raise AssertionError(f"{what}\n  Lanyard: {ours}\n  package: {theirs}")


def close(what, ours, theirs, within):
    if not (math.isclose(ours, theirs, rel_tol=1e-6, abs_tol=within)):
        raise AssertionError(f"{what}\n  Lanyard: {ours}\n  package: {theirs}\n  (within {within})")


def single(value):
    """The nearest number that a drive's f32 can hold."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def as_secs_f32(ms):
    """In f32 throughout, as Rust's `Duration::as_secs_f32`: the last bit depends on it."""
    return single(ms // 1000 + single(single(ms % 1000 * 1_000_000) / 1e9))


def speed(rng, most=50.0):
    """Any speed: often a special one, else evenly in size from tiny to fast."""
    size = rng.choice([0.0, most, 10.0 ** rng.uniform(-4.0, math.log10(most)), rng.uniform(0.0, most)])
    return single(rng.choice([-1.0, 1.0]) * size)


def main(module):
    """Runs every `check_*` of a script with both seeds; the exit code says whether all agree."""
    checks = [value for name, value in module.items() if name.startswith("check_")]
    seeds = [int(seed) for seed in sys.argv[2:]] or [FIXED_SEED, time.time_ns() % 2**32]
    failed = 0
    for seed in seeds:
        for check in checks:
            ours = Ours(sys.argv[1])
            try:
                count = check(ours, random.Random(seed))
                print(f"{check.__name__}: seed {seed}, {count} compared")
            except Exception:
                failed += 1
                print(f"{check.__name__}: FAILED with seed {seed}\n{traceback.format_exc()}")
            finally:
                ours.process.stdin.close()
                ours.process.wait()
    sys.exit(1 if failed or not checks else 0)
