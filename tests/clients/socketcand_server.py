"""A server with socketcand's protocol, on real CAN sockets of the kernel.

It stands in for the real one, which is in no registry, and behaves as that one does (reference: hopr.md, 6), also where
that is unfortunate: it looks for `<` and `>`, hangs up on a read that ends without a whole element, takes what comes in
as C's scanf would, writes to its client without ever giving up, notices nothing of a client that is silent, and has the
kernel send cyclic jobs (CAN_BCM) until its own socket is closed. A client is served by a thread here, by a process
there. ISO-TP is left out: the kernel of the rig has none.
"""

import asyncio
import contextlib
import re
import select
import socket
import struct
import threading
import time

# What the real one has room for.
MAXLEN = 2 * 4095 + 100
EXTENDED = 0x80000000
# linux/can/bcm.h
TX_SETUP, TX_DELETE, TX_SEND, RX_SETUP, RX_DELETE = 1, 2, 4, 5, 6
SETTIMER, STARTTIMER, RX_FILTER_ID = 0x1, 0x2, 0x20
BCM_HEAD = "@IIIllllII0q"
FRAME = "=IB3x8s"
MODES = {b"< rawmode >": "raw", b"< bcmmode >": "bcm", b"< isotpmode >": "isotp", b"< controlmode >": "control"}


class HangUp(Exception):
    """The connection is over."""


def number(text, base):
    """As scanf takes a number: with a sign, with 0x before hexadecimal ones; `None` if there is none."""
    pattern = rb"[+-]?(0[xX])?[0-9a-fA-F]+" if base == 16 else rb"[+-]?[0-9]+"
    found = re.match(pattern, text)
    return None if found is None else int(found.group(), base)


def scanned(words, bases):
    """The numbers at the beginning of these words, as many as there are."""
    numbers = []
    for word, base in zip(words, bases, strict=False):
        value = number(word, base)
        if value is None:
            break
        numbers.append(value)
    return numbers


class Connection:
    """One client."""

    def __init__(self, server, stream):
        self.server, self.stream = server, stream
        self.buffer, self.more, self.mode, self.bus, self.can = b"", False, "nobus", None, None

    def say(self, text):
        self.stream.sendall(text)

    def serve(self):
        try:
            self.say(b"< hi >")
            while True:
                self.step()
        except (HangUp, OSError) as end:
            self.server.note("end", str(end))
        finally:
            # In this order: a job of the kernel's ends with its socket, at the latest when its process does.
            if self.can is not None:
                self.can.close()
            self.stream.close()
            self.server.gone(self)

    def step(self):
        """Waits for a frame or for the client, unless more of its elements are here."""
        sources = [self.stream] if self.can is None else [self.can, self.stream]
        ready = [self.stream] if self.more else select.select(sources, [], [])[0]
        if self.can in ready:
            self.pass_frame()
        if self.stream in ready:
            element = self.element()
            self.server.note("element", element.decode("latin-1"))
            self.obey(element)

    def element(self):
        if not self.more:
            piece = self.stream.recv(MAXLEN - len(self.buffer))
            if not piece:
                raise HangUp("its client closed it")
            self.buffer += piece
        self.more = False
        start, stop = self.buffer.find(b"<"), self.buffer.find(b">", 1)
        if start < 0 or stop < 0:
            raise HangUp(f"no whole element in {self.buffer!r}")
        element = self.buffer[start : stop + 1]
        following = self.buffer.find(b"<", stop)
        self.buffer = b"" if following < 0 else self.buffer[following:]
        self.more = self.buffer.find(b">", 1) >= 0
        return element

    def obey(self, element):
        if self.mode == "nobus":
            self.before_a_bus(element)
        elif MODES.get(element, self.mode) != self.mode:
            self.change(MODES[element])
            self.say(b"< ok >")
        elif element == b"< echo >":
            self.say(element)
        elif not self.command(element):
            self.say(b"< error unknown command >")

    def before_a_bus(self, element):
        words = element.split()
        if element.startswith(b"< open ") and len(words) > 2:
            if words[2].decode("latin-1") not in self.server.buses:
                self.say(b"< error could not open bus >")
                raise HangUp("it may not open that bus")
            self.bus = words[2].decode()
            self.change("bcm")
            self.say(b"< ok >")
        else:
            self.say(b"< error unknown command >")

    def change(self, mode):
        if self.can is not None:
            self.can.close()
            self.can = None
        if mode == "raw":
            self.can = socket.socket(socket.PF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
            self.can.bind((self.bus,))
        elif mode == "bcm":
            self.can = socket.socket(socket.PF_CAN, socket.SOCK_DGRAM, socket.CAN_BCM)
            self.can.connect((self.bus,))
        elif mode == "isotp":
            raise HangUp("there is no ISO-TP here")
        self.mode = mode

    def command(self, element):
        """Whether it is known in this mode."""
        words = element[2:].split()[1:]
        known = {
            "raw": {b"send": self.send},
            "bcm": {
                b"send": self.send,
                b"add": self.add,
                b"update": self.update,
                b"delete": self.delete,
                b"subscribe": self.subscribe,
                b"unsubscribe": self.unsubscribe,
            },
        }
        for word, act in known.get(self.mode, {}).items():
            if element.startswith(b"< " + word + b" "):
                act(words)
                return True
        return False

    def frame(self, words):
        """Identifier, length, bytes; `None` where the real one complains of the syntax and goes on."""
        numbers = scanned(words, [16, 10] + [16] * 8)
        length = numbers[1] % 256 if len(numbers) > 1 else None
        if length is None or length > 8 or len(numbers) != 2 + length:
            return None
        data = bytes(value % 256 for value in numbers[2:])
        return struct.pack(FRAME, self.identifier(words[0], numbers[0]), length, data)

    @staticmethod
    def identifier(word, value):
        return value % 2**32 | (EXTENDED if len(word) == 8 else 0)

    def bcm(self, opcode, flags, identifier, frame=None, pause=(0, 0)):
        head = struct.pack(BCM_HEAD, opcode, flags, 0, 0, 0, *pause, identifier, int(frame is not None))
        self.can.send(head + (frame or b""))

    def send(self, words):
        frame = self.frame(words)
        if frame is not None and self.mode == "raw":
            self.can.send(frame)
        elif frame is not None:
            self.bcm(TX_SEND, 0, struct.unpack(FRAME, frame)[0], frame)

    def add(self, words):
        pause, frame = scanned(words[:2], [10, 10]), self.frame(words[2:])
        if len(pause) == 2 and frame is not None:
            self.bcm(TX_SETUP, SETTIMER | STARTTIMER, struct.unpack(FRAME, frame)[0], frame, pause)

    def update(self, words):
        frame = self.frame(words)
        if frame is not None:
            self.bcm(TX_SETUP, 0, struct.unpack(FRAME, frame)[0], frame)

    def delete(self, words):
        identifier = scanned(words[:1], [16])
        if identifier:
            with contextlib.suppress(OSError):  # there was none
                self.bcm(TX_DELETE, 0, self.identifier(words[0], identifier[0]))

    def subscribe(self, words):
        values = scanned(words[:3], [10, 10, 16])
        if len(values) == 3:
            self.bcm(RX_SETUP, RX_FILTER_ID | SETTIMER, self.identifier(words[2], values[2]), None, values[:2])

    def unsubscribe(self, words):
        identifier = scanned(words[:1], [16])
        if identifier:
            with contextlib.suppress(OSError):
                self.bcm(RX_DELETE, 0, self.identifier(words[0], identifier[0]))

    def pass_frame(self):
        received = self.can.recv(128)
        now = time.time()
        if self.mode == "bcm":
            received = received[struct.calcsize(BCM_HEAD) :]
        if len(received) != struct.calcsize(FRAME):
            return
        identifier, length, data = struct.unpack(FRAME, received)
        form = f"{identifier & 0x1FFFFFFF:08X}" if identifier & EXTENDED else f"{identifier & 0x7FF:03X}"
        gap = " " if self.mode == "bcm" else ""
        hexed = gap.join(f"{byte:02X}" for byte in data[:length])
        self.say(f"< frame {form} {now:.6f} {hexed}{gap} >".encode())


class Server:
    """The server, told what to do line by line."""

    def __init__(self):
        self.listener, self.buses, self.connections, self.notes = None, [], set(), []
        self.lock = threading.Lock()

    async def serve(self, buses, port=0):
        """Serves these buses at a port of this computer; returns the port."""
        self.buses = buses
        self.listener = socket.create_server(("127.0.0.1", port), backlog=64)
        threading.Thread(target=self.accept, daemon=True).start()
        return self.listener.getsockname()[1]

    def accept(self):
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(self, stream)
            with self.lock:
                self.connections.add(connection)
            threading.Thread(target=connection.serve, daemon=True).start()

    def note(self, kind, what):
        with self.lock:
            self.notes.append([kind, what, time.clock_gettime_ns(time.CLOCK_BOOTTIME)])

    def gone(self, connection):
        with self.lock:
            self.connections.discard(connection)

    async def seen(self, since=0):
        """What was noted from a moment on: elements, and ends of connections."""
        with self.lock:
            return [note for note in self.notes if note[2] >= since]

    async def clients(self):
        with self.lock:
            return len(self.connections)

    async def hang_up_on_all(self):
        """As when the server's processes are killed."""
        with self.lock:
            connections = list(self.connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.stream.shutdown(socket.SHUT_RDWR)
        await asyncio.sleep(0)
