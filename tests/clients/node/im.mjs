// Chat rooms of `ringway demo` over WebSocket, with the browser's API; a test as well.
//
//     node im.mjs [ws://127.0.0.1:6701/im]

import { once } from 'node:events';
import WebSocket from 'ws';
import { check, done } from './check.mjs';

const url = process.argv[2] ?? 'ws://127.0.0.1:6701/im';
const [LOGIN, LOGOUT, PING, PONG, JOIN_CR, CMS, CR_NOTIFY] = [1, 2, 3, 4, 5, 7, 8];

// A length-delimited field of a protobuf message; short ones are enough here.
const field = (number, text) => {
  const bytes = Buffer.from(text);
  return Buffer.concat([Buffer.from([(number << 3) | 2, bytes.length]), bytes]);
};

// The fields of a message whose lengths fit into one byte or two.
function fields(bytes) {
  const found = [];
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return Number(value);
    }
  };
  while (at < bytes.length) {
    const key = varint();
    let value = varint();
    if ((key & 7) === 2) {
      value = bytes.subarray(at, (at += value));
    }
    found.push([key >> 3, value]);
  }
  return found;
}

class Client {
  static async open(protocols) {
    const client = new Client();
    client.ws = new WebSocket(url, protocols);
    client.ws.binaryType = 'nodebuffer';
    client.frames = [];
    client.ws.on('message', (data) => {
      client.frames.push(data);
      client.wake?.();
    });
    await once(client.ws, 'open');
    return client;
  }

  frame(command, body = Buffer.alloc(0)) {
    const header = Buffer.alloc(11);
    header.writeUInt32BE(body.length, 0);
    header.writeUInt32BE((this.seq = (this.seq ?? 0) + 1), 4);
    header[8] = command;
    header[9] = 0x10;
    return Buffer.concat([header, body]);
  }

  send(command, body) {
    this.ws.send(this.frame(command, body));
  }

  async receive() {
    while (this.frames.length === 0) await new Promise((resolve) => (this.wake = resolve));
    const frame = this.frames.shift();
    return { command: frame[8], status: frame[10], body: frame.subarray(11) };
  }

  // Status of the next response to this command; notifications in between are skipped.
  async status(command) {
    for (;;) {
      const frame = await this.receive();
      if (frame.command === command) return frame.status;
    }
  }

  // Waits for a message with this content; says who sent it.
  async heard(content) {
    for (;;) {
      const { command, body } = await this.receive();
      if (command !== CR_NOTIFY) continue;
      const messages = fields(body).filter(([number]) => number === 1);
      for (const [, message] of messages) {
        const parts = Object.fromEntries(fields(message));
        if (parts[1].toString() === content) return parts[2]?.toString() ?? '';
      }
    }
  }
}

const ann = await Client.open('im.v1');
check('the sub-protocol is selected', ann.ws.protocol, 'im.v1');
const join = field(1, 'node-room');
const login = Buffer.concat([field(1, 'token'), field(2, 'ann')]);
ann.ws.send(Buffer.concat([ann.frame(LOGIN, login), ann.frame(JOIN_CR, join)]));
check('two frames in one message: login', await ann.status(LOGIN), 0);
check('two frames in one message: join', await ann.status(JOIN_CR), 0);

const bob = await Client.open();
bob.send(LOGIN);
check('a guest logs in', await bob.status(LOGIN), 0);
bob.send(JOIN_CR, join);
check('and joins', await bob.status(JOIN_CR), 0);
ann.send(CMS, Buffer.concat([field(1, 'hello'), field(3, 'node-room')]));
check('a message arrives with its sender', await bob.heard('hello'), 'ann');
ann.send(CMS, Buffer.concat([field(1, '/echo again'), field(3, 'node-room')]));
check('the demo answers commands', await ann.heard('again'), '');
bob.send(PING);
check('ping and pong', await bob.status(PONG), 0);
bob.ws.send('text');
check('text ends with 1003', (await once(bob.ws, 'close'))[0], 1003);
ann.send(LOGOUT);
check('logout ends with 1000', (await once(ann.ws, 'close'))[0], 1000);
done();
