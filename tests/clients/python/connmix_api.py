"""connmix's API as its backends use it: a queue worker, and the habits of the synchronous PHP client.

    python connmix_api.py [http://127.0.0.1:6789] [ws://127.0.0.1:6060/netsvr] [ws://127.0.0.1:6790/chat]

The second address is that of netsvr clients of the demo, which are reached over connmix too; the
third that of connmix clients, with whom the demo's worker chats.
Only the standard library and `websockets`.
"""

import base64
import json
import os
import socket
import struct
import sys
import urllib.request

from websockets.sync.client import connect

API = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:6789"
CLIENTS = sys.argv[2] if len(sys.argv) > 2 else "ws://127.0.0.1:6060/netsvr"
CHAT = sys.argv[3] if len(sys.argv) > 3 else "ws://127.0.0.1:6790/chat"
WAIT = 10


def check(name, got, want):
    if got != want:
        sys.exit(f"FAIL {name}: expected {want!r}, got {got!r}")
    print(f"ok   {name}")


def http(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(API + path, data=data, method=method)
    with urllib.request.urlopen(request, timeout=WAIT) as answer:
        return json.load(answer)


class PhpSyncClient:
    """What Textalk/websocket-php and the official client do: connect when needed, one request, one
    blocking read, the first message is the answer whatever its id, fragments of 4096 bytes."""

    FRAGMENT = 4096

    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), timeout=5)
        self.buffer = b""
        self.number = 0
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /ws/v1 HTTP/1.1\r\nhost: {host}:{port}\r\nuser-agent: websocket-client-php\r\n"
            f"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: {key}\r\n"
            "sec-websocket-version: 13\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self.buffer:
            self.buffer += self.socket.recv(4096)
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 101"), head
        assert b"Connection: Upgrade\r\n" in head + b"\r\n", head

    def frame(self, first, payload):
        mask = os.urandom(4)
        length = len(payload)
        header = struct.pack("!BB", first, 0x80 | min(length, 126))
        header += struct.pack("!H", length) if length >= 126 else b""
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self.socket.sendall(header + mask + masked)

    def send(self, text):
        data = text.encode()
        pieces = [data[i : i + self.FRAGMENT] for i in range(0, len(data), self.FRAGMENT)] or [b""]
        for index, piece in enumerate(pieces):
            first = (0x80 if index + 1 == len(pieces) else 0) | (1 if index == 0 else 0)
            self.frame(first, piece)

    def exactly(self, count):
        while len(self.buffer) < count:
            piece = self.socket.recv(65536)
            assert piece, "closed"
            self.buffer += piece
        piece, self.buffer = self.buffer[:count], self.buffer[count:]
        return piece

    def receive(self):
        while True:
            first, length = self.exactly(2)
            if length == 126:
                (length,) = struct.unpack("!H", self.exactly(2))
            payload = self.exactly(length)
            if first == 0x89:
                self.frame(0x8A, payload)
            elif first in (0x81, 0x82):
                return payload.decode()

    def call(self, method, params):
        self.number += 1
        # PHP writes slashes escaped, characters beyond ASCII as \uXXXX and empty maps as [].
        params = params or []
        text = json.dumps({"m": method, "p": params, "i": self.number}).replace("/", "\\/")
        self.send(text)
        return json.loads(self.receive())


def discovery():
    check("GET /version", http("GET", "/version")["apis"][0], "v1")
    nodes = http("GET", "/v1/nodes")["nodes"]
    check("GET /v1/nodes", [node["id"] for node in nodes], [1])
    return nodes[0]["api_server"].rsplit(":", 1)


def php_habits(host, port):
    php = PhpSyncClient(host, int(port))
    done = {"E": None, "r": {"s": True}, "i": 1}
    check("queue.pop with a list", php.call("queue.pop", ["nobody pushes here"]), done)
    check("queue.unpop with []", php.call("queue.unpop", {}), {**done, "i": 2})
    long = {"c": "nobody", "d": "ä" * 5000 + "/"}
    answer = php.call("mesh.publish", long)
    check("a request in fragments", answer, {"E": None, "r": {"s": 0, "f": 0}, "i": 3})
    answer = php.call("mesh.send", {"c": 1463786910324359168, "d": "x"})
    check("an integer client_id beyond floats", (answer["E"]["c"], answer["i"]), (401, 4))
    answer = php.call("mesh.send", {"c": "user_10001", "d": "x"})
    check("its own mistake in meshPublish", (answer["E"]["c"], answer["i"]), (101, 5))
    php.send("")
    check("an empty message has an answer", json.loads(php.receive())["i"], None)


def across(host, port):
    """A netsvr client of the demo, reached over connmix's API."""
    with connect(CLIENTS) as client:
        client.recv(timeout=WAIT)
        client.send(json.dumps({"cmd": 28, "data": {"topics": ["connmix tour".replace(" ", "-")]}}))
        client.recv(timeout=WAIT)
        answer = http("POST", "/v1/mesh/publish", {"c": "connmix-tour", "d": "across"})
        check("a netsvr topic is a connmix channel", answer["r"], {"s": 1, "f": 0})
        check("and its member gets the payload", client.recv(timeout=WAIT), "across")
    with connect(f"ws://{host}:{port}/ws/v1") as api:
        api.send("ping")
        check("text ping", api.recv(timeout=WAIT), "pong")


def chat():
    """The chat of connmix's examples: rules push to the queue `demo`, the demo's worker answers."""

    def ask(ws, op, *args):
        ws.send(json.dumps({"op": op, "args": list(args)}))

    def heard(ws):
        return json.loads(ws.recv(timeout=WAIT))

    with connect(CHAT) as ann, connect(CHAT) as bob:
        ask(ann, "sendbroadcast", "too early")
        check("who has not logged in can not speak", "error" in heard(ann), True)
        for ws, name in (ann, "ann"), (bob, "bob"):
            ask(ws, "auth", name, "demo")
            check(f"{name} logs in", heard(ws), {"op": "auth", "success": True})
            ask(ws, "subscribe", "room_101")
            check(f"{name} joins", heard(ws), {"op": "subscribe", "success": True})
        ask(ann, "sendtoroom", "room_101", "hi")
        said = {"event": "subscribe", "channel": "room_101", "data": "uid:ann,message:hi"}
        check("the sender sees her own message first", heard(ann), said)
        check("and then that it was sent", heard(ann), {"op": "sendtoroom", "success": True})
        check("and so does the other", heard(bob), said)
        answer = http("POST", "/v1/mesh/publish", {"c": "room_101", "d": "from a backend"})
        check("a backend publishes to the room", answer["r"], {"s": 2, "f": 0})
        check("and both get it", [ann.recv(timeout=WAIT), bob.recv(timeout=WAIT)],
              ["from a backend"] * 2)
        ask(bob, "sendtouser", "user_ann", "psst")
        check("a private message", heard(ann)["data"], "uid:bob,message:psst")


def main():
    host, port = discovery()
    php_habits(host, port)
    across(host, port)
    chat()


main()
