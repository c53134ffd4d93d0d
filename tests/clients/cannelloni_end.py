"""The robot's end of a cannelloni, over UDP (version 2 of its format) or over TCP (version 1), on a real CAN socket.

It stands in for the real one, which is in no registry, and behaves as that one does (reference: hopr.md, 6): the frames
before a defect are on the bus already when it is found, sequence numbers are not looked at, datagrams of other computers
are dropped, and what is on the bus goes to one fixed address, whoever has sent. An idle bus means no datagrams.
"""

import socket
import struct
import threading
import time

VERSION, DATA = 2, 0
GREETING = b"CANNELLONIv1"
REMOTE, FD = 0x40000000, 0x80
FRAME, FD_FRAME = "=IB3x8s", "=IBB2x64s"


def frames_of(datagram):
    """The frames in a datagram one after the other; a defect ends it."""
    version, operation, _, count = struct.unpack(">BBBH", datagram[:5])
    if (version, operation) != (VERSION, DATA):
        raise ValueError(f"version {version}, operation {operation}")
    at = 5
    for _ in range(count):
        identifier, length = struct.unpack(">IB", datagram[at : at + 5])
        at += 5
        flags = datagram[at] if length & FD else 0
        at += bool(length & FD)
        size = 0 if identifier & REMOTE else length & ~FD
        if at + size > len(datagram):
            raise ValueError("incomplete")
        data = datagram[at : at + size]
        at += size
        if length & FD:
            yield struct.pack(FD_FRAME, identifier, length & ~FD, flags, data)
        else:
            yield struct.pack(FRAME, identifier, length, data)


def exactly(stream, length):
    """So many bytes; an end before that is an error."""
    got = b""
    while len(got) < length:
        piece = stream.recv(length - len(got))
        if not piece:
            raise ValueError("closed")
        got += piece
    return got


def frame_of(stream):
    """The next frame of a stream."""
    identifier, length = struct.unpack(">IB", exactly(stream, 5))
    flags = exactly(stream, 1)[0] if length & FD else 0
    data = exactly(stream, 0 if identifier & REMOTE else length & ~FD)
    if length & FD:
        return struct.pack(FD_FRAME, identifier, length & ~FD, flags, data)
    return struct.pack(FRAME, identifier, length, data)


class End:
    """The end, told what to do line by line."""

    def __init__(self):
        self.can, self.udp, self.remote, self.datagrams, self.defects = None, None, None, [], 0

    async def serve(self, bus, remote=None, port=0):
        """Between a bus and a port of this computer; `remote` is the one address it sends to. Returns the port."""
        self.can = socket.socket(socket.PF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
        self.can.setsockopt(socket.SOL_CAN_RAW, socket.CAN_RAW_FD_FRAMES, 1)
        self.can.bind((bus,))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", port))
        threading.Thread(target=self.to_the_bus, daemon=True).start()
        if remote is not None:
            self.remote = (remote.rsplit(":", 1)[0], int(remote.rsplit(":", 1)[1]))
            threading.Thread(target=self.from_the_bus, daemon=True).start()
        return self.udp.getsockname()[1]

    async def serve_tcp(self, bus, port=0):
        """Between a bus and whoever connects to a port of this computer, one at a time. Returns the port."""
        self.can = socket.socket(socket.PF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
        self.can.setsockopt(socket.SOL_CAN_RAW, socket.CAN_RAW_FD_FRAMES, 1)
        self.can.bind((bus,))
        listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self.accept, args=(listener,), daemon=True).start()
        return listener.getsockname()[1]

    def accept(self, listener):
        while True:
            stream, _ = listener.accept()
            try:
                stream.sendall(GREETING)
                if exactly(stream, len(GREETING)) != GREETING:
                    raise ValueError("another greeting")
                while True:
                    self.can.send(frame_of(stream))
            except (ValueError, OSError):
                self.defects += 1
            finally:
                stream.close()

    def to_the_bus(self):
        while True:
            datagram, sender = self.udp.recvfrom(65536)
            self.datagrams.append([list(sender), len(datagram), time.clock_gettime_ns(time.CLOCK_BOOTTIME)])
            if self.remote is not None and sender[0] != self.remote[0]:
                continue
            try:
                for frame in frames_of(datagram):
                    self.can.send(frame)
            except (ValueError, IndexError, struct.error, OSError):
                self.defects += 1

    def from_the_bus(self):
        sequence = 0
        while True:
            frame = self.can.recv(128)
            identifier, length = struct.unpack("=IB", frame[:5])
            if len(frame) != struct.calcsize(FRAME):
                continue
            data = b"" if identifier & REMOTE else frame[8 : 8 + length]
            head = struct.pack(">BBBH", VERSION, DATA, sequence % 256, 1)
            self.udp.sendto(head + struct.pack(">IB", identifier, length) + data, self.remote)
            sequence += 1

    async def seen(self, since=0):
        """The datagrams from a moment on: sender, length, moment."""
        return [datagram for datagram in self.datagrams if datagram[2] >= since]

    async def found_defects(self):
        return self.defects
