/** The stream that concurrent changes share. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Metadata } from "@grpc/grpc-js";

import { StreamTransactionsRequest } from "../src/gen/passbook/v1/account_service.js";
import { type Client, type Outcome, money, status } from "../src/index.js";
import {
  type Answer,
  connect,
  denied,
  deposit,
  errorOf,
  failed,
  shedForLong,
  start,
  statusOf,
  streamedResult,
  transactionOf,
  unauthenticated,
} from "./fakeServer.js";

const tooLarge = errorOf(status.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE", {
  outcome: "not_applied",
});
const badStream = errorOf(status.INVALID_ARGUMENT, "INVALID_REQUESTS");

/** Takes deposits by calls and by streams, and counts them. */
class Fake {
  streams = 0;
  readonly streamed: string[] = [];
  readonly alone: string[] = [];
  readonly messageBytes: number[] = [];
  /** The answer to a request, by its id. */
  answer: (requestId: string, isAlone: boolean) => Answer = () => undefined;
  /** The error that ends a stream at its begin. */
  denial: () => Answer = () => undefined;
  /** The error that ends a stream at a request, by its id. */
  cut: (requestId: string) => Answer = () => undefined;

  start(t: Parameters<typeof start>[0]): Promise<string> {
    return start(t, {
      deposit: ({ request: { requestId } }, callback) => {
        this.alone.push(requestId);
        const error = this.answer(requestId, true);
        if (error !== undefined) callback(statusOf(error));
        else callback(null, { transaction: transactionOf(requestId), replayed: false });
      },
      streamTransactions: (call) => {
        this.streams += 1;
        const denial = this.denial();
        if (denial !== undefined) {
          call.emit("error", statusOf(denial));
          return;
        }
        call.sendMetadata(new Metadata());
        call.on("data", (message: StreamTransactionsRequest) => {
          this.messageBytes.push(StreamTransactionsRequest.encode(message).finish().length);
          for (const request of message.requests) {
            const requestId = request.request?.value.requestId ?? "";
            this.streamed.push(requestId);
            const cut = this.cut(requestId);
            if (cut !== undefined) {
              call.emit("error", statusOf(cut));
              return;
            }
            const results = [streamedResult(request, this.answer(requestId, false))];
            call.write({ result: undefined, results });
          }
        });
      },
    });
  }
}

/** The ids of deposits that are made at the same time. */
async function depositAll(client: Client, requestIds: string[]): Promise<string[]> {
  const results = await Promise.all(
    requestIds.map((requestId) => client.deposit(deposit(requestId))),
  );
  return results.map(({ transaction }) => transaction.requestId);
}

for (const shareStream of [true, false]) {
  const name = shareStream ? "shared" : "alone";
  test(`a token function that fails ends the calls of that moment: ${name}`, async (t) => {
    const fake = new Fake();
    const cause = new Error("the vault is closed");
    let isFailing = true;
    const token = () => {
      if (isFailing) throw cause;
      return "secret";
    };
    const client = connect(t, await fake.start(t), { shareStream, token });
    const errors = await Promise.all(
      ["a", "b"].map((requestId) => failed(client.deposit(deposit(requestId)))),
    );
    for (const [index, error] of errors.entries()) {
      assert.equal(error.code, status.UNAUTHENTICATED);
      assert.equal(error.outcome, "not_applied");
      assert.equal(error.requestId, ["a", "b"][index]);
      assert.equal(error.cause, cause);
    }
    assert.deepEqual([...fake.streamed, ...fake.alone], []);
    isFailing = false;
    assert.deepEqual(await depositAll(client, ["a", "b"]), ["a", "b"]);
  });
}

test("a change of a closed client has an error", async (t) => {
  const client = connect(t, await new Fake().start(t));
  client.close();
  const error = await failed(client.deposit(deposit("late")));
  assert.deepEqual([error.code, error.outcome], [status.CANCELLED, "not_applied"]);
});

test("a token that is not valid has its error at once", async (t) => {
  const fake = new Fake();
  fake.denial = () => unauthenticated;
  fake.answer = () => unauthenticated;
  const client = connect(t, await fake.start(t), { token: "wrong" });
  for (const requestId of ["a", "b"]) {
    const error = await failed(client.deposit(deposit(requestId)));
    assert.equal(error.code, status.UNAUTHENTICATED);
    assert.equal(error.outcome, undefined);
  }
  assert.deepEqual(fake.alone, ["a", "b"]);
  // The next token can be valid, so the stream is tried each time.
  assert.equal(fake.streams, 2);
});

test("a stream survives its token", async (t) => {
  const fake = new Fake();
  fake.cut = (requestId) => (requestId === "expired" ? unauthenticated : undefined);
  const client = connect(t, await fake.start(t), { token: () => "secret" });
  for (const requestId of ["first", "expired", "last"]) {
    assert.deepEqual(await depositAll(client, [requestId]), [requestId]);
  }
  assert.equal(fake.streams, 2);
  assert.deepEqual(fake.streamed, ["first", "expired", "last"]);
  assert.deepEqual(fake.alone, ["expired"]);
});

test("after a final error of the stream, changes go alone", async (t) => {
  for (const error of [tooLarge, denied, badStream, errorOf(status.RESOURCE_EXHAUSTED)]) {
    const fake = new Fake();
    fake.cut = () => error;
    const client = connect(t, await fake.start(t));
    assert.deepEqual(await depositAll(client, ["a", "b", "c"]), ["a", "b", "c"]);
    assert.deepEqual(await depositAll(client, ["d"]), ["d"]);
    assert.deepEqual(fake.alone, ["a", "b", "c", "d"]);
    assert.equal(fake.streams, 1);
  }
});

test("a long request goes alone, and messages are short", async (t) => {
  const fake = new Fake();
  fake.answer = (requestId) => (requestId === "long" ? tooLarge : undefined);
  const client = connect(t, await fake.start(t));
  const requestIds = Array.from({ length: 12 }, (_, n) => `middle-${n}`);
  const [error] = await Promise.all([
    failed(client.deposit({ ...deposit("long"), description: "x".repeat(65 * 1024) })),
    ...requestIds.map((requestId) =>
      client.deposit({ ...deposit(requestId), description: "x".repeat(60 * 1024) }),
    ),
  ]);
  assert.equal(error.reason, "REQUEST_TOO_LARGE");
  assert.equal(error.outcome, "not_applied");
  assert.deepEqual(fake.alone, ["long"]);
  assert.deepEqual(fake.streamed.sort(), requestIds.sort());
  assert.equal(fake.streams, 1);
  assert(Math.max(...fake.messageBytes) <= 256 * 1024, fake.messageBytes.join());
});

test("a text with half of a surrogate pair is not sent", async (t) => {
  const fake = new Fake();
  const client = connect(t, await fake.start(t));
  assert.deepEqual(await depositAll(client, ["first"]), ["first"]);
  const half = "\ud83d";
  const requests = [
    { ...deposit("bad"), description: half },
    { ...deposit("bad"), labels: { key: half } },
    { ...deposit("bad"), labels: { [half]: "value" } },
    { ...deposit("bad"), amount: money("1.00", half) },
    deposit(half),
  ];
  for (const request of requests) {
    const error = await failed(client.deposit(request));
    assert.equal(error.code, status.INVALID_ARGUMENT);
    assert.equal(error.outcome, undefined);
    assert.equal(error.requestId, request.requestId);
  }
  const legs = [{ accountId: half, amount: money("1.00", "USD") }];
  const error = await failed(client.batchPostTransactions([{ requestId: "bad", legs }]));
  assert.equal(error.code, status.INVALID_ARGUMENT);
  assert.deepEqual(error.requestIds, ["bad"]);
  assert.equal((await failed(client.getAccount(half))).code, status.INVALID_ARGUMENT);
  const watch = client.watchEntries(half);
  assert.equal((await failed(watch.next())).code, status.INVALID_ARGUMENT);
  // A whole pair is a text.
  const pair = { ...deposit("last"), description: "\ud83d\ude00" };
  assert.equal((await client.deposit(pair)).transaction.requestId, "last");
  assert.deepEqual(fake.streamed, ["first", "last"]);
  assert.equal(fake.streams, 1);
});

test("a timeout that is no time does not end the stream", async (t) => {
  const fake = new Fake();
  const client = connect(t, await fake.start(t));
  await depositAll(client, ["first"]);
  for (const timeoutMs of [Infinity, 1e300]) await client.deposit(deposit("long"), { timeoutMs });
  // Its time is up at once, or it has its result before.
  await client.deposit(deposit("none"), { timeoutMs: NaN }).catch(() => undefined);
  await depositAll(client, ["last"]);
  assert.equal(fake.streams, 1);
});

const cases: [string, "begin" | "request", Answer, Answer, Outcome | undefined][] = [
  // The case, where the stream ends, its error, and the answer to the request alone.
  ["an open stream was denied", "request", denied, denied, "unknown"],
  ["an open stream was denied, then shed", "request", denied, shedForLong, "unknown"],
  ["a stream was invalid", "request", badStream, denied, "unknown"],
  ["a stream was too large", "request", tooLarge, shedForLong, "not_applied"],
  ["a stream was denied at its begin", "begin", denied, shedForLong, "not_applied"],
  ["a stream was denied at its begin, then denied", "begin", denied, denied, undefined],
];
for (const [name, where, end, alone, outcome] of cases) {
  test(`a change that goes alone: ${name}`, async (t) => {
    const fake = new Fake();
    if (where === "begin") fake.denial = () => end;
    else fake.cut = () => end;
    fake.answer = (_, isAlone) => (isAlone ? alone : undefined);
    const client = connect(t, await fake.start(t));
    const error = await failed(client.deposit(deposit("pay")));
    assert.equal(error.outcome, outcome);
    assert.equal(error.requestId, "pay");
  });
}
