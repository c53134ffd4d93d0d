"""A program for an arm of Kinova's, told what to do line by line: Kortex's session API as the real clients use it.

Written from their behaviour on the wire (the packages cannot be had from a registry), weaknesses included: a client takes on
the session of every answer it gets; its keep-alive goes on while its process lives, 150 ms after the last frame it sent, and
ends for good when one is refused; nothing that it reads ends a call but the answer with its number.
"""

import asyncio
import threading
import time
from concurrent.futures import Future, TimeoutError as NoAnswer

import kortex_rude
from kortex_frames import NOTIFICATION, REQUEST, RESPONSE, Frame
from kortex_messages import CLASSES, METHODS, TOPICS, decode, encode
from kortex_transports import KINDS, Mqtt

# Times of the real clients, in seconds: pause after the last frame sent, how often they look, how long they wait for it.
BEAT_AFTER, LOOK, BEAT_TIMEOUT = 0.150, 0.010, 0.120
# How long an ordinary call waits.
CALL_TIMEOUT = 10.0
# Of generation 3 GetConnections answers with more.
ANSWERS_OF_MQTT = {"GetConnections": "ConnectionList3"}


class KServerException(Exception):
    """The server has answered with an error."""

    def __init__(self, frame):
        error = CLASSES["Error"].FromString(frame.payload)
        super().__init__(error.error_sub_string)
        self.status = f"{frame.error}/{frame.sub_error}"


class Connection:
    """One connection: its calls, and the session of which it thinks that it has it."""

    def __init__(self, kind, host, port):
        self.place = kind, host, port
        self.transport = KINDS[kind](host, port)
        self.session, self.message = 0, 0
        self.pending, self.numbering = {}, threading.Lock()
        self.sent = self.heard = time.monotonic()
        self.notes, self.unregistered, self.garbled = [], 0, 0
        self.keeper = None
        self.transport.start(self.receive)

    def receive(self, data):
        try:
            frame = Frame.unpack(data)
        except Exception:
            self.garbled += 1
            return
        self.heard = time.monotonic()
        if frame.kind == NOTIFICATION:
            self.notes.append(frame)
        elif frame.kind == RESPONSE:
            if frame.session != self.session:
                self.session = frame.session
                if isinstance(self.transport, Mqtt):
                    self.transport.adopted(frame.session)
            waiting = self.pending.pop(frame.message, None)
            if waiting is None:
                self.unregistered += 1
            else:
                waiting.set_result(frame)

    def begin(self, frame):
        """Numbers a request and sends it; its answer will be in the future that is returned."""
        with self.numbering:
            self.message = (self.message + 1) & 0xFFFF
            frame.message = self.message
            answer = self.pending[frame.message] = Future()
        if frame.session is None:
            frame.session = self.session
        self.sent = time.monotonic()
        self.transport.send(frame, frame.pack())
        return answer

    def pipeline(self, frames, order):
        """Numbers requests and sends them together, in any order. Returns their answers to come."""
        answers = []
        with self.numbering:
            for frame in frames:
                self.message = (self.message + 1) & 0xFFFF
                frame.message, frame.session = self.message, self.session
                answers.append(self.pending.setdefault(frame.message, Future()))
        self.sent = time.monotonic()
        self.transport.send_together([frames[place] for place in order])
        return answers

    def reconnect(self):
        """Connects again to the same place, with the session and the numbers that it has."""
        self.transport.close()
        kind, host, port = self.place
        self.transport = KINDS[kind](host, port)
        self.transport.start(self.receive)

    def exchange(self, frame, timeout):
        """A request and its answer, whatever it is."""
        answer = self.begin(frame)
        try:
            return answer.result(timeout)
        except NoAnswer:
            self.pending.pop(frame.message, None)
            raise TimeoutError(f"no answer to message {frame.message} within {timeout} s") from None

    def call(self, method, values, timeout=CALL_TIMEOUT):
        """Calls a method and returns the values of its answer."""
        uid, takes, gives = METHODS[method]
        if isinstance(self.transport, Mqtt):
            gives = ANSWERS_OF_MQTT.get(method, gives)
        answer = self.exchange(Frame(REQUEST, uid, None, payload=encode(takes, values)), timeout)
        if answer.error:
            raise KServerException(answer)
        return decode(gives, answer.payload)


class Keeper:
    """The keep-alive of generation 2, and of both over UDP: a thread that lives as long as the process."""

    def __init__(self, connection, session_ms):
        self.connection, self.patience = connection, session_ms / 1000
        self.running, self.paused = True, False
        self.beats, self.unanswered, self.silences = 0, 0, 0
        self.ended_by = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        complained = time.monotonic()
        while self.running:
            time.sleep(LOOK)
            now = time.monotonic()
            # The real one prints something then, and again after as long.
            if now - max(self.connection.heard, complained) > self.patience:
                self.silences += 1
                complained = now
            if self.paused or now - self.connection.sent <= BEAT_AFTER:
                continue
            try:
                self.connection.call("KeepAlive", {}, BEAT_TIMEOUT)
                self.beats += 1
            except TimeoutError:
                self.unanswered += 1
                # An unanswered one delays the next: 283 ms were measured.
                self.connection.sent = time.monotonic()
            except Exception as error:
                self.ended_by = f"{getattr(error, 'status', None) or type(error).__name__}"
                return


class Program:
    """What the requests do. Of several connections each has a name."""

    def __init__(self):
        self.connections = {}
        self.crowd = []

    def at(self, on):
        return self.connections[on]

    async def connect(self, address, transport="tcp", on="main"):
        """Connects, no more."""
        host, port = address.rsplit(":", 1)
        self.connections[on] = await asyncio.to_thread(Connection, transport, host, int(port))

    async def create_session(
        self, user="admin", password="admin", session_ms=60000, connection_ms=2000, keep_alive=True, on="main"
    ):
        """As the SessionManager does; returns the number of the session. Over MQTT the server asks instead."""
        connection = self.at(on)
        info = {
            "username": user,
            "password": password,
            "session_inactivity_timeout": session_ms,
            "connection_inactivity_timeout": connection_ms,
        }
        await asyncio.to_thread(connection.call, "CreateSession", info)
        if keep_alive and not isinstance(connection.transport, Mqtt):
            connection.keeper = Keeper(connection, session_ms)
        return connection.session

    async def close_session(self, on="main"):
        connection = self.at(on)
        if connection.keeper:
            connection.keeper.running = False
            await asyncio.to_thread(connection.keeper.thread.join)
        await asyncio.to_thread(connection.call, "CloseSession", {})

    async def call(self, method, values=None, timeout=CALL_TIMEOUT, on="main"):
        """Any method by its name."""
        return await asyncio.to_thread(self.at(on).call, method, values or {}, timeout)

    async def call_bytes(self, uid, payload="", session=None, device=0, version=1, kind=REQUEST, timeout=1.0, on="main"):
        """Any method by its number with any payload (hex): the error of its answer, or null when there is none."""
        frame = Frame(kind, uid, session, payload=bytes.fromhex(payload), device=device, version=version)
        try:
            answer = await asyncio.to_thread(self.at(on).exchange, frame, timeout)
        except TimeoutError:
            return None
        text = CLASSES["Error"].FromString(answer.payload).error_sub_string if answer.error else ""
        return {
            "codes": f"{answer.error}/{answer.sub_error}",
            "text": text,
            "session": answer.session,
            "message": answer.message,
            "uid": answer.uid,
            "payload": answer.payload.hex(),
        }

    async def speeds(self, speeds, duration=0, on="main"):
        """Degrees per second of joints 0, 1, ...; null: the joint is not named."""
        named = [
            {"joint_identifier": number, "value": speed} for number, speed in enumerate(speeds) if speed is not None
        ]
        await self.call("SendJointSpeedsCommand", {"joint_speeds": named, "duration": duration}, on=on)

    async def pipeline(self, calls, order=None, on="main"):
        """Calls methods without waiting between them, sent in that order if it is not theirs; the codes of their answers."""
        frames = [Frame(REQUEST, METHODS[name][0], payload=encode(METHODS[name][1], values)) for name, values in calls]
        connection = self.at(on)
        answers = await asyncio.to_thread(connection.pipeline, frames, order or range(len(frames)))
        codes = []
        for answer in answers:
            frame = await asyncio.to_thread(answer.result, CALL_TIMEOUT)
            codes.append(f"{frame.error}/{frame.sub_error}")
        return codes

    async def stream(self, speeds, seconds, rate=20, on="main"):
        """Commands the joints again and again, as a joystick does, whatever is answered; what came back, and how often."""
        outcomes, end = {}, time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                await self.speeds(speeds, on=on)
                outcome = "0/0"
            except Exception as error:
                outcome = getattr(error, "status", None) or type(error).__name__
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            await asyncio.sleep(1 / rate)
        return outcomes

    async def reconnect(self, on="main"):
        """Connects again, as paho does by itself: the client keeps what it thinks to be its session."""
        await asyncio.to_thread(self.at(on).reconnect)

    async def keep_alive(self, running, on="main"):
        """Whether the keep-alive goes on."""
        self.at(on).keeper.paused = not running

    async def insist(self, session, seconds, on="main"):
        """Beats for a session that need not be this client's, twenty times a second; what came back, and how often."""
        answers, end = {}, time.monotonic() + seconds
        while time.monotonic() < end:
            answer = await self.call_bytes(0x10003, session=session, on=on)
            outcome = "none" if answer is None else answer["codes"]
            answers[outcome] = answers.get(outcome, 0) + 1
            await asyncio.sleep(0.05)
        return answers

    async def preset(self, message=None, session=None, on="main"):
        """The number of the last request, and the session of the next one."""
        connection = self.at(on)
        connection.message = connection.message if message is None else message
        connection.session = connection.session if session is None else session

    async def state(self, on="main"):
        """What became of a connection so far."""
        connection = self.at(on)
        keeper = connection.keeper
        return {
            "session": connection.session,
            "message": connection.message,
            "open": connection.transport.open,
            "dropped": connection.transport.dropped,
            "pings": getattr(connection.transport, "pings", 0),
            "unregistered": connection.unregistered,
            "garbled": connection.garbled,
            "beats": keeper.beats if keeper else 0,
            "unanswered": keeper.unanswered if keeper else 0,
            "silences": keeper.silences if keeper else 0,
            "keeps": keeper.thread.is_alive() if keeper else False,
            "ended_by": keeper.ended_by if keeper else None,
        }

    async def notifications(self, on="main"):
        """What has come unasked so far."""
        return [
            {"topic": note.uid, "handle": note.message, "session": note.session, **decode(TOPICS[note.uid], note.payload)}
            for note in self.at(on).notes
        ]

    async def slowest_beat(self, count, on="main"):
        """The longest that any of a row of keep-alives took, in seconds."""

        def beat():
            start = time.monotonic()
            self.at(on).call("KeepAlive", {})
            return time.monotonic() - start

        return max([await asyncio.to_thread(beat) for _ in range(count)])

    async def lose(self, losing, on="main"):
        """Three of ten datagrams are lost from now on, in both directions."""
        self.at(on).transport.losing = losing

    async def answer_pings(self, answers, on="main"):
        self.at(on).transport.answers_pings = answers

    async def is_alive(self, service=1, timeout=1.0, on="main"):
        return await asyncio.to_thread(self.at(on).transport.is_alive, service, timeout)

    async def subscribe(self, topic, on="main"):
        """Subscribes to a topic of MQTT's; the server's reason code."""
        return await asyncio.to_thread(self.at(on).transport.subscribe, topic)

    async def send_bytes(self, data, on="main"):
        """Sends what is no frame."""
        await asyncio.to_thread(self.at(on).transport.send_raw, bytes.fromhex(data))

    async def half_close(self, on="main"):
        """Says that nothing more will come, and goes on reading."""
        self.at(on).transport.half_close()

    async def hang_up(self, on="main"):
        """Closes the connection, not the session."""
        connection = self.connections.pop(on)
        if connection.keeper:
            connection.keeper.running = False
        await asyncio.to_thread(connection.transport.close)

    async def misbehave(self, kind, address):
        """Talks to the server as no honest client would; returns what became of it."""
        host, port = address.rsplit(":", 1)
        return await asyncio.to_thread(kortex_rude.KINDS[kind], host, int(port))

    async def crowd_in(self, address, count):
        """Opens connections that say nothing; returns how many came about."""
        host, port = address.rsplit(":", 1)
        self.crowd += await asyncio.to_thread(kortex_rude.crowd, host, int(port), count)
        return len(self.crowd)
