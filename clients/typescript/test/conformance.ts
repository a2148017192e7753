/** The conformance story of clients/CONFORMANCE.md. The numbers are those of its steps. */

import assert from "node:assert/strict";

import {
  Client,
  Decimal,
  type Entry,
  type Event,
  EventKind,
  HoldState,
  PassbookError,
  type Posting,
  RequestOutcome,
  type TransactionResult,
  money,
  status,
} from "../src/index.js";
import { ServerProcess } from "./processes.js";

const CALLERS = 16;
const PAYMENTS = 1000;
const STREAMED = 500;

const usd = (value: string) => money(value, "USD");
const eur = (value: string) => money(value, "EUR");

async function errorOf(call: Promise<unknown>): Promise<PassbookError> {
  try {
    await call;
  } catch (error) {
    assert(error instanceof PassbookError, String(error));
    return error;
  }
  return assert.fail("applied, and not an error");
}

class Story {
  readonly client: Client;
  readonly onlyA: Client;
  readonly onlyB: Client;
  joint = new Decimal("875.00");
  readonly requestIds: string[] = [];
  watching: Promise<Entry[]> | undefined;
  watchingEvents: Promise<Event[]> | undefined;

  constructor(
    readonly a: ServerProcess,
    readonly b: ServerProcess,
  ) {
    this.client = new Client([a.address, b.address]);
    this.onlyA = new Client(a.address);
    this.onlyB = new Client(b.address);
  }

  close(): void {
    for (const client of [this.client, this.onlyA, this.onlyB]) client.close();
  }

  async open(accountId: string): Promise<void> {
    await this.client.createAccount({ accountId, currencyCode: "USD" });
  }

  async checkBalance(accountId: string, expected: string): Promise<void> {
    const { balance } = await this.client.getAccount(accountId);
    assert.equal(balance.value.toFixed(2), expected, accountId);
  }

  async jointAccount(): Promise<void> {
    await this.open("joint");
    await this.client.deposit({ accountId: "joint", amount: usd("1000.00") });
    const change = { accountId: "joint", amount: usd("100.00") };
    const deposits = async () => {
      for (let n = 0; n < 10; n += 1) await this.onlyA.deposit(change);
    };
    const withdrawals = async () => {
      for (let n = 0; n < 10; n += 1) await this.onlyB.withdraw(change);
    };
    await Promise.all([deposits(), withdrawals()]);
    await this.checkBalance("joint", "1000.00");
    assert.equal((await this.client.getAccount("joint")).sequence, 21);
  }

  async exactAmounts(): Promise<void> {
    await this.open("vault");
    for (const amount of ["12345678901234567890123.45", "0.10", "0.20"]) {
      await this.client.deposit({ accountId: "vault", amount: usd(amount) });
    }
    const { balance } = await this.client.getAccount("vault");
    assert(balance.value.eq("12345678901234567890123.75"), balance.value.toFixed());
  }

  async rejection(): Promise<void> {
    const rent = () =>
      this.client.withdraw({ accountId: "joint", amount: usd("1000.01"), requestId: "rent" });
    const error = await errorOf(rent());
    assert.equal(error.code, status.FAILED_PRECONDITION);
    assert.equal(error.reason, "INSUFFICIENT_FUNDS");
    assert.equal(error.outcome, undefined);
    assert.equal(error.requestId, "rent");
    assert.equal(error.metadata["available"], "1000.00");
    assert.equal(error.metadata["required"], "1000.01");
    await this.client.deposit({ accountId: "joint", amount: usd("50.00") });
    const again = await errorOf(rent());
    assert.equal(again.reason, "INSUFFICIENT_FUNDS");
    assert.equal(again.metadata["available"], "1000.00");
    await this.client.withdraw({ accountId: "joint", amount: usd("50.00") });
  }

  async replay(): Promise<void> {
    const effectiveTime = new Date(Date.now() - 24 * 60 * 60 * 1000);
    effectiveTime.setMilliseconds(0);
    const bonus = { accountId: "joint", amount: usd("25.00"), requestId: "bonus", effectiveTime };
    const first = await this.client.deposit(bonus);
    const again = await this.client.deposit(bonus);
    assert.deepEqual([first.replayed, again.replayed], [false, true]);
    assert.equal(again.transaction.transactionId, first.transaction.transactionId);
    const stored = first.transaction.entries[0]?.effectiveTime ?? "";
    assert.equal(Date.parse(stored), effectiveTime.getTime());
    const error = await errorOf(this.client.deposit({ ...bonus, amount: usd("26.00") }));
    assert.equal(error.reason, "REQUEST_ID_REUSED");
    await this.checkBalance("joint", "1025.00");
  }

  async hold(): Promise<void> {
    await this.open("shop");
    const checkAvailable = async () => {
      const { available } = await this.client.getAccount("joint");
      assert.equal(available.value.toFixed(2), "825.00");
    };
    await this.client.placeHold({ accountId: "joint", amount: usd("100.00"), holdId: "trip" });
    await this.client.updateHold({ holdId: "trip", amount: usd("200.00") });
    await checkAvailable();
    const capture = { holdId: "trip", destinationAccountId: "shop" };
    const part = { ...capture, amount: usd("100.00"), keepOpen: true };
    assert.equal((await this.client.captureHold(part)).hold.state, HoldState.OPEN);
    await checkAvailable();
    const { hold } = await this.client.captureHold({ ...capture, amount: usd("50.00") });
    assert.equal(hold.state, HoldState.CAPTURED);
    assert.equal(hold.capturedAmount?.value.toFixed(2), "150.00");
    const error = await errorOf(this.client.releaseHold({ holdId: "trip" }));
    assert.equal(error.reason, "HOLD_NOT_OPEN");
    assert.equal(error.metadata["state"], "captured");
    const joint = await this.client.getAccount("joint");
    assert.equal(joint.balance.value.toFixed(2), "875.00");
    assert.equal(joint.available.value.toFixed(2), "875.00");
    await this.checkBalance("shop", "150.00");
  }

  async manyAccounts(): Promise<void> {
    const pools = Array.from({ length: 100 }, (_, index) => `pool-${index + 1}`);
    const accounts = [...pools, "joint"].map((accountId) => ({ accountId, currencyCode: "EUR" }));
    const results = await this.client.batchCreateAccounts(accounts);
    const names = results.map((result) =>
      result instanceof PassbookError ? result.reason : result.accountId,
    );
    assert.deepEqual(names, [...pools, "ACCOUNT_EXISTS"]);
    const accountId = "pool-1";
    await this.client.deposit({ accountId, amount: eur("10.00") });
    const withdrawal = { accountId, amount: eur("25.00"), force: true };
    const { transaction } = await this.client.withdraw(withdrawal);
    assert(transaction.forced);
    assert.equal(transaction.entries[0]?.balanceAfter.value.toFixed(2), "-15.00");
    const { transactionId } = transaction;
    await this.client.reverseTransaction({ transactionId, amount: eur("5.00") });
    const listed = [];
    for await (const account of this.client.listAccounts({ accountIdPrefix: "pool-" })) {
      listed.push(account.accountId);
    }
    assert.deepEqual(listed, pools.sort());
    const sums = await this.client.sumBalances({ accountIdPrefix: "pool-" });
    const texts = sums.map(
      (sum) => `${sum.accountCount} ${sum.currencyCode} ${sum.balance.value.toFixed(2)}`,
    );
    assert.deepEqual(texts, ["100 EUR -10.00"]);
    const atTime = new Date(Date.now() - 86_400_000);
    assert.deepEqual(await this.client.sumBalances({ accountIdPrefix: "pool-", atTime }), []);
  }

  async deadline(): Promise<void> {
    const change = { accountId: "joint", amount: usd("10.00") };
    this.a.pause();
    this.b.pause();
    let error;
    try {
      error = await errorOf(this.client.deposit(change, { timeoutMs: 300 }));
    } finally {
      this.a.resume();
      this.b.resume();
    }
    assert.equal(error.code, status.DEADLINE_EXCEEDED);
    assert.equal(error.outcome, "unknown");
    const { requestId } = error;
    assert(requestId !== undefined, "the error has no request id");
    const fence = await this.client.fenceRequest(requestId);
    if (fence.outcome === RequestOutcome.APPLIED) {
      this.joint = this.joint.plus("10.00");
      assert((await this.client.deposit({ ...change, requestId })).replayed);
    } else {
      assert.equal(fence.outcome, RequestOutcome.NOT_SEEN);
      assert(fence.fenced);
      const fenced = await errorOf(this.client.deposit({ ...change, requestId }));
      assert.equal(fenced.reason, "REQUEST_FENCED");
    }
    assert.equal((await this.client.getRequestOutcome(requestId)).outcome, fence.outcome);
    await this.checkBalance("joint", this.joint.toFixed(2));
  }

  async payments(): Promise<void> {
    await this.open("wallet");
    await this.client.deposit({ accountId: "wallet", amount: usd("10000.00") });
    await this.open("till");
    this.watching = this.watch();
    this.watchingEvents = this.watchEvents();
    // Their errors are those of the step that awaits them.
    this.watching.catch(() => undefined);
    this.watchingEvents.catch(() => undefined);

    const pay = async (cents: number): Promise<TransactionResult> => {
      const payment = {
        sourceAccountId: "wallet",
        destinationAccountId: "till",
        amount: usd(`${Math.floor(cents / 100)}.${(cents % 100).toString().padStart(2, "0")}`),
        ...(cents % 2 === 0 ? { requestId: `pay-${cents}` } : {}),
      };
      if (cents % 50 !== 0) return this.client.transfer(payment);
      try {
        return await this.client.transfer(payment, { timeoutMs: 10 });
      } catch (error) {
        assert(error instanceof PassbookError);
        assert(error.outcome !== undefined && error.requestId !== undefined, error.toString());
        return this.client.transfer({ ...payment, requestId: error.requestId });
      }
    };
    let next = 1;
    let killing = Promise.resolve();
    const caller = async () => {
      while (next <= PAYMENTS) {
        const paid = await pay(next++);
        this.requestIds.push(paid.transaction.requestId);
        const done = this.requestIds.length;
        if (done % 100 === 0 && done <= 900) {
          const server = (done / 100) % 2 === 1 ? this.a : this.b;
          killing = killing.then(() => server.restart());
        }
      }
    };
    await Promise.all(Array.from({ length: CALLERS }, caller));
    await killing;
  }

  async watch(): Promise<Entry[]> {
    const seen = [];
    for await (const entry of this.client.watchEntries("till")) {
      seen.push(entry);
      if (seen.length === PAYMENTS + STREAMED - 1) break;
    }
    return seen;
  }

  /** The transactions of `till`, to the last one, then again what there is after the middle. */
  async watchEvents(): Promise<Event[]> {
    const filter = { accountIdPrefixes: ["till"], kinds: [EventKind.TRANSACTION] };
    const seen: Event[] = [];
    let middle: { index: number; afterToken: string } | undefined;
    for await (const { events, token } of this.client.watchEvents({
      ...filter,
      start: "beginning",
    })) {
      seen.push(...events);
      if (seen.length >= PAYMENTS / 2) middle ??= { index: seen.length, afterToken: token };
      if (seen.length >= PAYMENTS + STREAMED - 1) break;
    }
    assert(middle !== undefined);
    const rest: Event[] = [];
    const again = this.client.watchEvents({ ...filter, start: middle });
    for await (const { events, caughtUp } of again) {
      rest.push(...events);
      if (caughtUp) break;
    }
    assert.deepEqual(rest, seen.slice(middle.index));
    return seen;
  }

  async stream(): Promise<void> {
    function* postings(): Generator<Posting> {
      for (let n = 1; n <= STREAMED; n += 1) {
        const accountId = n === 250 ? "nobody" : "till";
        const legs = [
          { accountId: "wallet", amount: usd("-0.01") },
          { accountId, amount: usd("0.01") },
        ];
        yield { requestId: `stream-${n}`, legs };
      }
    }
    let results = 0;
    for await (const result of this.onlyA.streamTransactions(postings())) {
      results += 1;
      if (result instanceof PassbookError) {
        assert.equal(result.requestId, "stream-250");
        assert.equal(result.reason, "ACCOUNT_NOT_FOUND");
      } else {
        assert.equal(result.transaction.requestId, `stream-${results}`);
        this.requestIds.push(result.transaction.requestId);
      }
      if (results === 200) await this.a.restart();
    }
    assert.equal(results, STREAMED);
  }

  async watchesAreComplete(): Promise<void> {
    const seen = await this.watching;
    seen?.forEach((entry, index) => {
      assert.equal(entry.sequence, index + 1);
    });
    assert.equal(seen?.length, PAYMENTS + STREAMED - 1);
    const events = (await this.watchingEvents) ?? [];
    const entries = events.flatMap((event) => event.transaction?.entries ?? []);
    assert.deepEqual(
      entries.filter((entry) => entry.accountId === "till"),
      seen,
    );
  }

  async end(): Promise<void> {
    const entries = await all(this.client.listEntries({ accountId: "till" }));
    assert.deepEqual(entries, await this.watching);
    const transactions = await all(this.client.listTransactions({ accountId: "till" }));
    const requestIds = transactions.map((transaction) => transaction.requestId);
    assert.equal(new Set(requestIds).size, requestIds.length, "each request once");
    assert.deepEqual(requestIds.sort(), this.requestIds.sort());
    assert.equal(requestIds.length, PAYMENTS + STREAMED - 1);
    const ids = new Set(requestIds);
    for (let cents = 2; cents <= PAYMENTS; cents += 2) assert(ids.has(`pay-${cents}`));
    const balances = {
      till: "5009.99",
      wallet: "4990.01",
      shop: "150.00",
      joint: this.joint.toFixed(2),
      vault: "12345678901234567890123.75",
    };
    for (const [accountId, balance] of Object.entries(balances)) {
      await this.checkBalance(accountId, balance);
      assert.equal((await this.client.verifyAccount(accountId)).fault, undefined, accountId);
    }
  }

  steps(): [string, () => Promise<void>][] {
    return [
      ["the joint account", () => this.jointAccount()],
      ["exact amounts", () => this.exactAmounts()],
      ["a rejection", () => this.rejection()],
      ["a replay", () => this.replay()],
      ["a hold", () => this.hold()],
      ["many accounts", () => this.manyAccounts()],
      ["a deadline", () => this.deadline()],
      ["a thousand payments", () => this.payments()],
      ["a stream", () => this.stream()],
      ["the watches", () => this.watchesAreComplete()],
      ["the end", () => this.end()],
    ];
  }
}

async function all<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const list = [];
  for await (const item of items) list.push(item);
  return list;
}

/** Waits for a step, at most 60 s. */
async function within(step: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error("the step takes more than 60 s"));
    }, 60_000);
  });
  await Promise.race([step, late]).finally(() => {
    clearTimeout(timer);
  });
}

const servers = [new ServerProcess(), new ServerProcess()] as const;
try {
  await Promise.all(servers.map((server) => server.start()));
  const story = new Story(...servers);
  for (const [index, [name, step]] of story.steps().entries()) {
    await within(step());
    console.log(`${index + 1}. ${name}: passed`);
  }
  story.close();
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await Promise.all(servers.map((server) => server.close()));
}
process.exit();
