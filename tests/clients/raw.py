"""gRPC calls by hand, as grpcurl makes them: any method, any bytes, any metadata, no SDK and no schema."""

import socket
import struct
import time
from urllib.parse import unquote

from hpack import Decoder
from hyperframe.frame import ContinuationFrame, Frame, HeadersFrame

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived


def headers_of(host, port, path):
    """What every gRPC call begins with."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", f"{host}:{port}"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]


def call(host, port, path, messages, metadata, answers):
    """Sends messages (hex) and returns headers, answers (hex) and status; with `answers` it hangs up after so many."""
    with socket.create_connection((host, port), timeout=10) as connection:
        http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        http.initiate_connection()
        stream = http.get_next_available_stream_id()
        http.send_headers(stream, headers_of(host, port, path) + [tuple(pair) for pair in metadata])
        for message in map(bytes.fromhex, messages):
            http.send_data(stream, struct.pack(">BI", 0, len(message)) + message)
        http.end_stream(stream)
        connection.sendall(http.data_to_send())
        received, data, ended = {}, b"", False
        while not ended and (answers is None or len(split(data)) < answers):
            chunk = connection.recv(65536)
            if not chunk:
                raise ConnectionError("closed in the middle of a call")
            for event in http.receive_data(chunk):
                if isinstance(event, (ResponseReceived, TrailersReceived)):
                    received.update(event.headers)
                elif isinstance(event, DataReceived):
                    data += event.data
                    http.acknowledge_received_data(event.flow_controlled_length, stream)
                elif isinstance(event, StreamReset):
                    raise ConnectionError(f"reset with {event.error_code}")
                elif isinstance(event, StreamEnded):
                    ended = True
            connection.sendall(http.data_to_send())
        status = received.get("grpc-status")
        return {
            "status": None if status is None else int(status),
            "headers": received,
            "message": unquote(received.get("grpc-message", "")),
            "messages": [message.hex() for message in split(data)],
        }


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER = 9


def paths_of(sent):
    """The path of every request, in order, in what a client has sent over a connection of HTTP/2."""
    decoder, paths, block = Decoder(), [], b""
    sent = sent.removeprefix(PREFACE)
    while len(sent) >= FRAME_HEADER:
        frame, length = Frame.parse_frame_header(memoryview(sent[:FRAME_HEADER]))
        if len(sent) < FRAME_HEADER + length:
            break
        frame.parse_body(memoryview(sent[FRAME_HEADER : FRAME_HEADER + length]))
        sent = sent[FRAME_HEADER + length :]
        if isinstance(frame, (HeadersFrame, ContinuationFrame)):
            block += bytes(frame.data)
            if "END_HEADERS" in frame.flags:
                paths += [value for name, value in decoder.decode(block) if name == ":path"]
                block = b""
    return paths


def burst(host, port, calls, gap):
    """Begins calls of one message each, (path, hex, metadata), over one connection: all in one segment, or `gap` seconds
    apart. Awaits none before all are sent; returns the status of each."""
    with socket.create_connection((host, port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        http.initiate_connection()
        connection.sendall(http.data_to_send())
        statuses, streams = {}, []
        for path, message, metadata in calls:
            stream = http.get_next_available_stream_id()
            streams.append(stream)
            http.send_headers(stream, headers_of(host, port, path) + [tuple(pair) for pair in metadata])
            message = bytes.fromhex(message)
            http.send_data(stream, struct.pack(">BI", 0, len(message)) + message, end_stream=True)
            if gap:
                connection.sendall(http.data_to_send())
                time.sleep(gap)
        connection.sendall(http.data_to_send())
        ended = set()
        while len(ended) < len(streams):
            chunk = connection.recv(65536)
            if not chunk:
                raise ConnectionError("closed in the middle of a call")
            for event in http.receive_data(chunk):
                if isinstance(event, (ResponseReceived, TrailersReceived)):
                    status = dict(event.headers).get("grpc-status")
                    if status is not None:
                        statuses[event.stream_id] = int(status)
                elif isinstance(event, DataReceived):
                    http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, (StreamEnded, StreamReset)):
                    ended.add(event.stream_id)
            connection.sendall(http.data_to_send())
        return [statuses.get(stream) for stream in streams]


def split(data):
    """The whole messages in a body."""
    messages = []
    while len(data) >= 5 and len(data) >= 5 + (length := int.from_bytes(data[1:5], "big")):
        messages.append(data[5 : 5 + length])
        data = data[5 + length :]
    return messages
