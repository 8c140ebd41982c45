"""Chat rooms of `ringway demo` over TCP, with the client of the README; a test as well.

    python im_tour.py [127.0.0.1:6791]
"""

import sys

from im_client import CMS, CR_NOTIFY, JOIN_CR, LOGIN, PING, Client, field, messages

LOGOUT, PONG, LEAVE_CR = 2, 4, 6
ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:6791"
HOST, PORT = ADDRESS.rsplit(":", 1)
WAIT = 10


def check(name, got, want):
    if got != want:
        sys.exit(f"FAIL {name}: expected {want!r}, got {got!r}")
    print(f"ok   {name}")


class Member(Client):
    """A client that keeps notifications until somebody asks for them."""

    def __init__(self):
        super().__init__(HOST, int(PORT))
        self.socket.settimeout(WAIT)
        self.heard = []

    def ask(self, command, body=b""):
        self.send(command, body)
        while True:
            answer, status, body = self.receive()
            if answer != CR_NOTIFY:
                return answer, status
            self.heard += messages(body)

    def login(self, user):
        return self.ask(LOGIN, field(1, b"token") + field(2, user.encode()))

    def join(self, room):
        return self.ask(JOIN_CR, field(1, room.encode()))

    def say(self, room, text):
        self.send(CMS, field(1, text.encode()) + field(3, room.encode()))

    def next(self):
        while not self.heard:
            command, _, body = self.receive()
            assert command == CR_NOTIFY, command
            self.heard += messages(body)
        return self.heard.pop(0)

    def until(self, wanted):
        """Skips what others cause, such as announcements."""
        while (message := self.next()) != wanted:
            pass
        return message


def tour():
    ann, bob, guest = Member(), Member(), Member()
    check("a guest logs in without a body", guest.ask(LOGIN), (LOGIN, 0))
    check("a user logs in", ann.login("ann"), (LOGIN, 0))
    check("another user logs in", bob.login("bob"), (LOGIN, 0))
    check("a second login is refused", bob.login("eve"), (LOGIN, 0x12))
    check("a ping is answered", guest.ask(PING), (PONG, 0))
    check("an unknown command is refused", guest.ask(99), (99, 5))

    check("a guest joins a room", guest.join("lobby"), (JOIN_CR, 0))
    check("a user joins it", ann.join("lobby"), (JOIN_CR, 0))
    welcome = "Welcome, ann! Say /help to see what I can do."
    check("the demo greets in the lobby", guest.until((welcome, "")), (welcome, ""))
    check("another user joins", bob.join("lobby"), (JOIN_CR, 0))

    ann.say("lobby", "hello, all")
    check("members hear it", bob.until(("hello, all", "ann")), ("hello, all", "ann"))
    check("guests hear it, too", guest.until(("hello, all", "ann")), ("hello, all", "ann"))
    ann.say("lobby", "/echo one two")
    check("commands are answered", ann.until(("one two", "")), ("one two", ""))

    check("bob leaves", bob.ask(LEAVE_CR, field(1, b"lobby")), (LEAVE_CR, 0))
    bob.heard.clear()
    ann.say("lobby", "is bob gone?")
    guest.until(("is bob gone?", "ann"))
    check("who left hears nothing", (bob.ask(PING), bob.heard), ((PONG, 0), []))
    ann.send(LOGOUT)
    check("logout ends the connection", ann.stream.read(1), b"")


tour()
