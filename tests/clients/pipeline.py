"""A gRPC client that awaits nothing: calls over one HTTP/2 connection, in one TCP segment or some time apart.

Every frame is written where it stands in the list: what the server is sent first is known to the byte. A thread reads
what comes back, another one beats for the session.
"""

import asyncio
import socket
import struct
import threading
import time
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived

from raw import headers_of, split

START_SESSION = "/viam.robot.v1.RobotService/StartSession"
HEARTBEAT = "/viam.robot.v1.RobotService/SendSessionHeartbeat"
# How long an answer may take on the slowest rig.
PATIENCE = 15.0


class Answer:
    """What has come back of one call."""

    def __init__(self):
        self.headers = {}
        self.data = b""
        self.ended = threading.Event()
        self.lost = None

    def told(self):
        status = self.headers.get("grpc-status")
        return {
            "status": None if status is None else int(status),
            "message": unquote(self.headers.get("grpc-message", "")) or self.lost or "",
            "messages": [message.hex() for message in split(self.data)],
        }


class Pipeline:
    """What the requests do."""

    def __init__(self):
        self.lock = threading.Lock()
        self.answers = {}
        self.beating = None

    async def connect(self, address):
        self.host, port = address.rsplit(":", 1)
        self.port = int(port)
        self.socket = socket.create_connection((self.host, self.port), timeout=PATIENCE)
        self.socket.settimeout(None)
        # Each write is a segment of its own, however soon it follows the one before.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.http.initiate_connection()
        # The room for answers is refilled as they come; this only keeps the server from waiting for it.
        self.http.increment_flow_control_window(2**30)
        self.socket.sendall(self.http.data_to_send())
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        why = "the connection ended"
        try:
            while data := self.socket.recv(65536):
                with self.lock:
                    for event in self.http.receive_data(data):
                        self.take(event)
                    self.socket.sendall(self.http.data_to_send())
        except Exception as error:  # whatever it is, whoever waits wants to know
            why = f"{type(error).__name__}: {error}"
        with self.lock:
            for answer in self.answers.values():
                answer.lost = answer.lost or why
                answer.ended.set()

    def take(self, event):
        answer = self.answers.get(getattr(event, "stream_id", None))
        if isinstance(event, ConnectionTerminated):
            raise ConnectionError(f"GOAWAY {event.error_code}")
        if answer is None:
            return
        if isinstance(event, (ResponseReceived, TrailersReceived)):
            answer.headers.update(event.headers)
        elif isinstance(event, DataReceived):
            answer.data += event.data
            self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, (StreamEnded, StreamReset)):
            if isinstance(event, StreamReset):
                answer.lost = f"reset with {event.error_code}"
            answer.ended.set()

    def send_now(self, calls, gap, bodies_last):
        """Writes calls; returns the numbers of their streams."""
        streams, parts = [], []

        def cut():
            parts.append(self.http.data_to_send())

        def message(stream, call):
            body = bytes.fromhex(call["message"])
            self.http.send_data(stream, struct.pack(">BI", 0, len(body)) + body, end_stream=True)

        with self.lock:
            for place, call in enumerate(calls):
                stream = self.http.get_next_available_stream_id()
                streams.append(stream)
                self.answers[stream] = Answer()
                headers = headers_of(self.host, self.port, call["path"])
                self.http.send_headers(stream, headers + [tuple(pair) for pair in call.get("metadata", [])])
                if place not in bodies_last:
                    message(stream, call)
                cut()
            for place in bodies_last:
                message(streams[place], calls[place])
                cut()
            if gap == 0:
                parts = [b"".join(parts)]
            # Nothing may come between: what is encoded first must be sent first.
            for place, part in enumerate(parts):
                if place > 0:
                    time.sleep(gap)
                self.socket.sendall(part)
        return streams

    def wait(self, streams, limit):
        until = time.monotonic() + limit
        for stream in streams:
            self.answers[stream].ended.wait(max(0.0, until - time.monotonic()))
        told = []
        for stream in streams:
            answer = self.answers[stream]
            told.append(answer.told() if answer.ended.is_set() else None)
            if answer.ended.is_set():
                with self.lock:
                    del self.answers[stream]
        return told

    async def send(self, calls, gap=0.0, bodies_last=()):
        """Sends calls without waiting for anything: all in one segment, or one by one with `gap` seconds between. The
        messages of those in `bodies_last` follow after everything else, apart from their headers."""
        return await asyncio.to_thread(self.send_now, calls, gap, list(bodies_last))

    async def answered(self, streams, limit=PATIENCE):
        """What came back of calls that were sent; nothing of those that last longer than the limit."""
        return await asyncio.to_thread(self.wait, streams, limit)

    async def call(self, path, message="", metadata=()):
        """One call, awaited."""
        streams = await self.send([{"path": path, "message": message, "metadata": metadata}])
        (answer,) = await self.answered(streams)
        if answer is None or answer["status"] != 0:
            raise ConnectionError(f"{path}: {answer}")
        return answer

    async def open_session(self, every):
        """Opens a session that beats every so many seconds; returns its id."""
        await self.fall_silent()
        answer = await self.call(START_SESSION)
        response = bytes.fromhex(answer["messages"][0])
        # Field 1, the id: 36 characters.
        session = response[2 : 2 + response[1]].decode()
        ending = self.beating = threading.Event()
        threading.Thread(target=self.beat, args=(session, every, ending), daemon=True).start()
        return session

    async def fall_silent(self):
        """Beats no more."""
        if self.beating:
            self.beating.set()

    def beat(self, session, every, ending):
        message = (b"\x0a" + bytes([len(session)]) + session.encode()).hex()
        try:
            while not ending.is_set():
                streams = self.send_now([{"path": HEARTBEAT, "message": message}], 0, [])
                ending.wait(every)
                self.wait(streams, 0)
        except OSError:
            pass  # The connection has ended, which whoever waits for an answer is told.
