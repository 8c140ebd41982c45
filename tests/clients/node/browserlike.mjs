// What browsers do and simple clients do not: sub-protocols, a query string, an Origin, cookies,
// `Connection: keep-alive, Upgrade` (Firefox), the WebSocket API itself (undici's, which Node has
// built in from version 22).
//
//     node browserlike.mjs [ws://127.0.0.1:6060/netsvr]

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { connect } from 'node:net';
import { WebSocket } from 'undici';
import { check, done } from './check.mjs';

const url = new URL(process.argv[2] ?? 'ws://127.0.0.1:6060/netsvr');

await theWebSocketApi();
await theHeadersOfFirefox();
await pagesThatAreNotWebSockets();
done();

async function theWebSocketApi() {
  const ws = new WebSocket(`${url}?room=a%20b&token=1`, ['chat', 'json']);
  const messages = [];
  let wake = () => {};
  ws.onmessage = ({ data }) => {
    messages.push(data);
    wake();
  };
  const next = async () => {
    while (messages.length === 0) await new Promise((resolve) => (wake = resolve));
    return messages.shift();
  };
  const opened = JSON.parse(await next());
  check('the first offered sub-protocol is chosen', ws.protocol, 'chat');
  check('the query string arrives as it is', opened.data.data.rawQuery, 'room=a%20b&token=1');
  const text = 'é€😀 '.repeat(1000);
  ws.send(text);
  check('a long text of several scripts', await next(), text);
  ws.close(3000, 'leaving the page');
  const [closed] = await once(ws, 'close');
  const goodbye = [closed.code, closed.reason, closed.wasClean];
  check('a clean close', goodbye, [3000, 'leaving the page', true]);
}

async function theHeadersOfFirefox() {
  const key = 'dGhlIHNhbXBsZSBub25jZQ==';
  const head = [
    `GET ${url.pathname}?tab=1 HTTP/1.1`,
    `Host: ${url.host}`,
    'User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0',
    'Accept: */*',
    'Accept-Language: en-US,en;q=0.5',
    'Accept-Encoding: gzip, deflate, br, zstd',
    'Sec-WebSocket-Version: 13',
    'Origin: http://localhost:8080',
    `Sec-WebSocket-Key: ${key}`,
    'Connection: keep-alive, Upgrade',
    'Cookie: session=abc; theme=dark',
    'Sec-Fetch-Mode: websocket',
    'Pragma: no-cache',
    'Cache-Control: no-cache',
    'Upgrade: websocket',
  ];
  const socket = connect(Number(url.port || 80), url.hostname);
  // The first message travels in the same segment as the request.
  const mask = [1, 2, 3, 4];
  const payload = [...Buffer.from('hello')].map((byte, i) => byte ^ mask[i % 4]);
  const message = Buffer.from([0x81, 0x80 | payload.length, ...mask, ...payload]);
  socket.write(Buffer.concat([Buffer.from(`${head.join('\r\n')}\r\n\r\n`), message]));
  const answer = await readUntil(socket, 'hello');
  check('101', answer.split('\r\n')[0], 'HTTP/1.1 101 Switching Protocols');
  const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`);
  const expected = `sec-websocket-accept: ${accept.digest('base64')}`.toLowerCase();
  check('Sec-WebSocket-Accept', answer.toLowerCase().includes(`\r\n${expected}\r\n`), true);
  check('the query string', answer.includes('"rawQuery":"tab=1"'), true);
  check('the echo of the message that came with the request', answer.endsWith('hello'), true);
  socket.destroy();
}

async function pagesThatAreNotWebSockets() {
  const page = await fetch(`http://${url.host}/`);
  check('a plain GET is a health check', [page.status, await page.text()], [200, 'Hello netsvr']);
  const socket = connect(Number(url.port || 80), url.hostname);
  const head = ['GET /nowhere HTTP/1.1', 'Host: x', 'Upgrade: websocket', 'Connection: Upgrade'];
  socket.write(`${head.join('\r\n')}\r\n\r\n`);
  const answer = await readUntil(socket, 'Not Found\r\n');
  check('another path is not found', answer.startsWith('HTTP/1.1 404 Not Found\r\n'), true);
  socket.destroy();
}

async function readUntil(socket, end) {
  let received = '';
  for await (const chunk of socket) {
    received += chunk.toString('latin1');
    if (received.includes(end)) break;
  }
  return received;
}
