"""What carries Kortex's frames, as the real clients do it, with what they are bad at."""

import queue
import select
import socket
import struct
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from kortex_frames import PING, Frame

MAGIC = b"\x07xEtRoK\x07"
HEAD = 12
# How long connecting may take.
CONNECT = 10
# Pause of a reader whose server has hung up. The real one has none and takes a whole processor; the rig has only one.
HUNG_UP = 0.05
# Of ten datagrams these are lost, if that is wanted. A fixed choice: by chance, every beat of a window could be among them.
LOST = (0, 4, 7)


class Tcp:
    """Generation 2: eight bytes that never change, a length, the frame."""

    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), timeout=CONNECT)
        self.socket.settimeout(None)
        self.sending = threading.Lock()
        self.receive = lambda frame: None
        self.dropped = 0
        self.open = True

    def start(self, receive):
        """Hands over every frame that comes, from a thread of its own."""
        self.receive = receive
        threading.Thread(target=self.read, daemon=True).start()

    def send(self, frame, data):
        self.send_raw(MAGIC + struct.pack(">I", len(data)) + data)

    def send_raw(self, data):
        with self.sending:
            self.socket.sendall(data)

    def send_together(self, frames):
        """All of them in one segment."""
        whole = [MAGIC + struct.pack(">I", len(data)) + data for data in (frame.pack() for frame in frames)]
        self.send_raw(b"".join(whole))

    def read(self):
        while self.open:
            try:
                ready, _, _ = select.select([self.socket], [], [], 0.1)
                # One call for the whole head, as the real client: what comes in two pieces is lost.
                head = self.socket.recv(HEAD) if ready else None
                if head is None:
                    continue
                if head == b"":
                    self.open = False
                    time.sleep(HUNG_UP)
                    continue
                if len(head) < HEAD or not head.startswith(MAGIC):
                    self.dropped += 1
                    continue
                self.receive(self.exactly(struct.unpack(">I", head[8:])[0]))
            except (OSError, ValueError):
                self.open = False

    def exactly(self, length):
        data = b""
        while len(data) < length:
            piece = self.socket.recv(length - len(data))
            if not piece:
                raise OSError("hung up in the middle of a frame")
            data += piece
        return data

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)

    def close(self):
        self.open = False
        self.socket.close()


class Udp:
    """Both generations: a datagram is a frame."""

    def __init__(self, host, port):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect((host, port))
        self.socket.settimeout(0.1)
        self.losing = False
        self.counts = [0, 0]
        self.dropped = 0
        self.open = True

    def start(self, receive):
        self.receive = receive
        threading.Thread(target=self.read, daemon=True).start()

    def loses(self, direction):
        """Whether the next datagram of that direction is lost."""
        self.counts[direction] += 1
        lost = self.losing and self.counts[direction] % 10 in LOST
        self.dropped += lost
        return lost

    def send(self, frame, data):
        if not self.loses(0):
            self.send_raw(data)

    def send_raw(self, data):
        self.socket.send(data)

    def send_together(self, frames):
        """One datagram after the other."""
        for frame in frames:
            self.send_raw(frame.pack())

    def read(self):
        while self.open:
            try:
                data = self.socket.recv(65507)
            except TimeoutError:
                continue
            except OSError:
                # Nobody listens there just now; somebody may again.
                time.sleep(HUNG_UP)
                continue
            if not self.loses(1):
                self.receive(data)

    def close(self):
        self.open = False
        self.socket.close()


class Mqtt:
    """Generation 3: a message of MQTT 5 is a frame. The server asks whether its client is there, not the other way round."""

    def __init__(self, host, port):
        self.connected = queue.Queue()
        self.acknowledged = queue.Queue()
        self.other = queue.Queue()
        self.pings = 0
        self.answers_pings = True
        self.dropped = 0
        self.open = True
        self.receive = lambda data: None
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="", protocol=mqtt.MQTTv5)
        self.client.on_connect = self.on_connect
        self.client.on_subscribe = lambda client, data, mid, codes, properties: self.acknowledged.put(
            (mid, [code.value for code in codes])
        )
        self.client.on_disconnect = self.on_disconnect
        self.client.on_message = self.on_message
        self.client.connect(host, port, keepalive=60, clean_start=True)
        self.client.loop_start()
        # The real client fails in its callback when the server assigns no name.
        self.name = self.connected.get(timeout=CONNECT)
        if isinstance(self.name, Exception):
            raise self.name
        self.response = f"res/{self.name}"
        self.subscribe(self.response)

    def on_connect(self, client, data, flags, code, properties):
        if code.is_failure:
            self.connected.put(ConnectionError(f"refused: {code}"))
        elif not hasattr(properties, "AssignedClientIdentifier"):
            self.connected.put(ConnectionError("no AssignedClientIdentifier"))
        else:
            self.connected.put(properties.AssignedClientIdentifier)

    def on_disconnect(self, client, data, flags, code, properties):
        self.open = False
        # Connecting again by itself is none of what the real client does.
        self.client.loop_stop()

    def on_message(self, client, data, message):
        if message.topic == self.response or message.topic.startswith("notif/"):
            self.receive(message.payload)
        elif message.topic.startswith("ping/"):
            self.pings += 1
            if self.answers_pings:
                self.pong(Frame.unpack(message.payload))
        else:
            self.other.put((message.topic, message.payload))

    def pong(self, ping):
        if ping.kind == PING:
            ping.kind = 8
            self.client.publish(f"pong/{ping.session}", ping.pack())

    def start(self, receive):
        self.receive = receive

    def subscribe(self, topic):
        """Subscribes, and returns what the server said: 0 for yes, or why not."""
        result, wanted = self.client.subscribe(topic, qos=0)
        if result != mqtt.MQTT_ERR_SUCCESS:
            raise ConnectionError(mqtt.error_string(result))
        while True:
            mid, codes = self.acknowledged.get(timeout=CONNECT)
            if mid == wanted:
                return codes[0]

    def unsubscribe(self, topic):
        self.client.unsubscribe(topic)

    def adopted(self, session):
        """Called when a response has named another session."""
        if session:
            # From the thread that receives: the real client does not wait for the acknowledgement either.
            self.client.subscribe(f"ping/{session}", qos=0)

    def send(self, frame, data):
        properties = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic = self.response
        properties.CorrelationData = struct.pack(">H", frame.message)
        topic = f"req/{frame.uid >> 16}/{frame.uid & 0xFFFF}"
        return self.client.publish(topic, data, qos=0, properties=properties)

    def send_together(self, frames):
        """All of them in one segment."""
        wire = self.client.socket()
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        for sent in [self.send(frame, frame.pack()) for frame in frames]:
            # From a thread of its own; done when the kernel has it.
            sent.wait_for_publish(CONNECT)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)

    def is_alive(self, service, timeout):
        """Whether somebody serves that: needs no session."""
        topic = f"services/pong/{service}"
        self.subscribe(topic)
        self.client.publish(f"services/ping/{service}", b"")
        try:
            while self.other.get(timeout=timeout)[0] != topic:
                pass
            return True
        except queue.Empty:
            return False
        finally:
            self.unsubscribe(topic)

    def half_close(self):
        self.client.socket().shutdown(socket.SHUT_WR)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


KINDS = {"tcp": Tcp, "udp": Udp, "mqtt": Mqtt}
