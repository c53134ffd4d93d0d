"""Bytes that no honest Kortex client sends: each function returns what the server did about them.

Those of MQTT are put together by hand: no client library would send them.
"""

import random
import socket
import struct

from kortex_frames import REQUEST, Frame
from kortex_transports import MAGIC

# By then an honest server has answered or closed.
ENOUGH = 10


def talk(host, port, data, end=False):
    """Sends those bytes over TCP, and tells how the server ended the connection."""
    with socket.create_connection((host, port), timeout=ENOUGH) as connection:
        try:
            connection.sendall(data)
            if end:
                connection.shutdown(socket.SHUT_WR)
            answered = b""
            while piece := connection.recv(4096):
                answered += piece
            return f"closed after {len(answered)} bytes"
        except OSError as error:
            return type(error).__name__


def framed(data):
    return MAGIC + struct.pack(">I", len(data)) + data


def wrong_magic(host, port):
    """A frame that begins as none does."""
    return talk(host, port, b"\x07xEtRoX\x07" + struct.pack(">I", 4) + bytes(4))


def http(host, port):
    """Somebody takes the port for a web server."""
    return talk(host, port, b"GET / HTTP/1.1\r\nHost: robot\r\n\r\n")


def no_length(host, port):
    """A frame of no bytes."""
    return talk(host, port, MAGIC + struct.pack(">I", 0))


def four_gigabytes(host, port):
    """A head that promises 4 GB."""
    return talk(host, port, MAGIC + b"\xff\xff\xff\xff" + bytes(4096))


def truncated(host, port):
    """A head that promises 100 bytes, then 10 and the end."""
    return talk(host, port, MAGIC + struct.pack(">I", 100) + bytes(10), end=True)


def no_protobuf(host, port):
    """Whole frames that no protobuf parser can read, then the end."""
    return talk(host, port, framed(b"\xff" * 40) * 100, end=True)


def other_header(host, port):
    """A request whose header is of version 2, then the end."""
    return talk(host, port, framed(Frame(REQUEST, 0x10003, message=1, version=2).pack()), end=True)


def noise(host, port):
    """A hundred connections of random bytes behind a right head."""
    choice, ends = random.Random(6), {}
    for _ in range(100):
        end = talk(host, port, framed(choice.randbytes(choice.randrange(1, 64))) + choice.randbytes(20), end=True)
        ends[end] = ends.get(end, 0) + 1
    return str(ends)


def datagrams(host, port):
    """Two thousand random datagrams, empty and very long ones among them."""
    choice = random.Random(7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(2000):
            length = 60_000 if number % 500 == 0 else choice.randrange(64)
            sender.sendto(choice.randbytes(length), (host, port))
    return "sent"


def packet(kind, body):
    """A packet of MQTT of less than 128 bytes."""
    return bytes([kind, len(body)]) + body


def text(value):
    """A text as MQTT has it."""
    return struct.pack(">H", len(value)) + value


def connect(version=5, flags=2, will=b""):
    """A first packet without a name; clean start."""
    properties = b"\0" if version == 5 else b""
    return packet(0x10, text(b"MQTT") + bytes([version, flags, 0, 60]) + properties + text(b"") + will)


def mqtt_3(host, port):
    """The version before."""
    return talk(host, port, connect(version=4))


def mqtt_no_connect(host, port):
    """A ping before there is a connection."""
    return talk(host, port, packet(0xC0, b""))


def mqtt_garbage(host, port):
    """Bytes of which the first says CONNECT, and nothing else is right."""
    return talk(host, port, packet(0x10, bytes(range(100))), end=True)


def mqtt_noise(host, port):
    """A hundred connections of random bytes behind a right CONNECT."""
    choice, ends = random.Random(8), {}
    for _ in range(100):
        end = talk(host, port, connect() + choice.randbytes(choice.randrange(1, 64)), end=True)
        ends[end] = ends.get(end, 0) + 1
    return str(ends)


def mqtt_too_long(host, port):
    """A message that promises 256 MB."""
    return talk(host, port, connect() + b"\x30\xff\xff\xff\x7f" + bytes(4096))


def mqtt_qos_2(host, port):
    """A Stop that is to be delivered exactly once."""
    return talk(host, port, connect() + packet(0x34, text(b"req/2/112") + b"\0\1\0"))


def mqtt_retained(host, port):
    """A Stop for whoever comes later."""
    return talk(host, port, connect() + packet(0x31, text(b"req/2/112") + b"\0"))


def mqtt_will(host, port):
    """A Stop for when this client is gone, which it is at once."""
    will = b"\0" + text(b"req/2/112") + text(Frame(REQUEST, 0x20070, session=1, message=1).pack())
    return talk(host, port, connect(flags=6, will=will), end=True)


def mqtt_others(host, port):
    """Publishes to answers and questions of others, then the end."""
    topics = (b"res/auto-00000001", b"ping/1", b"notif/2/176")
    messages = b"".join(packet(0x30, text(topic) + b"\0nonsense") for topic in topics)
    return talk(host, port, connect() + messages, end=True)


def crowd(host, port, count):
    """Connections that say nothing."""
    return [socket.create_connection((host, port), timeout=ENOUGH) for _ in range(count)]


KINDS = {
    function.__name__: function
    for function in [
        wrong_magic,
        http,
        no_length,
        four_gigabytes,
        truncated,
        no_protobuf,
        other_header,
        noise,
        datagrams,
        mqtt_3,
        mqtt_no_connect,
        mqtt_garbage,
        mqtt_noise,
        mqtt_too_long,
        mqtt_qos_2,
        mqtt_retained,
        mqtt_will,
        mqtt_others,
    ]
}
