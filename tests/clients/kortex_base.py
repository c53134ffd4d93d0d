"""A base of Kinova's behind Lanyard, told what to do line by line. It drives motors over CAN by itself, as the controller
of a real arm does: a joint that was told to turn turns until it is told otherwise.

Nothing but a Stop stops it: not the end of a session, of a connection or of a program. What it was asked, and when, is
kept for the test. A test can have it leave Stops unanswered, refuse them, or not let go of a session.
"""

import asyncio
import itertools
import struct
import time

import can

from kortex_frames import NOTIFICATION, REQUEST, RESPONSE, Frame
from kortex_messages import METHODS, TOPICS, decode, encode
from kortex_transports import HEAD, MAGIC
from upstream import Axis

NAMES = {uid: name for name, (uid, _, _) in METHODS.items()}
# Far from the numbers that anybody else begins with.
FIRST_SESSION, FIRST_HANDLE = 500, 40
# Opaque to whoever passes it on.
DEVICES = bytes.fromhex("0a0608011003180c0a0608021003180c")
DEGREES = 360
# Errors: whose fault it is, and what it is.
NO_METHOD, NO_SESSION, FAILED, WRONG_PARAMETER = (1, 5), (1, 54), (3, 1), (1, 3)


class Refused(Exception):
    """The error that a request is answered with."""

    def __init__(self, codes, text):
        super().__init__(text)
        self.codes = codes


class Unanswered(Exception):
    """Nothing is answered to this."""


class Datagrams(asyncio.DatagramProtocol):
    """The end for both generations: a datagram is a frame."""

    def __init__(self, base):
        self.base = base

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.base.receive(data, lambda frame: self.transport.sendto(frame, address))


class Base:
    """What the requests of the test do."""

    def __init__(self):
        self.notes, self.beats = [], 0
        self.sessions, self.numbers = set(), itertools.count(FIRST_SESSION)
        self.subscriptions, self.handles = [], itertools.count(FIRST_HANDLE)
        self.joints, self.troubles = [], {}

    async def serve(self, bus, nodes, tcp, udp):
        """`nodes` are the CAN nodes of the joints. Serves at those ports of this computer."""
        wire = can.Bus(interface="socketcan", channel=bus)
        self.joints = [Axis(wire, node) for node in nodes]
        self.server = await asyncio.start_server(self.converse, "127.0.0.1", tcp)
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: Datagrams(self), local_addr=("127.0.0.1", udp))

    async def converse(self, reader, writer):
        def send(frame):
            writer.write(MAGIC + struct.pack(">I", len(frame)) + frame)

        try:
            while head := await reader.readexactly(HEAD):
                self.receive(await reader.readexactly(struct.unpack(">I", head[8:])[0]), send)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    def receive(self, data, send):
        """Answers a frame with `send`, if it is one that is answered."""
        frame = Frame.unpack(data)
        if frame.kind != REQUEST:
            return
        answer = Frame(RESPONSE, frame.uid, frame.session, frame.message)
        try:
            answer.payload = self.carry_out(frame, answer, send)
        except Unanswered:
            return
        except Refused as refusal:
            answer.error, answer.sub_error = refusal.codes
            words = {"error_code": answer.error, "error_sub_code": answer.sub_error, "error_sub_string": str(refusal)}
            answer.payload = encode("Error", words)
        send(answer.pack())

    def carry_out(self, frame, answer, send):
        """What a request is answered with."""
        method = NAMES.get(frame.uid, hex(frame.uid))
        if method == "CreateSession":
            answer.session = next(self.numbers)
            self.sessions.add(answer.session)
        self.note(method, frame)
        if answer.session not in self.sessions:
            raise Refused(NO_SESSION, "the base knows no such session")
        self.is_in_trouble(method)
        match method:
            case "CreateSession" | "KeepAlive":
                return b""
            case "CloseSession":
                self.sessions.discard(frame.session)
                return b""
            case "ReadAllDevices":
                return DEVICES
            case "ArmStateTopic":
                handle = next(self.handles)
                self.subscriptions.append((send, handle, frame))
                return encode("NotificationHandle", {"identifier": handle})
            case "SendJointSpeedsCommand":
                self.turn(decode("JointSpeeds", frame.payload)["joint_speeds"])
                return b""
            case "Stop":
                for joint in self.joints:
                    joint.stop()
                return b""
            case _:
                raise Refused(NO_METHOD, f"the base does not serve {method}")

    def note(self, method, frame):
        if method == "KeepAlive":
            self.beats += 1
            return
        at = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        numbers = {"session": frame.session, "message": frame.message}
        self.notes.append({"at": at, "did": method, "payload": frame.payload.hex(), **numbers})

    def is_in_trouble(self, method):
        kind, times = self.troubles.get(method, (None, 0))
        if times > 0:
            self.troubles[method] = kind, times - 1
            raise Unanswered if kind == "deaf" else Refused(FAILED, "the brake is stuck")

    def turn(self, speeds):
        for speed in speeds:
            number, value = speed["joint_identifier"], speed["value"]
            if number >= len(self.joints):
                raise Refused(WRONG_PARAMETER, f"the base has no joint {number}")
            if value:
                self.joints[number].turn(value / DEGREES)
            else:
                self.joints[number].stop()

    async def told(self):
        """Everything that it was asked, but for keep-alives."""
        return self.notes

    async def state(self):
        return {"sessions": sorted(self.sessions), "beats": self.beats}

    async def still(self):
        """Lets go of every motor, and says nothing to it."""
        for joint in self.joints:
            joint.rest()

    async def trouble(self, method, kind, times):
        """So many calls of a method are not answered ("deaf") or refused ("stuck"), and not carried out."""
        self.troubles[method] = kind, times

    async def announce(self, values):
        """Tells everybody who has subscribed."""
        for send, handle, frame in self.subscriptions:
            payload = encode(TOPICS[frame.uid], values)
            send(Frame(NOTIFICATION, frame.uid, frame.session, handle, payload).pack())
        return len(self.subscriptions)
