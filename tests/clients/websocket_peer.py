"""A WebSocket server, and clients over HTTP/1.1 and over HTTP/2 that check the gateway in front of it."""

import asyncio
import socket
import sys

import h2.config
import h2.connection
import h2.events
import websockets
import wsproto
import wsproto.frame_protocol as frames
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve as listen


async def serve():
    async def echo(connection):
        async for message in connection:
            await connection.send(message)

    async with listen(echo, "127.0.0.1", 0, compression=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


MESSAGES = ["hello", "x" * 100_000, b"\x00\xff" * 5000, "end"]


async def over_http1(target, key):
    async with connect(f"ws://{target}/ws/echo", additional_headers={"x-api-key": key}, compression=None) as ws:
        for message in MESSAGES:
            await ws.send(message)
            assert await asyncio.wait_for(ws.recv(), 10) == message
        await ws.ping()
    try:
        async with connect(f"ws://{target}/ws/echo", additional_headers={"x-api-key": "wrong"}):
            raise AssertionError("a wrong key opened a WebSocket")
    except websockets.exceptions.InvalidStatus as refused:
        assert refused.response.status_code == 401


class Http2:
    """One extended CONNECT (RFC 8441)."""

    def __init__(self, target, key):
        host, port = target.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), 10)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.flush()
        self.status, self.data, self.ended = None, b"", False
        while not self.h2.remote_settings.enable_connect_protocol:
            self.read()
        self.stream = self.h2.get_next_available_stream_id()
        head = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", target),
            (":path", "/ws/echo"),
            ("sec-websocket-version", "13"),
            ("x-api-key", key),
        ]
        self.h2.send_headers(self.stream, head)
        self.flush()
        while self.status is None:
            self.read()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def read(self):
        received = self.socket.recv(65536)
        assert received, "the connection ended"
        for event in self.h2.receive_data(received):
            if isinstance(event, h2.events.ResponseReceived):
                self.status = int(dict(event.headers)[":status"])
                self.headers = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                self.data += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                self.ended = True
        self.flush()

    def write(self, data):
        while data:
            room = min(self.h2.local_flow_control_window(self.stream), self.h2.max_outbound_frame_size)
            if room == 0:
                self.read()
                continue
            self.h2.send_data(self.stream, data[:room])
            data = data[room:]
            self.flush()


def over_http2(target, key):
    http2 = Http2(target, key)
    assert http2.status == 200, http2.status
    assert "sec-websocket-accept" not in http2.headers, http2.headers
    ws = wsproto.Connection(wsproto.ConnectionType.CLIENT)
    for message in MESSAGES:
        kind = wsproto.events.TextMessage if isinstance(message, str) else wsproto.events.BytesMessage
        http2.write(ws.send(kind(data=message)))
        heard = message[:0]
        while heard != message:
            if not http2.data:
                http2.read()
            ws.receive_data(http2.data)
            http2.data = b""
            for event in ws.events():
                heard += event.data
    http2.write(ws.send(wsproto.events.CloseConnection(code=frames.CloseReason.NORMAL_CLOSURE)))
    while not http2.ended:
        http2.read()
    assert Http2(target, "wrong").status == 401


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve())
    else:
        asyncio.run(over_http1(*sys.argv[2:]))
        over_http2(*sys.argv[2:])
        print("all messages came back")
