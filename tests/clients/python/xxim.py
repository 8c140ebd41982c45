"""An xxim client of `ringway demo` from Python: keys, login, a request, a message and its push.

    python xxim.py [ws://127.0.0.1:6701/ws] [http://127.0.0.1:9464/demo/xxim.pub.pem]

Each check prints a line; the first that fails ends the program with 1.
"""

import hashlib
import secrets
import sys
import urllib.request

from cryptography.hazmat.primitives import padding, serialization
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from websockets.sync.client import connect

URL = sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:6701/ws"
KEY_URL = sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:9464/demo/xxim.pub.pem"


def check(name, got, want):
    if got != want:
        print(f"FAIL {name}: expected {want!r}, got {got!r}")
        sys.exit(1)
    print(f"ok   {name}")


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number % 128 + 128])
        number //= 128
    return out + bytes([number])


def encode(fields):
    """A protobuf message: fields with a length (text, bytes) and numbers."""
    out = b""
    for tag, value in fields.items():
        if isinstance(value, int):
            out += varint(tag * 8) + varint(value)
        else:
            value = value.encode() if isinstance(value, str) else value
            out += varint(tag * 8 + 2) + varint(len(value)) + value
    return out


def decode(data):
    """The fields of a protobuf message, each with the list of its values."""
    fields, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte, at = data[at], at + 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = number()
        value = number()
        if key % 8 == 2:
            value, at = data[at : at + value], at + value
        fields.setdefault(key // 8, []).append(value)
    return fields


def first(fields, tag, default):
    return fields.get(tag, [default])[0]


class Keys:
    """AES-256-CBC under key and IV derived from two seeds."""

    def __init__(self, key_seed, iv_seed):
        key = hashlib.md5(key_seed).hexdigest().encode()
        iv = hashlib.md5(iv_seed).hexdigest()[8:24].encode()
        self.cipher = Cipher(algorithms.AES(key), modes.CBC(iv))

    def seal(self, data):
        pad, sealing = padding.PKCS7(128).padder(), self.cipher.encryptor()
        return sealing.update(pad.update(data) + pad.finalize()) + sealing.finalize()

    def unseal(self, data):
        pad, opening = padding.PKCS7(128).unpadder(), self.cipher.decryptor()
        data = opening.update(data) + opening.finalize()
        return pad.update(data) + pad.finalize()


class Client:
    def __init__(self, ws):
        self.ws, self.keys, self.pushes = ws, None, []

    def send(self, req_id, method, fields):
        body = encode({1: req_id, 2: method, 3: encode(fields)})
        self.ws.send(self.keys.seal(body) if self.keys else body)

    def receive(self):
        """The next PushBody: event and data."""
        data = self.ws.recv(timeout=20)
        push = decode(self.keys.unseal(data) if self.keys else data)
        return first(push, 1, 0), first(push, 2, b"")

    def response(self, req_id):
        """Code and data of a response; what is pushed meanwhile is kept."""
        while True:
            event, data = self.receive()
            if event != 2:
                self.pushes.append((event, data))
                continue
            body = decode(data)
            check(f"a response to {req_id}", first(body, 1, b"").decode(), req_id)
            return first(body, 3, 0), first(body, 4, b"")

    def ask(self, req_id, method, fields):
        self.send(req_id, method, fields)
        return self.response(req_id)


with urllib.request.urlopen(KEY_URL) as answer:
    rsa = serialization.load_pem_public_key(answer.read())

with connect(URL) as ws:
    check("the greeting", ws.recv(timeout=20), "connected")
    client = Client(ws)
    key_seed, iv_seed = secrets.token_hex(16).encode(), secrets.token_hex(16).encode()
    parameters = {1: "package-2", 2: "linux", 3: "device", 8: "wifi"}
    parameters[9] = rsa.encrypt(key_seed, PKCS1v15())
    parameters[10] = rsa.encrypt(iv_seed, PKCS1v15())
    client.send("params", "/v1/conn/white/setCxnParams", parameters)
    client.keys = Keys(key_seed, iv_seed)
    check("the response is encrypted already", client.response("params"), (0, b""))

    password = hashlib.md5(b"123456").hexdigest()
    code, data = client.ask("login", "/v1/user/white/login", {2: "carol", 3: password})
    token = first(decode(data), 3, b"").decode()
    check("a token", (code, token != ""), (0, True))
    set_user = {1: "carol", 2: token}
    check("logged in", client.ask("user", "/v1/conn/white/setUserParams", set_user), (0, b""))
    code, data = client.ask("friends", "/v1/relation/getFriendList", {2: encode({1: 1, 2: 100})})
    check("the list of friends", code, 0)

    message = encode({1: "c1", 11: "carol", 21: "group:10134", 31: 11, 32: "hello, group"})
    code, _ = client.ask("message", "/v1/msg/sendMsgList", {1: message})
    check("a message is accepted", code, 0)
    event, data = client.pushes.pop(0) if client.pushes else client.receive()
    pushed = decode(decode(data)[1][0])
    check("and comes back to its sender", (event, pushed[32][0]), (0, b"hello, group"))
    code, data = client.ask("unknown", "/v2/no/such", {})
    check("an unknown method", code, 3)
