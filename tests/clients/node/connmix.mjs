// connmix clients of `ringway demo` with the browser's API: what the rules do alone, and the chat
// with the built-in worker; a test as well.
//
//     node connmix.mjs [ws://127.0.0.1:6790/chat] [http://127.0.0.1:6789]

import { once } from 'node:events';
import { WebSocket } from 'undici';
import { check, done } from './check.mjs';

const url = process.argv[2] ?? 'ws://127.0.0.1:6790/chat';
const api = process.argv[3] ?? 'http://127.0.0.1:6789';

// A connection whose messages can be waited for.
async function open() {
  const ws = new WebSocket(url);
  const messages = [];
  let wake = () => {};
  ws.onmessage = ({ data }) => {
    messages.push(data);
    wake();
  };
  await once(ws, 'open');
  const next = async () => {
    while (messages.length === 0) await new Promise((resolve) => (wake = resolve));
    return messages.shift();
  };
  const json = async () => JSON.parse(await next());
  const ask = (op, ...args) => ws.send(JSON.stringify({ op, args }));
  return { ws, next, json, ask };
}

const ann = await open();
const bob = await open();

ann.ws.send('ping');
check('a text ping', await ann.next(), 'pong');
ann.ws.send('subscribe news');
check('an open channel', await ann.next(), 'subscribed news');
const post = (path, body) =>
  fetch(`${api}${path}`, { method: 'POST', body: JSON.stringify(body) }).then((r) => r.json());
const published = await post('/v1/mesh/publish', { c: 'news', d: 'héllo 😀' });
check('a backend publishes over HTTP', published, { E: null, r: { s: 1, f: 0 } });
check('and the client hears it', await ann.next(), 'héllo 😀');
await post('/v1/mesh/publish', { c: 'news', d: Buffer.from([0, 1, 255]).toString('base64'), t: 'binary' });
const bytes = new Uint8Array(await (await ann.next()).arrayBuffer());
check('binary', [...bytes], [0, 1, 255]);
ann.ws.send('unsubscribe news');
check('out again', await ann.next(), 'unsubscribed news');
ann.ws.send('subscribe everybody');
check('no other channel', 'error' in (await ann.json()), true);

// The login waits for the worker; what follows it is not handled before.
for (const [client, name] of [[ann, 'ann'], [bob, 'bob']]) {
  client.ask('auth', name, 'demo');
  client.ask('subscribe', 'room_7');
  check(`${name} logs in`, await client.json(), { op: 'auth', success: true });
  check(`${name} joins`, await client.json(), { op: 'subscribe', success: true });
}
bob.ask('sendtoroom', 'room_7', 'hi');
const said = { event: 'subscribe', channel: 'room_7', data: 'uid:bob,message:hi' };
check('the other hears it', await ann.json(), said);
check('the sender too', await bob.json(), said);
check('and that it was sent', await bob.json(), { op: 'sendtoroom', success: true });
const long = 'x'.repeat(60_000);
bob.ask('sendtoroom', 'room_7', long);
check('a long message', (await ann.json()).data, `uid:bob,message:${long}`);

ann.ws.send('x'.repeat(65_536));
const [closed] = await once(ann.ws, 'close');
check('a message that is too long', [closed.code, closed.reason], [1009, 'message too big']);
bob.ws.close(1000);
const [left] = await once(bob.ws, 'close');
check('a clean close', [left.code, left.wasClean], [1000, true]);
done();
