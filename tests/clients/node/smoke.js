#!/usr/bin/env node
// Exercises a lastword node from Node.js, knowing nothing of it but proto/.
//
//   smoke.js ADDRESS [SECOND_ADDRESS] [--sequence OFFSET/INCREMENT]
//
// ADDRESS is host:port of a node; SECOND_ADDRESS of one that exchanges with it: what is written at
// the first is then read, with the session, at the second. --sequence names the settings of the
// first node; without it, a node that has none may say so. Prints one line for each check, and
// exits 1 after the first that fails.
'use strict';

const assert = require('node:assert/strict');
const { randomBytes } = require('node:crypto');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const PROTO_DIR = path.join(__dirname, '..', '..', '..', 'proto');
const CALL_TIMEOUT_MS = 10_000;
// How long the second site may take to hold what the first has acknowledged.
const REPLICATION_TIMEOUT_MS = 30_000;
const POLL_MS = 20;
const KEY_BYTES_MAX = 512;
const VALUE_BYTES_MAX = 1 << 20;
const KEYS_MAX = 1_000;
const MUTATIONS_MAX = 1_000;
const ROW_COUNT = 30;
const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const { INVALID_ARGUMENT, FAILED_PRECONDITION, UNAVAILABLE } = grpc.status;

const definition = protoLoader.loadSync(
  ['lastword/v1/key_value.proto', 'lastword/v1/admin.proto', path.join(__dirname, 'health.proto')],
  // 64-bit numbers as decimal text: a stamp does not fit a JavaScript number.
  { includeDirs: [PROTO_DIR], keepCase: true, longs: String, enums: String, defaults: true },
);
const proto = grpc.loadPackageDefinition(definition);

function parseArguments(words) {
  const options = { addresses: [], sequence: null };
  for (let i = 0; i < words.length; i += 1) {
    if (words[i] === '--sequence') {
      options.sequence = (words[(i += 1)] ?? '').split('/').map(BigInt);
    } else {
      options.addresses.push(words[i]);
    }
  }
  const sequenceFits = options.sequence === null || options.sequence.length === 2;
  if (options.addresses.length < 1 || options.addresses.length > 2 || !sequenceFits) {
    console.error('usage: smoke.js ADDRESS [SECOND_ADDRESS] [--sequence OFFSET/INCREMENT]');
    process.exit(2);
  }
  return options;
}

const options = parseArguments(process.argv.slice(2));
const [address, secondAddress] = options.addresses;
const credentials = grpc.credentials.createInsecure();
const kv = new proto.lastword.v1.KeyValueService(address, credentials);
const admin = new proto.lastword.v1.AdminService(address, credentials);
const health = new proto.grpc.health.v1.Health(address, credentials);
const second = secondAddress && new proto.lastword.v1.KeyValueService(secondAddress, credentials);
// A table of its own, so that the checks hold on a node that is in use.
const table = `smoke_node_${randomBytes(4).toString('hex')}`;

const deadline = () => ({ deadline: Date.now() + CALL_TIMEOUT_MS });

// One answer to one request.
function call(client, method, request) {
  return new Promise((resolve, reject) => {
    client[method](request, deadline(), (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

// The rows of a scan; every message names the same snapshot.
async function scan(fields) {
  const rows = [];
  let session = null;
  for await (const answer of kv.scan({ table, ...fields }, deadline())) {
    session ??= answer.session;
    assert.deepEqual(answer.session, session, 'session of one scan');
    rows.push(...answer.rows);
  }
  return rows;
}

const bytes = (text) => Buffer.from(text);
const texts = (rows) => rows.map((row) => row.key.toString());
const put = (key, value, more) => call(kv, 'put', { table, key: bytes(key), value: bytes(value), ...more });
const get = (key, session, client = kv) => call(client, 'get', { table, key: bytes(key), session });
const insert = (fields) => call(kv, 'insert', { table, ...fields });

// Asserts that the attempt is refused as invalid, with a message that holds these words.
async function refused(attempt, ...words) {
  let answer;
  try {
    answer = await attempt;
  } catch (error) {
    if (error.code === undefined) throw error;
    assert.equal(error.code, INVALID_ARGUMENT, `status code (message: ${error.details})`);
    for (const word of words) {
      assert.ok(error.details.includes(word), `${word} in the message: ${error.details}`);
    }
    return;
  }
  assert.fail(`expected INVALID_ARGUMENT (${words}), got the answer ${JSON.stringify(answer)}`);
}

// Repeats attempt() until it answers something other than null; bounded.
async function until(attempt, what) {
  const end = Date.now() + REPLICATION_TIMEOUT_MS;
  while (Date.now() < end) {
    const answer = await attempt();
    if (answer !== null) return answer;
    await sleep(POLL_MS);
  }
  return assert.fail(`${what}: not within ${REPLICATION_TIMEOUT_MS} ms`);
}

// Each check may answer why it was skipped.
const checks = {
  async health() {
    for (const service of ['', 'lastword.v1.KeyValueService']) {
      assert.equal((await call(health, 'check', { service })).status, 'SERVING', service);
    }
  },

  async 'put and get'() {
    const first = await put('one', '1');
    assert.equal(first.version.origin.length, 16, 'bytes of the origin');
    const ageMs = Date.now() - Number(BigInt(first.version.hlc) >> 16n);
    assert.ok(Math.abs(ageMs) < 60_000, `stamp within 60 s of the clock, got ${ageMs} ms`);
    assert.ok(first.session.length > 0, 'a session');
    const { row } = await get('one');
    assert.deepEqual([row.table, row.key, row.value], [table, bytes('one'), bytes('1')]);
    assert.deepEqual(row.version, first.version, 'version read');
    assert.equal(row.expire_time, null, 'no expire_time without a ttl');
    const replacement = Buffer.alloc(200, Buffer.from([0x00, 0xff]));
    const next = await put('one', replacement);
    assert.ok(BigInt(next.version.hlc) > BigInt(first.version.hlc), 'a later write, a greater stamp');
    assert.deepEqual((await get('one', next.session)).row.value, replacement);
    assert.equal((await get('absent')).row ?? null, null, 'no row for an absent key');
  },

  async 'limits are included'() {
    const key = 'k'.repeat(KEY_BYTES_MAX);
    const value = Buffer.alloc(VALUE_BYTES_MAX, 'v');
    await put(key, value);
    assert.ok((await get(key)).row.value.equals(value), 'the largest value, the longest key');
    await put('empty', '');
    assert.equal((await get('empty')).row.value.length, 0, 'a row with an empty value');
  },

  async 'get many'() {
    await put('many-1', 'a');
    await put('many-2', 'b');
    const keys = ['many-2', 'many-0', 'many-1', 'many-2'];
    const { rows } = await call(kv, 'getMany', { table, keys: keys.map(bytes) });
    assert.deepEqual(texts(rows), keys, 'keys in the order asked');
    const values = rows.map(({ row }) => row?.value.toString() ?? null);
    assert.deepEqual(values, ['b', null, 'a', 'b'], 'values, null: absent');
  },

  async ttl() {
    const beforeS = Date.now() / 1000;
    await put('hour', 'x', { ttl: { seconds: 3600 } });
    const expiresS = Number((await get('hour')).row.expire_time.seconds);
    assert.ok(Math.abs(expiresS - beforeS - 3600) < 60, `in an hour: ${expiresS - beforeS} s`);
    await put('moment', 'x', { ttl: { nanos: 300_000_000 } });
    await until(async () => ((await get('moment')).row ? null : true), 'expiry after 300 ms');
    assert.deepEqual(await scan({ prefix: bytes('moment') }), [], 'expired rows in a scan');
  },

  async delete() {
    await put('gone', 'x');
    const first = await call(kv, 'delete', { table, key: bytes('gone') });
    assert.equal(first.existed, true, 'existed, the first time');
    assert.equal((await get('gone', first.session)).row ?? null, null, 'no row after the delete');
    const again = await call(kv, 'delete', { table, key: bytes('gone') });
    assert.equal(again.existed, false, 'not existed, the second time');
  },

  async 'insert uuid'() {
    const keys = [];
    for (const id_kind of ['ID_KIND_UNSPECIFIED', 'ID_KIND_UUID_V7']) {
      const { key } = await insert({ value: bytes('u'), id_kind });
      assert.match(key.toString(), UUID_V7);
      assert.equal((await get(key)).row.value.toString(), 'u');
      keys.push(key.toString());
    }
    assert.ok(keys[0] < keys[1], `UUIDs in the order of their making: ${keys}`);
  },

  async 'insert sequence'() {
    const attempt = async () => {
      try {
        return (await insert({ value: bytes('s'), id_kind: 'ID_KIND_SEQUENCE' })).key.toString();
      } catch (error) {
        if (error.code === UNAVAILABLE) return null; // The node does not own its offset yet.
        if (error.code === FAILED_PRECONDITION && !options.sequence) return '';
        throw error;
      }
    };
    const keys = [];
    for (let i = 0; i < 3; i += 1) keys.push(await until(attempt, 'sequence ids'));
    if (keys[0] === '') return 'not configured';
    const numbers = keys.map(BigInt);
    assert.deepEqual(numbers.map(String), keys, 'decimal text');
    assert.ok(numbers[0] < numbers[1] && numbers[1] < numbers[2], `ascending: ${keys}`);
    if (options.sequence) {
      const [offset, increment] = options.sequence;
      for (const number of numbers) assert.equal(number % increment, offset % increment, `${number}`);
    }
    assert.equal((await get(keys[2])).row.value.toString(), 's');
    return null;
  },

  async batch() {
    await put('batch-old', 'x');
    const mutations = [
      { put: { table, key: bytes('batch'), value: bytes('1') } },
      { delete: { table, key: bytes('batch-old') } },
      { insert: { table, value: bytes('3') } },
      { put: { table, key: bytes('batch'), value: bytes('4') } },
    ];
    const { results, session } = await call(kv, 'batch', { mutations });
    assert.equal(results.length, mutations.length);
    const inserted = results[2].key.toString();
    assert.deepEqual(texts(results), ['batch', 'batch-old', inserted, 'batch']);
    assert.equal(results[1].existed, true, 'existed, of the delete');
    assert.match(inserted, UUID_V7);
    assert.equal((await get('batch', session)).row.value.toString(), '4', 'the later mutation wins');
    assert.equal((await get('batch-old')).row ?? null, null, 'no row after the delete');
    assert.equal((await get(inserted)).row.value.toString(), '3');
  },

  async 'batch is atomic'() {
    const good = { put: { table, key: bytes('atom'), value: bytes('x') } };
    const bad = { put: { table, key: bytes(''), value: bytes('x') } };
    await refused(call(kv, 'batch', { mutations: [good, bad] }), 'key');
    assert.equal((await get('atom')).row ?? null, null, 'nothing of a refused batch is written');
  },

  async 'bulk write'() {
    const answers = await new Promise((resolve, reject) => {
      const received = [];
      const stream = kv.bulkWrite(deadline());
      stream.on('data', (answer) => received.push(answer));
      stream.on('error', reject);
      stream.on('end', () => resolve(received));
      for (let n = 0; n < 500; n += 1) {
        const key = n === 100 ? '' : `bulk-${n % 50}`;
        stream.write({ mutations: [{ put: { table, key: bytes(key), value: bytes(String(n)) } }] });
      }
      stream.end();
    });
    assert.equal(answers.length, 500);
    assert.equal(answers[100].error.code, grpc.status.INVALID_ARGUMENT);
    assert.equal(answers.filter((answer) => answer.error).length, 1);
    assert.equal(answers[499].results[0].key.toString(), 'bulk-49', 'in the order sent');
    assert.equal((await get('bulk-49', answers[499].session)).row.value.toString(), '499');
  },

  async scan() {
    const keys = Array.from({ length: ROW_COUNT }, (_, i) => `scan-${String(i).padStart(2, '0')}`);
    for (const key of keys) await put(key, `value of ${key}`);
    await put('scam', 'x');
    await put('scan.', 'x');
    const prefix = bytes('scan-');
    const all = await scan({ prefix });
    assert.deepEqual(texts(all), keys, 'keys with the prefix, in order');
    assert.equal(all[3].value.toString(), 'value of scan-03');
    assert.deepEqual(texts(await scan({ prefix, limit: 7 })), keys.slice(0, 7));
    const downwards = keys.slice().reverse();
    assert.deepEqual(texts(await scan({ prefix, reverse: true, limit: 3 })), downwards.slice(0, 3));
    const bare = await scan({ prefix, keys_only: true });
    assert.deepEqual(texts(bare), keys, 'keys only: the keys');
    assert.ok(bare.every((row) => row.value.length === 0), 'keys only: no values');
    const range = { start: bytes('scan-05'), end: bytes('scan-10') };
    assert.deepEqual(texts(await scan(range)), keys.slice(5, 10), 'end is not included');
    assert.deepEqual(texts(await scan({ ...range, reverse: true })), keys.slice(5, 10).reverse());
  },

  async 'large scan'() {
    const value = Buffer.alloc(100_000, 'v');
    for (let i = 0; i < ROW_COUNT; i += 1) await put(`large-${i}`, value);
    const rows = await scan({ prefix: bytes('large-') });
    assert.equal(rows.length, ROW_COUNT, 'rows of 3 MB, in several messages');
    assert.ok(rows.every((row) => row.value.equals(value)), 'their values');
  },

  async 'bad input'() {
    const k = bytes('k');
    const longKey = Buffer.alloc(KEY_BYTES_MAX + 1, 'k');
    for (const method of ['put', 'get', 'delete']) {
      await refused(call(kv, method, { table }), 'key', '512');
      await refused(call(kv, method, { table, key: longKey }), 'key', '513', '512');
    }
    for (const name of ['', 'Big', '1st', 'a-b', 'a'.repeat(64), '_members']) {
      for (const method of ['put', 'get', 'delete']) {
        await refused(call(kv, method, { table: name, key: k }), 'table');
      }
      await refused(scan({ table: name }), 'table');
    }
    const tooLarge = Buffer.alloc(VALUE_BYTES_MAX + 1, 'v');
    await refused(put('k', tooLarge), 'value', VALUE_BYTES_MAX.toLocaleString('en-US'));
    await refused(put('k', 'x', { ttl: {} }), 'ttl');
    await refused(put('k', 'x', { ttl: { seconds: -1 } }), 'ttl');
    await refused(call(kv, 'getMany', { table, keys: Array(KEYS_MAX + 1).fill(k) }), 'keys');
    await refused(call(kv, 'batch', { mutations: [] }), 'mutations');
    const mutations = Array(MUTATIONS_MAX + 1).fill({ put: { table, key: k } });
    await refused(call(kv, 'batch', { mutations }), 'mutations');
    await refused(scan({ prefix: bytes('a'), start: bytes('b') }), 'prefix');
    await refused(get('k', Buffer.from([0xff, 0x00, 0x6e, 0x6f])), 'session');
    assert.equal((await get('k')).row ?? null, null, 'nothing that was refused is written');
  },

  async status() {
    const { node, peers } = await call(admin, 'status', {});
    for (const field of ['site', 'cluster', 'software_version']) assert.ok(node[field], field);
    const { row } = await get('one');
    assert.equal(node.origin.replaceAll('-', ''), row.version.origin.toString('hex'), 'origin');
    assert.ok(node.heads.some((head) => head.origin === node.origin), "a head of the node's own");
    assert.ok(Number(node.rows) >= ROW_COUNT, `rows: ${node.rows}`);
    assert.ok(Number(node.rows_written) >= ROW_COUNT, `rows written: ${node.rows_written}`);
    assert.ok(Number(node.commits) > 0, 'commits');
    assert.ok(Number(node.store_bytes) > 0, 'bytes of the store');
    assert.equal(node.writes_refused_reason, '');
    assert.equal(row.site, node.site, 'site of a row written here');
    if (second) assert.ok(peers.some((peer) => peer.connected), 'a connected peer');
  },

  async 'session at the second site'() {
    if (!second) return 'no second address';
    const read = async (session) => {
      try {
        return await get('session', session, second);
      } catch (error) {
        if (error.code !== FAILED_PRECONDITION) throw error;
        assert.ok(error.details.includes('behind'), `how far behind: ${error.details}`);
        return null;
      }
    };
    // Whenever the read is answered at all, it is with the session's world, or a later one.
    for (let i = 0; i < ROW_COUNT; i += 1) {
      const { session } = await put('session', String(i));
      const answer = await until(() => read(session), 'the second site');
      assert.equal(answer.row?.value.toString(), String(i), 'value read at the second site');
      assert.ok(answer.session.length > 0, 'a session');
    }
    const { session } = await call(kv, 'delete', { table, key: bytes('session') });
    const answer = await until(() => read(session), 'the second site');
    assert.equal(answer.row ?? null, null, 'no row at the second site after the delete');
    return null;
  },
};

async function main() {
  for (const [title, check] of Object.entries(checks)) {
    try {
      const skipped = await check();
      console.log(skipped ? `node: skip ${title} (${skipped})` : `node: ok ${title}`);
    } catch (error) {
      console.log(`node: FAILED ${title}: ${error.message}`);
      return 1;
    }
  }
  console.log(`node: all ${Object.keys(checks).length} checks passed`);
  return 0;
}

main().then((code) => process.exit(code));
