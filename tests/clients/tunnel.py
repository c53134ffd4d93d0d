"""A program that drives motors through a tunnel and knows nothing of Lanyard, and who opens the tunnel for it.

For socketcand it is python-can's own interface, unchanged; for cannelloni a sender of its datagrams; and sockets of its own for
what no honest program does. Every method is one thing that a test asks for.
"""

import asyncio
import contextlib
import socket
import struct
import threading
import time

import can

import hoprd

# ODrive CANSimple, as in `upstream.py`.
SET_AXIS_STATE, SET_CONTROLLER_MODES, SET_INPUT_VEL = 0x07, 0x0B, 0x0D
CLOSED_LOOP, VELOCITY, PASSTHROUGH = 8, 2, 1
# One in ten fails on the slowest rig.
TRIES = 5
# How long a connection may take to show that it is over.
ENOUGH = 10


def commands(node, speed):
    """What makes an axis turn: identifiers and data, the last of which has to be repeated."""
    return [
        (node << 5 | SET_CONTROLLER_MODES, struct.pack("<II", VELOCITY, PASSTHROUGH)),
        (node << 5 | SET_AXIS_STATE, struct.pack("<I", CLOSED_LOOP)),
        (node << 5 | SET_INPUT_VEL, struct.pack("<ff", speed, 0.0)),
    ]


def element(identifier, data):
    """As python-can has it."""
    return f"< send {identifier:03X} {len(data):X} {' '.join(f'{byte:x}' for byte in data)} >".encode()


def bare(frames):
    """Frames one after the other, as cannelloni has them."""
    return b"".join(struct.pack(">IB", identifier, len(data)) + data for identifier, data in frames)


def datagram(frames, sequence=0):
    """Of cannelloni's, version 2."""
    return struct.pack(">BBBH", 2, 0, sequence % 256, len(frames)) + bare(frames)


class Program:
    """The program, told what to do line by line."""

    def __init__(self):
        self.bus, self.tasks, self.notifier, self.heard = None, [], None, 0
        self.sockets, self.sent, self.broken = {}, 0, None

    # Who asks for tunnels.

    async def rest(self, call, **arguments):
        """One call of `hoprd.py`."""
        return await asyncio.to_thread(getattr(hoprd, call), **arguments)

    async def churn(self, address, target, count):
        """Opens and closes listeners; returns how many of both calls succeeded."""

        def run():
            opened, closed = 0, 0
            for _ in range(count):
                made = hoprd.create(address, "tcp", target, timeout=ENOUGH)
                opened += made["status"] == 200
                place = made["body"]
                closed += hoprd.close(address, "tcp", place["ip"], place["port"], timeout=ENOUGH)["status"] == 204
            return {"opened": opened, "closed": closed}

        return await asyncio.to_thread(run)

    # python-can.

    async def open_bus(self, address, channel):
        """Connects. python-can wants `< ok >` alone in what it reads, and a bus that is busy may be faster: another try."""
        host, port = address.rsplit(":", 1)

        def connect():
            for _ in range(TRIES):
                try:
                    return can.Bus(interface="socketcand", host=host, port=int(port), channel=channel)
                except can.CanError as error:
                    if "got: '< ok ><" not in str(error):
                        raise
            raise ConnectionError("the bus was faster every time")

        self.bus = await asyncio.wait_for(asyncio.to_thread(connect), ENOUGH)

    async def listen(self):
        """Reads from now on, as most programs do."""
        self.notifier = can.Notifier(self.bus, [self.hear])

    def hear(self, _):
        self.heard += 1

    async def heard_frames(self):
        return self.heard

    async def send(self, identifier, data):
        self.bus.send(can.Message(arbitration_id=identifier, data=bytes.fromhex(data), is_extended_id=False))

    async def turn(self, node, speed, every):
        """Has an axis turn, and repeats that by python-can's own periodic sending."""
        *before, (identifier, data) = commands(node, speed)
        for one, payload in before:
            self.bus.send(can.Message(arbitration_id=one, data=payload, is_extended_id=False))
        message = can.Message(arbitration_id=identifier, data=data, is_extended_id=False)
        self.tasks.append(self.bus.send_periodic(message, every))

    async def noise(self, identifier, every):
        """Something of another device on the operator's bus, again and again: no bridge knows whose a frame is."""
        message = can.Message(arbitration_id=identifier, data=b"\1\2", is_extended_id=False)
        self.tasks.append(self.bus.send_periodic(message, every))

    async def rest_silently(self):
        """Sends nothing any more, and stays."""
        for task in self.tasks:
            task.stop()
        self.tasks = []

    async def bus_is_over(self):
        """Waits until its connection has ended, whatever comes before that."""

        def wait():
            stream = self.bus._SocketCanDaemonBus__socket
            stream.settimeout(ENOUGH)
            return until_end(stream)

        return await asyncio.to_thread(wait)

    # Sockets, by name.

    async def dial(self, name, address, source=None):
        host, port = address.rsplit(":", 1)
        origin = None if source is None else (source, 0)
        stream = await asyncio.to_thread(socket.create_connection, (host.strip("[]"), int(port)), ENOUGH, origin)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sockets[name] = stream

    async def say(self, name, text):
        await asyncio.to_thread(self.sockets[name].sendall, text.encode("latin-1"))

    async def hear_text(self, name, length):
        """So many bytes, or what there is when it ends."""

        def read():
            text = b""
            while len(text) < length and (piece := self.sockets[name].recv(length - len(text))):
                text += piece
            return text.decode("latin-1")

        return await asyncio.to_thread(read)

    async def is_over(self, name):
        """Waits until a connection has ended, whatever comes before that; tells how."""
        return await asyncio.to_thread(until_end, self.sockets[name])

    async def hang_up(self, name):
        self.sockets.pop(name).close()

    async def half_close(self, name):
        self.sockets[name].shutdown(socket.SHUT_WR)

    async def handshake(self, name, channel):
        """As python-can begins, by hand."""
        for said, answer in [(None, "< hi >"), (f"< open {channel} >", "< ok >"), ("< rawmode >", "< ok >")]:
            if said is not None:
                await self.say(name, said)
            heard = await self.hear_text(name, len(answer))
            if heard != answer:
                raise ConnectionError(f"{heard!r} instead of {answer!r}")

    async def stream(self, name, node, speed, every):
        """Has an axis turn over a socket by hand, and never reads from it."""
        connection = self.sockets[name]

        def run():
            try:
                *before, (identifier, data) = commands(node, speed)
                for one, payload in before:
                    connection.sendall(element(one, payload))
                while name in self.sockets:
                    connection.sendall(element(identifier, data))
                    self.sent += 1
                    time.sleep(every)
            except OSError as error:
                self.broken = type(error).__name__

        threading.Thread(target=run, daemon=True).start()

    async def stream_frames(self, name, node, speed, every):
        """Has an axis turn by the frames of a cannelloni over TCP, whose greeting was said before."""
        connection = self.sockets[name]

        def run():
            try:
                connection.sendall(bare(commands(node, speed)))
                while name in self.sockets:
                    connection.sendall(bare(commands(node, speed)[-1:]))
                    time.sleep(every)
            except OSError as error:
                self.broken = type(error).__name__

        threading.Thread(target=run, daemon=True).start()

    async def broke(self):
        """Why the last stream ended."""
        return self.broken

    async def burst(self, name, node, speed, count):
        """Many commands at once, as after a gap of the network."""
        identifier, data = commands(node, speed)[-1]
        with contextlib.suppress(OSError):
            self.sockets[name].sendall(element(identifier, data) * count)

    # Datagrams, by name.

    async def open_udp(self, name, address, source="127.0.0.1"):
        host, port = address.rsplit(":", 1)
        stream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        stream.bind((source, 0))
        stream.connect((host, int(port)))
        stream.settimeout(ENOUGH)
        self.sockets[name] = stream
        return stream.getsockname()[1]

    async def send_datagram(self, name, data):
        with contextlib.suppress(ConnectionError):  # what an earlier one met on its way
            self.sockets[name].send(bytes.fromhex(data))

    async def send_frames(self, name, node, speed):
        """What makes an axis turn, in one datagram of cannelloni's."""
        with contextlib.suppress(ConnectionError):
            self.sockets[name].send(datagram(commands(node, speed)))

    async def stream_datagrams(self, name, node, speed, every):
        """Has an axis turn by cannelloni's datagrams until `hang_up`."""
        connection = self.sockets[name]

        def run():
            sequence = 0
            while self.sockets.get(name) is connection:
                with contextlib.suppress(OSError):
                    connection.send(datagram(commands(node, speed) if sequence == 0 else commands(node, speed)[-1:], sequence))
                sequence += 1
                time.sleep(every)

        threading.Thread(target=run, daemon=True).start()

    async def hear_datagram(self, name):
        return (await asyncio.to_thread(self.sockets[name].recv, 65536)).hex()


def until_end(stream):
    """Reads until the connection has ended; tells how."""
    try:
        while stream.recv(65536):
            pass
    except OSError as error:
        return type(error).__name__
    return "closed"
