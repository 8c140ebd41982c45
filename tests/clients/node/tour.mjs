// A newcomer's tour of `ringway demo`, which is a test as well.
//
//     node tour.mjs [ws://127.0.0.1:6060/netsvr]

import { on, once } from 'node:events';
import WebSocket from 'ws';
import { check, done } from './check.mjs';

const url = process.argv[2] ?? 'ws://127.0.0.1:6060/netsvr';

// A connection to the demo business process.
class Client {
  static async open(query = '') {
    const client = new Client();
    client.ws = new WebSocket(url + query);
    client.messages = on(client.ws, 'message');
    client.opened = await client.receive(1);
    client.uniqId = client.opened.uniqId;
    return client;
  }

  request(cmd, parameters) {
    this.ws.send(JSON.stringify({ cmd, data: JSON.stringify(parameters) }));
  }

  async text() {
    const { value } = await this.messages.next();
    return value[0].toString();
  }

  async receive(cmd, code = 0) {
    const reply = JSON.parse(await this.text());
    if (reply.cmd !== cmd || reply.data.code !== code) {
      throw new Error(`expected cmd ${cmd}, code ${code}, got ${JSON.stringify(reply)}`);
    }
    return code === 0 ? reply.data.data : reply.data.message;
  }
}

const ann = await Client.open('?token=1');
const bob = await Client.open();
check('cmd 1 tells the connection who it is', ann.uniqId.length, 28);
check('the query string reaches the business', ann.opened.rawQuery, 'token=1');

ann.ws.send('hello, gateway');
check('plain text comes back', await ann.text(), 'hello, gateway');

ann.request(13, { name: 'ann', password: 'demo' });
check('sign in', (await ann.receive(13)).id, 'ann');
ann.request(28, { topics: 'news' });
check('a wrong request is explained', (await ann.receive(28, 1)).includes('invalid type'), true);

ann.request(28, { topics: ['news'] });
bob.request(28, { topics: ['news'] });
await ann.receive(28);
await bob.receive(28);
ann.request(36, { topics: ['news'], message: 'hello, news' });
const published = { fromUser: 'ann', message: 'hello, news' };
check('a publish reaches bob', await bob.receive(36), published);
check('and ann, who is subscribed too', await ann.receive(36), published);

bob.request(5, {});
const { uniqIds } = await bob.receive(5);
check('who is online', [ann, bob].every((client) => uniqIds.includes(client.uniqId)), true);

check('compression is on', ann.ws.extensions.includes('permessage-deflate'), true);
const text = 'compress me '.repeat(1000);
ann.ws.send(text);
check('a long text, compressed both ways', await ann.text(), text);
for (const part of ['in ', 'three ']) ann.ws.send(part, { fin: false });
ann.ws.send('fragments');
check('a fragmented message', await ann.text(), 'in three fragments');
const bytes = Buffer.from([0, 0xc3, 0xa9, 10]);
ann.ws.send(bytes);
check('binary comes back', Buffer.from(await ann.text()), bytes);
ann.ws.ping('are you there?');
check('ping and pong', String((await once(ann.ws, 'pong'))[0]), 'are you there?');

bob.request(19, { uniqId: ann.uniqId });
const offline = once(ann.ws, 'close');
await ann.receive(2);
const [code, reason] = await offline;
check('forced offline', [code, String(reason)], [1008, 'forceOffline']);

bob.ws.close(4000, 'bye');
const [echoedCode, echoedReason] = await once(bob.ws, 'close');
check('a close frame is echoed', [echoedCode, String(echoedReason)], [4000, 'bye']);
done();
