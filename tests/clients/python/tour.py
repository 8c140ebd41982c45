"""A newcomer's tour of `ringway demo`, which is a test as well.

    python tour.py [ws://127.0.0.1:6060/netsvr]
"""

import json
import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

URL = sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:6060/netsvr"
WAIT = 10


class Client:
    """A connection to the demo business process."""

    def __init__(self, ws):
        self.ws = ws
        self.opened = self.receive(1)
        self.uniq_id = self.opened["uniqId"]

    def request(self, cmd, **parameters):
        self.ws.send(json.dumps({"cmd": cmd, "data": json.dumps(parameters)}))

    def text(self):
        return self.ws.recv(timeout=WAIT)

    def receive(self, cmd, code=0):
        reply = json.loads(self.text())
        assert (reply["cmd"], reply["data"]["code"]) == (cmd, code), reply
        return reply["data"]["data"] if code == 0 else reply["data"]["message"]


def check(name, got, want):
    if got != want:
        sys.exit(f"FAIL {name}: expected {want!r}, got {got!r}")
    print(f"ok   {name}")


def tour(ann, bob):
    check("cmd 1 tells the connection who it is", len(ann.uniq_id), 28)
    check("the query string reaches the business", ann.opened["rawQuery"], "token=1")

    ann.ws.send("hello, gateway")
    check("plain text comes back", ann.text(), "hello, gateway")

    ann.request(13, name="ann", password="demo")
    check("sign in", ann.receive(13)["id"], "ann")
    ann.request(13, name="ann", password="wrong")
    check("a wrong password is refused", "wrong password" in ann.receive(13, code=1), True)

    for client in ann, bob:
        client.request(28, topics=["news"])
        client.receive(28)
    ann.request(36, topics=["news"], message="hello, news")
    published = {"fromUser": "ann", "message": "hello, news"}
    check("a publish reaches bob", bob.receive(36), published)
    check("and ann, who is subscribed too", ann.receive(36), published)

    bob.request(21, customerId="ann", message="hello, ann")
    check("a message to a user", ann.receive(21)["message"], "hello, ann")
    bob.request(31, topics=["news"])
    check("members of the topic", bob.receive(31), {"news": 2})

    extensions = [extension.name for extension in ann.ws.protocol.extensions]
    check("compression is on", extensions, ["permessage-deflate"])
    long = "compress me " * 1000
    ann.ws.send(long)
    check("a long text, compressed both ways", ann.text(), long)
    ann.ws.send(["in ", "three ", "fragments"])
    check("a fragmented message", ann.text(), "in three fragments")
    check("ping and pong", ann.ws.ping("are you there?").wait(WAIT), True)

    bob.request(19, uniqId=ann.uniq_id)
    ann.receive(2)
    try:
        check("forced offline", ann.text(), "a close frame")
    except ConnectionClosed as closed:
        check("forced offline", (closed.rcvd.code, closed.rcvd.reason), (1008, "forceOffline"))

    bob.ws.close(4000, "bye")
    check("a close frame is echoed", (bob.ws.close_code, bob.ws.close_reason), (4000, "bye"))


with connect(URL + "?token=1") as first, connect(URL) as second:
    tour(Client(first), Client(second))
