"""A chat client of the IM protocol, without libraries: python im_client.py USER ROOM"""
import socket, struct, sys, threading
LOGIN, PING, JOIN_CR, CMS, CR_NOTIFY = 1, 3, 5, 7, 8

def field(number, data):  # a field of a protobuf message
    length, out = len(data), bytes([number << 3 | 2])
    while length > 127:
        out, length = out + bytes([length & 127 | 128]), length >> 7
    return out + bytes([length]) + data

def fields(data, at=0):  # all fields of one, as (number, value)
    def varint():
        nonlocal at
        value = shift = 0
        while not shift or data[at - 1] > 127:
            value, shift, at = value | (data[at] & 127) << shift, shift + 7, at + 1
        return value
    while at < len(data):
        key, value = varint(), varint()
        if key & 7 == 2:
            at, value = at + value, data[at:at + value]
        yield key >> 3, value

class Client:
    def __init__(self, host="127.0.0.1", port=6791):
        self.socket, self.seq = socket.create_connection((host, port)), 0
        self.stream = self.socket.makefile("rwb")
    def send(self, command, body=b""):
        self.seq += 1  # length, sequence, command, version 1 and flow 0, status
        self.stream.write(struct.pack(">IIBBB", len(body), self.seq, command, 16, 0) + body)
        self.stream.flush()
    def receive(self):
        length, _, command, _, status = struct.unpack(">IIBBB", self.stream.read(11))
        return command, status, self.stream.read(length)

def messages(body):  # of a CR_NOTIFY: content and sender
    batch = [dict(fields(value)) for number, value in fields(body) if number == 1]
    return [(m.get(1, b"").decode(), m.get(2, b"").decode()) for m in batch]

def listen(client):
    while True:
        command, status, body = client.receive()
        for text, sender in messages(body) if command == CR_NOTIFY else []:
            print(f"{sender or '*'}: {text}")

if __name__ == "__main__":
    client, (user, room) = Client(), [text.encode() for text in sys.argv[1:]]
    client.send(LOGIN, field(1, b"token") + field(2, user))
    client.send(JOIN_CR, field(1, room))
    threading.Thread(target=listen, args=[client], daemon=True).start()
    for line in sys.stdin:  # a real client sends PING when it was silent for 14 s
        client.send(CMS, field(1, line.strip().encode()) + field(3, room))
