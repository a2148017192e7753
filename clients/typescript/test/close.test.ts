/** What is under way when the client is closed or its caller cancels. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import {
  PostTransactionResult,
  type StreamTransactionsRequest,
} from "../src/gen/passbook/v1/account_service.js";
import { WatchEventsResponse } from "../src/gen/passbook/v1/events.js";
import { type Client, status } from "../src/index.js";
import {
  connect,
  deposit,
  failed,
  inDoubt,
  lost,
  posting,
  shed,
  start,
  statusOf,
  streamedResult,
  transactionOf,
} from "./fakeServer.js";

/** A server that says how many calls it had. */
class Fake {
  readonly calls = new EventTarget();
  count = 0;
  answer: typeof shed | undefined;

  has(): void {
    this.count += 1;
    this.calls.dispatchEvent(new Event("call"));
  }

  start(t: TestContext): Promise<string> {
    return start(t, {
      deposit: (_, callback) => {
        this.has();
        if (this.answer !== undefined) callback(statusOf(this.answer));
      },
      streamTransactions: (call) => {
        call.on("data", ({ request, requests }: StreamTransactionsRequest) => {
          this.has();
          const results = requests.map((it) => streamedResult(it, this.answer ?? lost));
          if (results.length > 0 && this.answer !== undefined) {
            call.write({ result: undefined, results });
          }
          // Of a stream of postings, the first has a result.
          if (request?.requestId !== "one") return;
          const value = transactionOf("one");
          const result = PostTransactionResult.fromPartial({
            result: { $case: "transaction", value },
          });
          call.write({ result, results: [] });
        });
      },
      watchEvents: (call) => {
        this.has();
        const send = () => call.write(WatchEventsResponse.fromPartial({ token: "token" }));
        const timer = setInterval(send, 20);
        call.on("cancelled", () => {
          clearInterval(timer);
        });
      },
    });
  }
}

type Begin = (client: Client, signal?: AbortSignal) => AsyncGenerator;
const streams: [string, Begin][] = [
  [
    "a watch",
    (client, signal) => client.watchEvents({ start: "now", ...options(signal) }, options(signal)),
  ],
  [
    "a stream of postings",
    (client, signal) => client.streamTransactions(["one", "two"].map(posting), options(signal)),
  ],
];
function options(signal: AbortSignal | undefined) {
  return signal === undefined ? {} : { signal };
}

for (const [name, begin] of streams) {
  test(`${name} ends when the client is closed`, async (t) => {
    const fake = new Fake();
    const client = connect(t, await fake.start(t));
    const stream = begin(client);
    assert.equal((await stream.next()).done, false);
    setTimeout(() => {
      client.close();
    }, 100);
    let error;
    while (error === undefined) error = await stream.next().then(() => undefined, String);
    assert.match(error, /^CANCELLED: .*closed the client/);
    const { count } = fake;
    await sleep(200);
    assert.equal(fake.count, count);
    const late = await failed(begin(client).next());
    assert.equal(late.code, status.CANCELLED);
  });

  test(`${name} of a signal that is aborted is not opened`, async (t) => {
    const fake = new Fake();
    const client = connect(t, await fake.start(t));
    const error = await failed(begin(client, AbortSignal.abort()).next());
    assert.equal(error.code, status.CANCELLED);
    await sleep(100);
    assert.equal(fake.count, 0);
  });

  test(`${name} ends when its signal is aborted`, async (t) => {
    const client = connect(t, await new Fake().start(t));
    const canceling = new AbortController();
    const stream = begin(client, canceling.signal);
    assert.equal((await stream.next()).done, false);
    canceling.abort();
    let error;
    while (error === undefined) error = await stream.next().then(() => undefined, String);
    assert.match(error, /^CANCELLED/);
  });
}

for (const shareStream of [true, false]) {
  const mode = shareStream ? "shared" : "alone";
  for (const answer of [undefined, inDoubt, shed]) {
    const when = answer === undefined ? "under way" : "repeated";
    const outcome = answer === shed ? "not_applied" : "unknown";
    test(`a change that is ${when} ends as ${outcome} when the client is closed, ${mode}`, async (t) => {
      const fake = new Fake();
      fake.answer = answer;
      const client = connect(t, await fake.start(t), { shareStream });
      const change = failed(client.deposit(deposit("pay"), { timeoutMs: 30_000 }));
      await once(fake.calls, "call");
      // Two of three pauses are longer than the time until then.
      if (answer !== undefined) await sleep(300);
      client.close();
      const begin = performance.now();
      const error = await change;
      assert(performance.now() - begin < 1000);
      assert.equal(error.code, status.CANCELLED);
      assert.equal(error.requestId, "pay");
      // An attempt that is under way at that moment is in doubt.
      assert(error.outcome === outcome || error.outcome === "unknown");
      const { count } = fake;
      await sleep(200);
      assert.equal(fake.count, count);
    });
  }
}
