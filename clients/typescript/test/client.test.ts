import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { Big } from "big.js";

import {
  Client,
  type ClientOptions,
  PassbookError,
  TimeBasis,
  money,
  status,
} from "../src/index.js";
import { timestampMessage } from "../src/model.js";
import { moneyMessage } from "../src/money.js";
import { startEphemeral } from "./processes.js";

const usd = (value: string) => money(value, "USD");
let server: Awaited<ReturnType<typeof startEphemeral>>;
let client: Client;

before(async () => {
  server = await startEphemeral();
  client = new Client(server.address);
});
after(async () => {
  client.close();
  await server.stop();
});

test("amounts keep all of their digits, and numbers are no amounts", () => {
  for (const digits of ["-0.01", "12345678901234567890123456.78", "1000000000000000000000000"]) {
    assert.equal(moneyMessage(usd(digits)).value, digits);
  }
  for (const [digits, sent] of Object.entries({ "100.000": "100", "-0.50": "-0.5", "0.00": "0" })) {
    assert.equal(moneyMessage(usd(digits)).value, sent);
  }
  assert.equal(moneyMessage(money(new Big("1e3"), "USD")).value, "1000");
  assert.throws(() => money(0.1 as unknown as string, "USD"), TypeError);
  assert.throws(() => usd("1.00").value.plus(0.1), TypeError);
});

test("an amount whose value is no Big is not sent", async () => {
  await client.createAccount({ accountId: "exact", currencyCode: "USD" });
  const left = await client.getAccount("exact");
  const legs = (value: unknown) => [{ accountId: "exact", amount: wrong(value) }];
  const wrong = (value: unknown) => ({ value: value as Big, currencyCode: "USD" });
  for (const value of [10.5, 1, 10n, "10.50", undefined, null]) {
    const calls = [
      client.deposit({ accountId: "exact", amount: wrong(value) }),
      client.postTransaction({ legs: legs(value) }),
      client.batchPostTransactions([{ legs: legs(value) }]),
      client.createAccount({ currencyCode: "USD", overdraftLimit: wrong(value) }),
    ];
    for (const call of calls)
      await assert.rejects(call, (error: Error) => {
        return error instanceof TypeError && error.message.includes("`value`");
      });
  }
  assert.deepEqual(await client.getAccount("exact"), left);
});

test("times keep all of their digits", () => {
  assert.deepEqual(timestampMessage("2026-11-26T09:42:23.901234Z"), {
    seconds: 1795686143,
    nanos: 901234000,
  });
  assert.throws(() => timestampMessage("yesterday"), RangeError);
});

test("a canceled call says what is known of its request", async () => {
  const error = await client
    .deposit({ accountId: "joint", amount: usd("1.00") }, { signal: AbortSignal.abort() })
    .catch((raised: unknown) => raised);
  assert(error instanceof PassbookError);
  assert.equal(error.code, status.CANCELLED);
  assert.equal(error.outcome, "not_applied");
  assert(error.requestId !== undefined);
});

test("concurrent changes have their own results", async () => {
  await client.createAccount({ accountId: "dave", currencyCode: "USD" });
  // Each id twice, at the same time.
  const requestIds = Array.from({ length: 200 }, (_, n) => `dave-${Math.floor(n / 2)}`);
  const results = await Promise.all(
    requestIds.map((requestId) =>
      client.deposit({ accountId: "dave", amount: usd("0.01"), requestId }),
    ),
  );
  assert.deepEqual(
    results.map((result) => result.transaction.requestId),
    requestIds,
  );
  assert.equal(results.filter((result) => result.replayed).length, 100);
  assert.equal((await client.getAccount("dave")).balance.value.toFixed(2), "1.00");
});

test("every change of balances takes effect when it says", async () => {
  const [a, b, amount] = ["dates:a", "dates:b", usd("0.01")];
  for (const accountId of [a, b]) await client.createAccount({ accountId, currencyCode: "USD" });
  await client.deposit({ accountId: a, amount: usd("10.00") });
  await client.placeHold({ accountId: a, amount, holdId: "dates" });
  const seconds = new Date(Date.now() - 24 * 60 * 60 * 1000).toISOString().slice(0, 19);
  const effectiveTime = `${seconds}.123456Z`;
  const legs = [a, b].map((accountId) => ({ accountId, amount }));
  const deposit = await client.deposit({ accountId: a, amount, effectiveTime });
  const { transactionId } = deposit.transaction;
  const transfer = { sourceAccountId: a, destinationAccountId: b, amount, effectiveTime };
  for (const { transaction } of [
    deposit,
    await client.withdraw({ accountId: a, amount, effectiveTime }),
    await client.transfer(transfer),
    await client.postTransaction({ legs, effectiveTime }),
    await client.reverseTransaction({ transactionId, effectiveTime }),
    await client.captureHold({ holdId: "dates", effectiveTime }),
  ]) {
    const times = transaction.entries.map((entry) => entry.effectiveTime);
    assert.deepEqual([...new Set([transaction.effectiveTime, ...times])], [effectiveTime]);
    assert.notEqual(transaction.createTime, effectiveTime);
  }
  const timeBasis = TimeBasis.EFFECTIVE_TIME;
  const { balance } = await client.getBalance({ accountId: a, atTime: effectiveTime, timeBasis });
  assert.equal(balance.value.toFixed(2), "-0.02");
  const listed = [];
  for await (const account of client.listAccounts({ accountIdPrefix: "dates:" })) {
    listed.push(account.accountId);
  }
  assert.deepEqual(listed, [a, b]);
});

test("a batch has a result for each posting", async () => {
  await client.createAccount({ accountId: "alice", currencyCode: "USD" });
  const results = await client.batchPostTransactions([
    { legs: [{ accountId: "alice", amount: usd("5.00") }] },
    { legs: [{ accountId: "nobody", amount: usd("5.00") }] },
  ]);
  assert(!(results[0] instanceof PassbookError));
  assert(results[1] instanceof PassbookError && results[1].reason === "ACCOUNT_NOT_FOUND");
});

test("a stream takes postings only as fast as results are read", async () => {
  await client.createAccount({ accountId: "bob", currencyCode: "USD" });
  let taken = 0;
  function* postings() {
    for (;;) {
      taken += 1;
      yield { legs: [{ accountId: "bob", amount: usd("0.01") }] };
    }
  }
  let read = 0;
  for await (const result of client.streamTransactions(postings())) {
    assert(!(result instanceof PassbookError));
    read += 1;
    assert(taken <= read + 1025, `${taken} taken, ${read} read`);
    if (read === 50) break;
  }
});

test("tokens, TLS and mutual TLS", async () => {
  const folder = process.env["PASSBOOK_TEST_SECRETS"] ?? "";
  const secret = (name: string) => readFileSync(join(folder, name));
  const secured = await startEphemeral("--config", join(folder, "passbook.toml"));
  const createdBy = async (options: ClientOptions) => {
    const caller = new Client(secured.address, options);
    try {
      return (await caller.createAccount({ currencyCode: "USD" })).createdBy;
    } finally {
      caller.close();
    }
  };
  const tls = { authorities: secret("ca.crt"), serverName: "server.test" };
  try {
    const token = secret("token").toString().trim();
    assert.equal(await createdBy({ tls, token }), "billing");
    assert.equal(await createdBy({ tls, token: () => Promise.resolve(token) }), "billing");
    const mutual = { ...tls, certificate: secret("client.crt"), key: secret("client.key") };
    assert.equal(await createdBy({ tls: mutual }), "dns:client.test");
    const error = await createdBy({ tls }).catch((raised: unknown) => raised);
    assert(error instanceof PassbookError && error.code === status.UNAUTHENTICATED);
  } finally {
    await secured.stop();
  }
});
