/** Who may have a gateway spend: programs of this machine, holders of the key, and no web page. */
import { createServer, request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import t, { type Test } from 'tap';
import { Door, type DoorOptions, demandJson } from '../../rpc/gateway/door.ts';
import { ApiError } from '../../rpc/gateway/openai.ts';

async function serve(test: Test, options: Partial<DoorOptions> = {}) {
  const door = new Door({ host: '127.0.0.1', apiKey: undefined, ...options });
  const server = createServer((request, response) => {
    try {
      if (door.greet(request, response)) return;
      const spends = request.method === 'POST';
      door.admit(request, spends);
      if (spends) demandJson(request);
      response.writeHead(200).end();
    } catch (problem) {
      if (!(problem instanceof ApiError)) throw problem;
      response.writeHead(problem.status).end(problem.code);
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  test.teardown(() => server.close());
  const { port } = server.address() as AddressInfo;
  return (headers: Record<string, string>, method = 'POST') =>
    new Promise<{ readonly status: number; readonly body: string; readonly allowed: string | undefined }>((resolve) => {
      const sent = httpRequest({ host: '127.0.0.1', port, path: '/', method, headers }, (response) => {
        let body = '';
        response.on('data', (chunk) => {
          body += chunk;
        });
        const allowed = response.headers['access-control-allow-origin'];
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body, allowed }));
      });
      sent.end();
    });
}

const JSON_TYPE = { 'content-type': 'application/json' };
const KEY = { authorization: 'Bearer k' };
/** What browsers send by themselves, and what pages make them send. */
const PAGES: readonly Record<string, string>[] = [
  { 'content-type': 'text/plain;charset=UTF-8', origin: 'https://evil.example', 'sec-fetch-site': 'cross-site' },
  { ...JSON_TYPE, origin: 'https://evil.example' },
  { ...JSON_TYPE, origin: 'null' },
  { ...JSON_TYPE, origin: 'http://localhost:3000' },
  { ...JSON_TYPE, origin: 'http://127.0.0.1' },
  { ...JSON_TYPE, 'sec-fetch-site': 'same-origin' },
  { ...JSON_TYPE, 'sec-fetch-site': 'none' },
  { ...JSON_TYPE, host: 'rebound.example' },
  { ...JSON_TYPE, host: 'rebound.example:8080', origin: 'http://rebound.example:8080' },
  { ...JSON_TYPE, host: 'localhost.evil.example' },
  { ...JSON_TYPE, host: '127.0.0.1.evil.example' },
  { 'content-type': 'application/x-www-form-urlencoded' },
  { 'content-type': 'multipart/form-data; boundary=x' },
  { 'content-type': 'text/plain; application/json' },
  { 'content-type': 'application/jsonp' },
  {},
];

t.test('without a key: programs of this machine alone', async (test) => {
  const ask = await serve(test);
  test.equal((await ask(JSON_TYPE)).status, 200);
  test.equal((await ask({ 'content-type': 'application/json; charset=utf-8', host: 'localhost:1' })).status, 200);
  for (const page of PAGES) test.match((await ask(page)).status, /^4/, JSON.stringify(page));
  test.equal((await ask({ ...JSON_TYPE, 'x-forwarded-for': '10.0.0.1' })).status, 401, 'through a proxy');
  test.equal((await ask({ ...JSON_TYPE, via: '1.1 proxy' })).status, 401);
});

t.test('with a key: whoever has it, and reading for programs of this machine', async (test) => {
  const ask = await serve(test, { apiKey: 'k' });
  test.equal((await ask({ ...JSON_TYPE, ...KEY })).status, 200);
  for (const wrong of ['Bearer', 'Bearer kk', 'bearer k', 'k', '']) {
    test.equal((await ask({ ...JSON_TYPE, authorization: wrong })).status, 401, wrong);
  }
  test.equal((await ask(JSON_TYPE)).status, 401);
  for (const page of PAGES) test.match((await ask(page)).status, /^4/, JSON.stringify(page));
  test.equal((await ask({}, 'GET')).status, 200);
  test.equal((await ask({ 'sec-fetch-site': 'cross-site' }, 'GET')).status, 401, 'an image on a page is no program');
  test.equal((await ask({ ...JSON_TYPE, ...KEY, origin: 'https://evil.example' })).status, 403);
  test.equal((await ask({ ...KEY, 'content-type': 'text/plain' })).status, 415);
});

t.test('pages that are named may ask, with the key', async (test) => {
  const ask = await serve(test, { apiKey: 'k', origins: ['https://app.example'], hosts: ['ai.example'] });
  const app = { ...JSON_TYPE, origin: 'https://app.example' };
  test.equal((await ask(app)).status, 401);
  const answer = await ask({ ...app, ...KEY, host: 'ai.example' });
  test.same([answer.status, answer.allowed], [200, 'https://app.example']);
  const preflight = await ask({ origin: 'https://app.example' }, 'OPTIONS');
  test.same([preflight.status, preflight.allowed], [204, 'https://app.example']);
  test.same((await ask({ origin: 'https://evil.example' }, 'OPTIONS')).allowed, undefined);
});

t.test('an open door without a key is no door', (test) => {
  for (const options of [
    { host: '0.0.0.0' },
    { host: '192.168.1.5' },
    { origins: ['https://a.b'] },
    { hosts: ['a.b'] },
  ]) {
    test.throws(() => new Door({ host: '127.0.0.1', apiKey: undefined, ...options }), { code: 'KEY_NEEDED' });
  }
  test.end();
});
