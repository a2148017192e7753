/** What an error says of a request after several attempts, and how long they take. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Metadata, type sendUnaryData } from "@grpc/grpc-js";

import { errorOfStatus } from "../src/errors.js";
import { ErrorInfo } from "../src/gen/google/rpc/error_details.js";
import type { Status } from "../src/gen/google/rpc/status.js";
import type { StreamTransactionsRequest } from "../src/gen/passbook/v1/account_service.js";
import { type Outcome, PassbookError, status } from "../src/index.js";
import {
  type Answer,
  closed,
  connect,
  denied,
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
  streamedResult,
  transactionOf,
  unauthenticated,
} from "./fakeServer.js";

const invalid = errorOf(status.INVALID_ARGUMENT, "INVALID_CURRENCY_CODE");
// An amount that is beyond the limit by itself, and a balance that would be.
const tooMuch = errorOf(status.OUT_OF_RANGE, "BALANCE_OUT_OF_RANGE", { field: "amount" });
const tooMuchNotApplied = errorOf(status.OUT_OF_RANGE, "BALANCE_OUT_OF_RANGE", {
  field: "amount",
  outcome: "not_applied",
});
const tooRich = errorOf(status.OUT_OF_RANGE, "BALANCE_OUT_OF_RANGE");
const reused = errorOf(status.INVALID_ARGUMENT, "REQUEST_ID_REUSED");
const expired = errorOf(status.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", { outcome: "unknown" });

const batches: [string, Status, Status, Answer, Outcome | undefined][] = [
  // The case, the first attempt of the batch, the result in the second, and the request alone.
  ["the result is in doubt", shed, inDoubt, shedForLong, "unknown"],
  ["the result is in doubt, then denied", shed, inDoubt, unauthenticated, "unknown"],
  ["the time of the result was up", shed, expired, shedForLong, "unknown"],
  ["the batch was lost", lost, shed, shedForLong, "unknown"],
  ["the batch was lost, then denied", lost, shed, unauthenticated, "unknown"],
  ["the batch was lost, and the result is denied", lost, denied, undefined, "unknown"],
  ["the batch was lost, and the result is invalid", lost, invalid, undefined, "unknown"],
  ["the batch was lost, and the amount is invalid", lost, tooMuch, undefined, "unknown"],
  ["the batch was lost, and the balance is the result", lost, tooRich, undefined, undefined],
  ["the batch was lost, and the result is one", lost, closed, undefined, undefined],
  ["nothing is in doubt", shed, shed, shedForLong, "not_applied"],
  ["nothing is in doubt, then denied", shed, shed, unauthenticated, undefined],
];
for (const [name, batch, value, alone, outcome] of batches) {
  test(`a request of a batch: ${name}`, async (t) => {
    const left = [batch, undefined, batch, undefined];
    let timesAlone = 0;
    const results = [{ result: { $case: "error" as const, value }, replayed: false }];
    const answerBatch = (_: unknown, callback: sendUnaryData<{ results: typeof results }>) => {
      const error = left.shift();
      callback(error === undefined ? null : statusOf(error), { results });
    };
    const answerAlone = (_: unknown, callback: sendUnaryData<never>) => {
      timesAlone += 1;
      callback(statusOf(alone ?? lost));
    };
    const address = await start(t, {
      batchPostTransactions: answerBatch,
      postTransaction: answerAlone,
      batchCreateAccounts: answerBatch,
      createAccount: answerAlone,
    });
    const client = connect(t, address);
    const [posted] = await client.batchPostTransactions([posting("pay")]);
    assert(posted instanceof PassbookError);
    assert.equal(posted.outcome, outcome);
    assert.equal(posted.requestId, "pay");
    const [opened] = await client.batchCreateAccounts([{ accountId: "till", currencyCode: "USD" }]);
    assert(opened instanceof PassbookError);
    assert.equal(opened.outcome, outcome);
    assert.equal(opened.accountId, "till");
    assert.equal(timesAlone, alone === undefined ? 0 : 2);
  });
}

const calls: [string, Answer[], Outcome | undefined][] = [
  ["invalid after doubt", [lost, invalid], "unknown"],
  ["invalid, with nothing in doubt", [shed, invalid], undefined],
  ["an invalid amount after doubt", [lost, tooMuch], "unknown"],
  // The outcome is that of the last attempt. The error does not say that the server has looked.
  ["an invalid amount that was not applied, after doubt", [lost, tooMuchNotApplied], "unknown"],
  ["an invalid amount, with nothing in doubt", [shed, tooMuch], undefined],
  ["a balance beyond the limit after doubt", [lost, tooRich], undefined],
  ["a stored result after doubt", [lost, closed], undefined],
  ["the id of another request after doubt", [lost, reused], undefined],
];
for (const [name, answers, outcome] of calls) {
  for (const shareStream of [true, false]) {
    test(`a call: ${name}, ${shareStream ? "shared" : "alone"}`, async (t) => {
      const left = [...answers];
      const address = await start(t, {
        deposit: (_, callback) => {
          callback(statusOf(left.shift() ?? lost));
        },
        streamTransactions: (call) => {
          call.on("data", ({ requests }: StreamTransactionsRequest) => {
            const results = requests.map((request) => streamedResult(request, left.shift()));
            call.write({ result: undefined, results });
          });
        },
      });
      const client = connect(t, address, { shareStream });
      const error = await failed(client.deposit(deposit("pay")));
      assert.equal(error.outcome, outcome);
      assert.equal(left.length, 0);
    });
  }
}

test("the details of another service say nothing of the request", () => {
  const details = ["passbook", "proxy.example"].map((domain) => {
    const info = { reason: "FULL", domain, metadata: { outcome: "not_applied" } };
    const value = Buffer.from(ErrorInfo.encode(info).finish());
    return { typeUrl: "type.googleapis.com/google.rpc.ErrorInfo", value };
  });
  const own = errorOfStatus({ code: status.UNAVAILABLE, message: "", details });
  assert.deepEqual([own.reason, own.outcomeOfCall(false)], ["FULL", "not_applied"]);
  const other = errorOfStatus({ code: status.UNAVAILABLE, message: "", details: details.slice(1) });
  assert.deepEqual([other.reason, other.metadata, other.outcomeOfCall(false)], ["", {}, "unknown"]);
});

test("the error of an opening has the id of the account", async (t) => {
  const accountIds: string[] = [];
  const address = await start(t, {
    createAccount: ({ request }, callback) => {
      accountIds.push(request.accountId);
      callback(statusOf(unauthenticated));
    },
    batchCreateAccounts: ({ request }, callback) => {
      const results = request.requests.map(({ accountId }) => {
        accountIds.push(accountId);
        return { result: { $case: "error" as const, value: closed } };
      });
      callback(null, { results });
    },
    freezeAccount: (_, callback) => {
      callback(statusOf(closed));
    },
  });
  const client = connect(t, address);
  const error = await failed(client.createAccount({ currencyCode: "USD" }));
  assert(error.accountId !== undefined && error.toString().includes(error.accountId));
  const results = await client.batchCreateAccounts([
    { currencyCode: "USD" },
    { currencyCode: "USD" },
  ]);
  const errors = [error, ...results] as PassbookError[];
  assert.deepEqual(
    errors.map((error) => error.accountId),
    accountIds,
  );
  assert.equal((await failed(client.freezeAccount({ accountId: "joint" }))).accountId, undefined);
});

test("an empty id is none, and stays the same in all attempts", async (t) => {
  const ids: string[] = [];
  const answer = (id: string, callback: sendUnaryData<never>, response: object) => {
    ids.push(id);
    if (ids.length === 1) callback(statusOf(lost));
    else callback(null, response as never);
  };
  const address = await start(t, {
    createAccount: ({ request: { accountId } }, callback) => {
      answer(accountId, callback, { account: undefined });
    },
    batchCreateAccounts: (_, callback) => {
      callback(null, { results: [{ result: { $case: "error" as const, value: shed } }] });
    },
    deposit: ({ request: { requestId } }, callback) => {
      answer(requestId, callback, { transaction: undefined, replayed: false });
    },
    updateHold: ({ request: { requestId } }, callback) => {
      answer(requestId, callback, { hold: undefined, replayed: false });
    },
    releaseHold: ({ request: { requestId } }, callback) => {
      answer(requestId, callback, { hold: undefined, replayed: false });
    },
  });
  const client = connect(t, address, { shareStream: false });
  const calls = [
    () => client.createAccount({ accountId: "", currencyCode: "USD" }),
    () => client.batchCreateAccounts([{ accountId: "", currencyCode: "USD" }]),
    () => client.deposit(deposit("")),
    () => client.updateHold({ requestId: "", holdId: "trip" }),
    () => client.releaseHold({ requestId: "", holdId: "trip" }),
  ];
  for (const call of calls) {
    ids.length = 0;
    // The responses are empty, which is an error. The attempts count.
    await call().catch(() => undefined);
    assert(ids.length === 2 && ids[0] !== "" && ids[0] === ids[1], ids.join());
  }
});

for (const count of [2, 12]) {
  test(`the error of a lost batch has the ids of its ${count} elements`, async (t) => {
    const lostForLong = errorOf(status.UNAVAILABLE, "DATABASE_UNAVAILABLE", {
      outcome: "unknown",
      retrySeconds: 3600,
    });
    const lose = (_: unknown, callback: sendUnaryData<never>) => {
      callback(statusOf(lostForLong));
    };
    const address = await start(t, { batchPostTransactions: lose, batchCreateAccounts: lose });
    const client = connect(t, address);
    const ids = Array.from({ length: count }, (_, n) => `id-${n}`);
    const text = count === 2 ? "ids: id-0, id-1)" : ", id-8, id-9 and 2 more)";
    const posted = await failed(client.batchPostTransactions(ids.map(posting)));
    assert.equal(posted.outcome, "unknown");
    assert.deepEqual([posted.requestIds, posted.accountIds], [ids, undefined]);
    assert(posted.toString().includes(`${count} request_ids: id-0, id-1`), posted.toString());
    assert(posted.toString().endsWith(text), posted.toString());
    const openings = ids.map((accountId) => ({ accountId, currencyCode: "USD" }));
    const opened = await failed(client.batchCreateAccounts(openings));
    assert.equal(opened.outcome, "unknown");
    assert.deepEqual([opened.requestIds, opened.accountIds], [undefined, ids]);
    assert(opened.toString().endsWith(text), opened.toString());
  });
}

test("the timeout of a batch bounds all of its repeats", async (t) => {
  let leftMs = 0;
  const address = await start(t, {
    batchPostTransactions: ({ request }, callback) => {
      const results = request.requests.map(() => ({
        result: { $case: "error" as const, value: inDoubt },
        replayed: false,
      }));
      setTimeout(() => {
        callback(null, { results });
      }, 500);
    },
    // Has no answer.
    postTransaction: (call) => {
      leftMs = Math.max(leftMs, Number(call.getDeadline()) - Date.now());
    },
  });
  const client = connect(t, address, { shareStream: false });
  const postings = Array.from({ length: 100 }, (_, n) => posting(`pay-${n}`));
  const begin = performance.now();
  const results = await client.batchPostTransactions(postings, { timeoutMs: 1000 });
  const tookMs = performance.now() - begin;
  assert(tookMs < 5000, `${tookMs} ms`);
  assert(leftMs > 0 && leftMs < 900, `${leftMs} ms`);
  assert.equal(results.length, 100);
  for (const [index, error] of results.entries()) {
    assert(error instanceof PassbookError && error.outcome === "unknown");
    assert.equal(error.requestId, `pay-${index}`);
  }
});

test("requests of a batch are repeated at the same time, but not all", async (t) => {
  let underWay = 0;
  let most = 0;
  const address = await start(t, {
    batchPostTransactions: ({ request }, callback) => {
      const results = request.requests.map(() => ({
        result: { $case: "error" as const, value: shed },
        replayed: false,
      }));
      callback(null, { results });
    },
    postTransaction: ({ request }, callback) => {
      underWay += 1;
      most = Math.max(most, underWay);
      setTimeout(() => {
        underWay -= 1;
        callback(null, { transaction: transactionOf(request.requestId), replayed: false });
      }, 100);
    },
  });
  const client = connect(t, address, { shareStream: false });
  const postings = Array.from({ length: 200 }, (_, n) => posting(`pay-${n}`));
  const results = await client.batchPostTransactions(postings);
  assert.deepEqual(
    results.map((result) => !(result instanceof PassbookError) && result.transaction.requestId),
    postings.map(({ requestId }) => requestId),
  );
  assert(most > 16 && most <= 64, `${most} at a time`);
});

const HOUR_MS = 3_600_000;
for (const jumpMs of [HOUR_MS, -HOUR_MS]) {
  for (const shareStream of [true, false]) {
    const name = `a jump of the clock by ${jumpMs} ms, ${shareStream ? "shared" : "alone"}`;
    test(name, async (t) => {
      const now = Date.now.bind(Date);
      const jump = () => {
        t.mock.method(Date, "now", () => now() + jumpMs);
      };
      const timeoutsMs: number[] = [];
      const address = await start(t, {
        deposit: (call, callback) => {
          timeoutsMs.push(Number(call.getDeadline()) - Date.now());
          if (timeoutsMs.length === 1) {
            jump();
            callback(statusOf(lost));
          } else {
            const transaction = transactionOf(call.request.requestId);
            callback(null, { transaction, replayed: false });
          }
        },
        streamTransactions: (call) => {
          call.sendMetadata(new Metadata());
          call.on("data", ({ requests: [request] }: StreamTransactionsRequest) => {
            assert(request?.timeout !== undefined);
            timeoutsMs.push(request.timeout.seconds * 1000);
            if (timeoutsMs.length === 1) jump();
            const results = [streamedResult(request, timeoutsMs.length === 1 ? lost : undefined)];
            call.write({ result: undefined, results });
          });
        },
      });
      const client = connect(t, address, { shareStream });
      const { transaction } = await client.deposit(deposit("pay"), { timeoutMs: 10_000 });
      assert.equal(transaction.requestId, "pay");
      assert.equal(timeoutsMs.length, 2);
      for (const timeoutMs of timeoutsMs) {
        assert(timeoutMs > 5000 && timeoutMs <= 10_000, `${timeoutMs} ms`);
      }
    });
  }
}
