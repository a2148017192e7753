/** Where a token may go, and how long it may take. */

import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";

import { Metadata } from "@grpc/grpc-js";

import type { StreamTransactionsRequest } from "../src/gen/passbook/v1/account_service.js";
import { Client, status } from "../src/index.js";
import {
  connect,
  deposit,
  failed,
  posting,
  start,
  streamedResult,
  transactionOf,
} from "./fakeServer.js";

test("a token needs TLS on the way to another machine", () => {
  const remote = [
    "203.0.113.1:50051",
    "passbook.internal:50051",
    "127.example.com:50051",
    "localhost.example.com:50051",
    "[2001:db8::1]:50051",
    "dns:///localhost:50051",
  ];
  for (const address of remote) {
    for (const token of ["secret", () => "secret"]) {
      const connected = () => new Client(["127.0.0.1:50051", address], { token });
      assert.throws(connected, (error: Error) => {
        return error.message.includes(address) && !error.message.includes("secret");
      });
    }
    new Client(address, { token: "secret", tls: {} }).close();
    new Client(address).close();
  }
  for (const address of ["127.0.0.1:50051", "127.1.2.3:1", "[::1]:50051", "localhost:50051"]) {
    new Client(address, { token: "secret" }).close();
  }
});

/** Sets a variable until the end of the test. */
function setVariable(t: TestContext, name: string, value: string): void {
  const before = process.env[name];
  process.env[name] = value;
  t.after(() => {
    if (before === undefined) Reflect.deleteProperty(process.env, name);
    else process.env[name] = before;
  });
}

test("a token for this machine does not go to a proxy", async (t) => {
  setVariable(t, "grpc_proxy", "http://127.0.0.1:1");
  setVariable(t, "no_grpc_proxy", "example.com");
  const address = await start(t, {
    sumBalances: (_, callback) => {
      callback(null, { sums: [] });
    },
  });
  const client = connect(t, address, { token: "secret" });
  assert.deepEqual(await client.sumBalances({}, { timeoutMs: 2000 }), []);
});

for (const shareStream of [true, false]) {
  const name = shareStream ? "shared" : "alone";
  test(`a token function that takes too long ends the call in time: ${name}`, async (t) => {
    let takesLong = true;
    const token = () => (takesLong ? new Promise<string>(() => undefined) : "secret");
    const address = await start(t, {
      deposit: ({ request }, callback) => {
        callback(null, { transaction: transactionOf(request.requestId), replayed: false });
      },
      streamTransactions: (call) => {
        call.sendMetadata(new Metadata());
        call.on("data", ({ requests }: StreamTransactionsRequest) => {
          const results = requests.map((request) => streamedResult(request, undefined));
          call.write({ result: undefined, results });
        });
      },
    });
    const client = connect(t, address, { shareStream, token, timeoutMs: 200 });
    const begin = performance.now();
    const late = await failed(client.deposit(deposit("late")));
    assert.equal(late.code, status.DEADLINE_EXCEEDED);
    assert.equal(late.outcome, "not_applied");
    assert.equal((await failed(client.getAccount("joint"))).code, status.DEADLINE_EXCEEDED);
    // These have no deadline. The function has as long as a call.
    const watch = await failed(client.watchEntries("joint").next());
    assert.equal(watch.code, status.UNAUTHENTICATED);
    const stream = await failed(client.streamTransactions([posting("pay")]).next());
    assert.equal(stream.code, status.UNAUTHENTICATED);
    const canceled = client.deposit(deposit("canceled"), {
      timeoutMs: 10_000,
      signal: AbortSignal.timeout(100),
    });
    assert.equal((await failed(canceled)).code, status.CANCELLED);
    // The next call asks again, although the function has not returned from the first ones.
    takesLong = false;
    const { transaction } = await client.deposit(deposit("good"), { timeoutMs: 5000 });
    assert.equal(transaction.requestId, "good");
    const tookMs = performance.now() - begin;
    assert(tookMs < 3000, `${tookMs} ms`);
  });
}
