// xxim clients of `ringway demo` from Node: document 2 with encryption, document 1 without.
//
//     node xxim.mjs [ws://127.0.0.1:6701/ws] [http://127.0.0.1:9464/demo/xxim.pub.pem]

import { constants, createCipheriv, createDecipheriv, createHash, publicEncrypt, randomBytes }
  from 'node:crypto';
import { on } from 'node:events';
import WebSocket from 'ws';
import { check, done } from './check.mjs';

const url = process.argv[2] ?? 'ws://127.0.0.1:6701/ws';
const keyUrl = process.argv[3] ?? 'http://127.0.0.1:9464/demo/xxim.pub.pem';

// Protobuf, as much of it as xxim's envelope needs: fields with a length, and numbers.
function varint(number) {
  const bytes = [];
  for (; number > 127; number = Math.floor(number / 128)) bytes.push((number % 128) + 128);
  return Buffer.from([...bytes, number]);
}

function encode(fields) {
  const parts = [];
  for (const [tag, value] of Object.entries(fields)) {
    if (typeof value === 'number') {
      if (value !== 0) parts.push(varint(tag * 8), varint(value));
      continue;
    }
    for (const element of Array.isArray(value) ? value : [value]) {
      const bytes = Buffer.from(element);
      parts.push(varint(tag * 8 + 2), varint(bytes.length), bytes);
    }
  }
  return Buffer.concat(parts);
}

function decode(bytes) {
  const fields = {};
  let at = 0;
  const number = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      value += (byte % 128) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = number();
    let value = number();
    if (key % 8 === 2) {
      const end = at + value;
      value = bytes.subarray(at, end);
      at = end;
    }
    (fields[Math.floor(key / 8)] ??= []).push(value);
  }
  return fields;
}

const first = (fields, tag) => fields[tag]?.[0];
const text = (fields, tag) => first(fields, tag)?.toString() ?? '';
const md5 = (data) => createHash('md5').update(data).digest('hex');

class Client {
  static async open() {
    const client = new Client();
    client.ws = new WebSocket(url);
    client.messages = on(client.ws, 'message');
    client.pushes = [];
    const [greeting, binary] = (await client.messages.next()).value;
    check('the greeting', [greeting.toString(), binary], ['connected', false]);
    return client;
  }

  // From here on everything is encrypted, in both directions.
  useKeys(keySeed, ivSeed) {
    const key = Buffer.from(md5(keySeed));
    const iv = Buffer.from(md5(ivSeed).slice(8, 24));
    const whole = (cipher, data) => Buffer.concat([cipher.update(data), cipher.final()]);
    this.seal = (data) => whole(createCipheriv('aes-256-cbc', key, iv), data);
    this.unseal = (data) => whole(createDecipheriv('aes-256-cbc', key, iv), data);
  }

  send(reqId, method, data) {
    const body = encode({ 1: reqId, 2: method, 3: data });
    this.ws.send(this.seal ? this.seal(body) : body);
  }

  // The next PushBody: { event, data }.
  async receive() {
    const [data] = (await this.messages.next()).value;
    const push = decode(this.unseal ? this.unseal(data) : data);
    return { event: first(push, 1) ?? 0, data: first(push, 2) ?? Buffer.alloc(0) };
  }

  // The response to a request; what is pushed meanwhile is kept.
  async response(reqId) {
    for (;;) {
      const { event, data } = await this.receive();
      if (event !== 2) {
        this.pushes.push({ event, data });
        continue;
      }
      const body = decode(data);
      if (text(body, 1) !== reqId) throw new Error(`a response to ${text(body, 1)}`);
      return { code: first(body, 3) ?? 0, data: first(body, 4) ?? Buffer.alloc(0) };
    }
  }

  async ask(reqId, method, fields) {
    this.send(reqId, method, encode(fields));
    return this.response(reqId);
  }

  async logIn(user, setUser) {
    const login = { 2: user, 3: md5('123456') };
    const answer = await this.ask('login', '/v1/user/white/login', login);
    check(`${user} gets a token`, answer.code, 0);
    const token = text(decode(answer.data), 3);
    check(`${user} is logged in`, (await this.ask('user', setUser, { 1: user, 2: token })).code, 0);
  }

  async push() {
    if (this.pushes.length > 0) return this.pushes.shift();
    const push = await this.receive();
    return push;
  }
}

// Document 2 with keys.
const pem = await (await fetch(keyUrl)).text();
const rsa = { key: pem, padding: constants.RSA_PKCS1_PADDING };
const [keySeed, ivSeed] = [randomBytes(16).toString('hex'), randomBytes(16).toString('hex')];
const ann = await Client.open();
const friends = '/v1/relation/getFriendList';
check('nobody is let in without login', (await ann.ask('f', friends, {})).code, 4);
const parameters = {
  1: 'package-1', 2: 'web', 3: 'device', 8: 'wifi',
  9: publicEncrypt(rsa, Buffer.from(keySeed)),
  10: publicEncrypt(rsa, Buffer.from(ivSeed)),
};
ann.send('params', '/v1/conn/white/setCxnParams', encode(parameters));
ann.useKeys(keySeed, ivSeed);
check('the response is encrypted already', (await ann.response('params')).code, 0);
await ann.logIn('ann', '/v1/conn/white/setUserParams');

// Document 1 without.
const bob = await Client.open();
const cxnParams = encode({ 1: 'ios', 2: 'dev-1', 3: 'phone', 7: 'wifi' });
check('parameters of document 1',
  (await bob.ask('params', '/v1/conn/setCxnParams', { 1: cxnParams })).code, 0);
await bob.logIn('bob', '/v1/conn/setUserParams');

const list = await ann.ask('friends', friends, { 2: encode({ 1: 1, 2: 999999 }) });
check('ann sees bob', decode(list.data)[2].map(String).includes('bob'), true);

// A message of ann reaches both, encrypted for her, plain for him.
const message = encode({ 1: 'c1', 11: 'ann', 21: 'single:ann-bob', 31: 11, 32: 'hello, bob' });
check('a message is accepted', (await ann.ask('m', '/v1/msg/sendMsgList', { 1: message })).code, 0);
for (const [name, client] of [['ann', ann], ['bob', bob]]) {
  const { event, data } = await client.push();
  const pushed = decode(first(decode(data), 1));
  check(`${name} gets it`, [event, text(pushed, 32), text(pushed, 33)], [0, 'hello, bob', '1']);
}
check('the layout of document 1 is understood',
  (await bob.ask('m', '/v1/msg/sendMsgList', { 2: message })).code, 0);
check('keep-alive', (await ann.ask('k', '/v1/conn/keepAlive', {})).code, 0);

// The same device again: the first connection is displaced.
const closed = new Promise((resolve) => {
  bob.ws.once('close', (code, reason) => resolve([code, reason.toString()]));
});
const again = await Client.open();
await again.ask('params', '/v1/conn/setCxnParams', { 1: cxnParams });
await again.logIn('bob', '/v1/conn/setUserParams');
check('the device logs in again', await closed, [1000, 'duplicate connection']);
ann.ws.close();
again.ws.close();
done();
