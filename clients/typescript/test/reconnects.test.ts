/** Streams of postings and watches that are opened again. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, type Socket, createServer } from "node:net";
import { type TestContext, test } from "node:test";

import { Metadata } from "@grpc/grpc-js";

import type { Status } from "../src/gen/google/rpc/status.js";
import {
  PostTransactionResult,
  type StreamTransactionsRequest,
} from "../src/gen/passbook/v1/account_service.js";
import { WatchEventsResponse } from "../src/gen/passbook/v1/events.js";
import { type Outcome, PassbookError, status } from "../src/index.js";
import {
  type Answer,
  closed,
  connect,
  deposit,
  errorOf,
  failed,
  inDoubt,
  lost,
  posting,
  shed,
  shedForLong,
  start,
  statusOf,
  transactionOf,
  unauthenticated,
} from "./fakeServer.js";

test("calls go to the servers to which there is a connection", async (t) => {
  // The kernel accepts connections, and the server never says a word.
  const sockets: Socket[] = [];
  const hung = createServer((socket) => sockets.push(socket)).listen(0, "127.0.0.1");
  await once(hung, "listening");
  t.after(() => {
    hung.close();
    for (const socket of sockets) socket.destroy();
  });
  const { port } = hung.address() as AddressInfo;
  const address = await start(t, {
    deposit: ({ request: { requestId } }, callback) => {
      callback(null, { transaction: transactionOf(requestId), replayed: false });
    },
  });
  const client = connect(t, [address, `127.0.0.1:${port}`], { shareStream: false });
  for (let n = 0; n < 6; n += 1) await client.deposit(deposit(`pay-${n}`), { timeoutMs: 1000 });
  // Its connection was tried, so that it has calls as soon as it answers.
  assert.equal(sockets.length, 1);
});

/** Makes the tokens 1, 2, 3 ... */
function tokens(): () => string {
  let count = 0;
  return () => (count += 1).toString();
}

/** The token of a call. */
function tokenOf(call: { metadata: Metadata }): string {
  return String(call.metadata.get("authorization")[0]);
}

test("a watch survives its token", async (t) => {
  const seen: string[] = [];
  const address = await start(t, {
    watchEvents: (call) => {
      seen.push(tokenOf(call));
      // The third token has expired before the stream begins.
      if (seen.length < 3) call.write(WatchEventsResponse.fromPartial({ token: `${seen.length}` }));
      call.emit("error", statusOf(unauthenticated));
    },
  });
  const client = connect(t, address, { token: tokens() });
  const watched: string[] = [];
  const watch = async () => {
    for await (const { token } of client.watchEvents({ start: "now" })) watched.push(token);
  };
  const error = await failed(watch());
  assert.equal(error.code, status.UNAUTHENTICATED);
  assert.deepEqual(watched, ["1", "2"]);
  assert.deepEqual(seen, ["Bearer 1", "Bearer 2", "Bearer 3"]);
});

test("a stream of postings survives its token, also without a result", async (t) => {
  const seen: string[] = [];
  const address = await start(t, {
    streamTransactions: (call) => {
      seen.push(tokenOf(call));
      call.sendMetadata(new Metadata());
      const isFirst = seen.length === 1;
      call.on("data", ({ request }: StreamTransactionsRequest) => {
        const transaction = transactionOf(request?.requestId ?? "");
        const result = PostTransactionResult.fromPartial({
          result: { $case: "transaction", value: transaction },
        });
        if (isFirst) call.emit("error", statusOf(unauthenticated));
        else call.write({ result, results: [] });
      });
      call.on("end", () => {
        call.end();
      });
    },
  });
  const client = connect(t, address, { token: tokens() });
  const results = [];
  for await (const result of client.streamTransactions([posting("a"), posting("b")])) {
    results.push(result instanceof PassbookError ? result : result.transaction.requestId);
  }
  assert.deepEqual(results, ["a", "b"]);
  assert.deepEqual(seen, ["Bearer 1", "Bearer 2"]);
});

test("a posting that cannot be sent ends the stream after the results before it", async (t) => {
  const posted: string[] = [];
  const address = await start(t, {
    streamTransactions: (call) => {
      call.on("data", ({ request }: StreamTransactionsRequest) => {
        posted.push(request?.requestId ?? "");
        const result = PostTransactionResult.fromPartial({
          result: { $case: "transaction", value: transactionOf(request?.requestId ?? "") },
        });
        call.write({ result, results: [] });
      });
      call.on("end", () => {
        call.end();
      });
    },
  });
  const client = connect(t, address);
  const bad = { ...posting("bad"), description: "half of a pair: \ude00" };
  const results = client.streamTransactions([posting("first"), bad, posting("last")]);
  const first = await results.next();
  assert(!first.done && !(first.value instanceof PassbookError));
  const error = await failed(results.next());
  assert.equal(error.code, status.INVALID_ARGUMENT);
  assert.deepEqual(
    [error.requestId, error.requestIds, error.outcome],
    ["bad", undefined, undefined],
  );
  assert.deepEqual(posted, ["first"]);
});

const limitOfLibrary = errorOf(status.RESOURCE_EXHAUSTED);
const tooLarge = errorOf(status.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE", {
  outcome: "not_applied",
});
const ends: [string, Status[], Outcome][] = [
  ["a final error that leaves a doubt", [limitOfLibrary], "unknown"],
  ["a final error that leaves none", [tooLarge], "not_applied"],
  ["a token that is denied after a doubt", [inDoubt, unauthenticated], "unknown"],
  ["a token that is denied", [shed, unauthenticated], "not_applied"],
];
for (const [name, errors, outcome] of ends) {
  test(`the error of a stream has the ids that have no result: ${name}`, async (t) => {
    const left = [...errors];
    const address = await start(t, {
      streamTransactions: (call) => {
        const isFirst = left.length === errors.length;
        const error = left.shift() ?? lost;
        if (!isFirst) call.emit("error", statusOf(error));
        call.on("data", ({ request }: StreamTransactionsRequest) => {
          const requestId = request?.requestId ?? "";
          const result = PostTransactionResult.fromPartial({
            result: { $case: "transaction", value: transactionOf(requestId) },
          });
          if (isFirst && requestId === "one") call.write({ result, results: [] });
          if (isFirst && requestId === "three") call.emit("error", statusOf(error));
        });
      },
    });
    const client = connect(t, address);
    const results = client.streamTransactions(["one", "two", "three"].map(posting));
    assert((await results.next()).done === false);
    const error = await failed(results.next());
    assert.deepEqual([error.requestIds, error.outcome], [["two", "three"], outcome]);
    const text = `(outcome ${outcome}, 2 request_ids: two, three)`;
    assert(error.toString().endsWith(text), error.toString());
  });
}

test("the error of a token that a stream lacks has ids, too", async (t) => {
  const address = await start(t, {
    streamTransactions: (call) => {
      call.on("data", () => {
        call.emit("error", statusOf(lost));
      });
    },
  });
  const next = tokens();
  const token = () => {
    if (next() === "1") return "first";
    throw new Error("no more tokens");
  };
  const client = connect(t, address, { token });
  const error = await failed(client.streamTransactions([posting("one")]).next());
  assert.equal(error.code, status.UNAUTHENTICATED);
  assert.deepEqual([error.requestIds, error.outcome], [["one"], "unknown"]);
});

/** Streams one posting. The first stream is cut if there is an error for it. */
async function streamOne(t: TestContext, cut: Answer, result: Answer, alone: Answer) {
  let streams = 0;
  const address = await start(t, {
    streamTransactions: (call) => {
      streams += 1;
      const isCut = streams === 1 && cut !== undefined;
      if (isCut && cut !== lost) {
        call.emit("error", statusOf(cut));
        return;
      }
      call.on("data", () => {
        const value = PostTransactionResult.fromPartial({
          result: { $case: "error", value: result ?? lost },
        });
        if (isCut) call.emit("error", statusOf(cut));
        else call.write({ result: value, results: [] });
      });
      call.on("end", () => {
        call.end();
      });
    },
    postTransaction: (_, callback) => {
      callback(statusOf(alone ?? lost));
    },
  });
  const client = connect(t, address, { shareStream: false });
  for await (const error of client.streamTransactions([posting("pay")])) {
    assert(error instanceof PassbookError);
    assert.equal(error.requestId, "pay");
    return error;
  }
  throw new Error("the stream has no result");
}

const streams: [string, Answer, Answer, Answer, Outcome | undefined][] = [
  // The case, the error that cuts the first stream, the result in the next one, and the request alone.
  ["the result is in doubt", undefined, inDoubt, shedForLong, "unknown"],
  ["the result is in doubt, then denied", undefined, inDoubt, unauthenticated, "unknown"],
  ["the stream was lost", lost, shed, shedForLong, "unknown"],
  ["the stream was lost, then denied", lost, shed, unauthenticated, "unknown"],
  ["the stream was lost, and the result is one", lost, closed, undefined, undefined],
  ["the stream was shed", shed, shed, unauthenticated, undefined],
  ["nothing is in doubt", undefined, shed, shedForLong, "not_applied"],
];
for (const [name, cut, result, alone, outcome] of streams) {
  test(`a posting of a stream: ${name}`, async (t) => {
    assert.equal((await streamOne(t, cut, result, alone)).outcome, outcome);
  });
}
