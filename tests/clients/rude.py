"""Bytes that no honest client sends: each function returns what the server did about them."""

import random
import socket
import struct

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, ResponseReceived, StreamEnded, StreamReset, TrailersReceived

from raw import headers_of

START_SESSION = "/viam.robot.v1.RobotService/StartSession"


def call(host, port, body, declared_end=True, path=START_SESSION):
    """Sends one request body, whatever it is, and tells how the server ended the call."""
    with socket.create_connection((host, port), timeout=10) as connection:
        http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        http.initiate_connection()
        connection.sendall(http.data_to_send())
        stream = http.get_next_available_stream_id()
        http.send_headers(stream, headers_of(host, port, path))
        sent = 0
        connection.sendall(http.data_to_send())
        while True:
            while sent < len(body):
                room = min(http.local_flow_control_window(stream), http.max_outbound_frame_size, len(body) - sent)
                if room <= 0:
                    break
                http.send_data(stream, body[sent : sent + room])
                sent += room
            if sent == len(body) and declared_end:
                http.end_stream(stream)
                declared_end = False
            try:
                connection.sendall(http.data_to_send())
                data = connection.recv(65536)
            except (TimeoutError, OSError) as error:
                return f"{type(error).__name__}"
            if not data:
                return "closed"
            for event in http.receive_data(data):
                if isinstance(event, (ResponseReceived, TrailersReceived)):
                    status = dict(event.headers).get("grpc-status")
                    if status is not None:
                        return f"grpc-status {status}"
                if isinstance(event, StreamEnded):
                    return "ended"
                if isinstance(event, StreamReset):
                    return "reset"
                if isinstance(event, ConnectionTerminated):
                    return "goaway"
            connection.sendall(http.data_to_send())


def oversized(host, port):
    """A message of 16 MB where a few bytes are right: four times what gRPC servers take by default."""
    body = b"\x0a" + b"\x80\x80\x80\x08" + bytes(16 * 1024 * 1024)
    return call(host, port, b"\x00" + struct.pack(">I", len(body)) + body)


def enormous_length(host, port):
    """A prefix that promises 4 GB, and nothing after it."""
    return call(host, port, b"\x00\xff\xff\xff\xff")


def truncated(host, port):
    """A prefix that promises 100 bytes, then 10 and the end of the stream."""
    return call(host, port, b"\x00" + struct.pack(">I", 100) + bytes(10))


def compressed(host, port):
    """A message marked as compressed in a call that declares no compression."""
    return call(host, port, b"\x01" + struct.pack(">I", 4) + b"\xde\xad\xbe\xef")


def not_protobuf(host, port):
    """A whole message that no protobuf parser can read."""
    return call(host, port, b"\x00" + struct.pack(">I", 8) + b"\xff" * 8)


def not_http(host, port):
    """Random bytes instead of HTTP."""
    noise = random.Random(1).randbytes(4096)
    with socket.create_connection((host, port), timeout=10) as connection:
        try:
            connection.sendall(noise)
            while connection.recv(4096):
                pass
            return "closed"
        except (TimeoutError, OSError) as error:
            return type(error).__name__


def hang_up(host, port):
    """A call that is cut off in the middle of its headers."""
    with socket.create_connection((host, port), timeout=10) as connection:
        http = H2Connection(H2Configuration(client_side=True))
        http.initiate_connection()
        connection.sendall(http.data_to_send() + b"\x00\x40\x00\x01\x04\x00\x00\x00\x01half")
        return "gone"


KINDS = {
    function.__name__: function
    for function in [oversized, enormous_length, truncated, compressed, not_protobuf, not_http, hang_up]
}
