/** The client: one method for each call of the service. */

import { batchCreateAccounts, batchPostTransactions } from "./batches.js";
import { type CallOptions, Calls, type ClientOptions } from "./calls.js";
import type { PassbookError } from "./errors.js";
import { AccountServiceService as methods, EntryOrder } from "./gen/passbook/v1/account_service.js";
import type { EventKind } from "./gen/passbook/v1/events.js";
import { HoldState } from "./gen/passbook/v1/holds.js";
import type { VerifyAccountResponse } from "./gen/passbook/v1/history.js";
import { TimeBasis, TransactionKind } from "./gen/passbook/v1/resources.js";
import {
  type Account,
  type AccountChange,
  type Balance,
  type BalanceSum,
  type CaptureResult,
  type Entry,
  type Events,
  type Hold,
  type HoldResult,
  type MoneyChange,
  type NewAccount,
  type Posting,
  type RequestResult,
  type Time,
  type Transaction,
  type TransactionResult,
  accountChangeOf,
  accountOf,
  balanceSumOf,
  entryOf,
  holdOf,
  holdResultOf,
  idOrNew,
  moneyChangeMessage,
  newAccountMessage,
  optional,
  postingMessage,
  requestResultOf,
  timestampMessage,
  transactionOf,
  transactionResultOf,
} from "./model.js";
import { type Money, moneyMessage, moneyOf } from "./money.js";
import {
  type AccountFilter,
  type AccountUpdate,
  type Capture,
  type HoldUpdate,
  type Labels,
  type NewHold,
  type OneAccountChange,
  type StateChange,
  type TransferChange,
  FIRST_PAGE,
  accountFilterMessage,
  accountUpdateMessage,
  captureMessage,
  holdUpdateMessage,
  newHoldMessage,
  oneAccountMessage,
  startMessage,
  stateMessage,
  transferMessage,
} from "./requests.js";
import { streamTransactions, watchEntries, watchEvents } from "./streams.js";

/**
 * A client of one or several Passbook servers over one ledger.
 *
 * Every call rejects with a `PassbookError`. `timeoutMs` bounds a call with all of its attempts. A
 * change has a `requestId`, which stays the same in all attempts: choose it yourself and store it
 * before the call, or the client makes one.
 */
export class Client {
  readonly #calls: Calls;

  /** A client of `HOST:PORT`, or of several of them in turn. Connections open on first use. */
  constructor(servers: string | readonly string[], options: ClientOptions = {}) {
    this.#calls = new Calls(typeof servers === "string" ? [servers] : servers, options);
  }

  /** Closes all connections. What is under way ends with CANCELLED, a change with its outcome. */
  close(): void {
    this.#calls.close();
  }

  /** Opens an account. The same call again returns the account. */
  async createAccount(account: NewAccount, options?: CallOptions): Promise<Account> {
    const request = newAccountMessage(account);
    const response = await this.#calls.change(methods.createAccount, request, options);
    return accountOf(response.account);
  }

  /**
   * Opens up to 1,000 accounts in one call. Each stands alone; results are in their order. An opening
   * that has no result yet, because it was shed or its deadline passed, is repeated alone. If the whole
   * call fails, its error has all ids: `accountIds`.
   */
  batchCreateAccounts(
    accounts: readonly NewAccount[],
    options?: CallOptions,
  ): Promise<(Account | PassbookError)[]> {
    return batchCreateAccounts(this.#calls, accounts, options);
  }

  /** Returns an account as it is now. */
  async getAccount(accountId: string, options?: CallOptions): Promise<Account> {
    const response = await this.#calls.read(methods.getAccount, { accountId }, options);
    return accountOf(response.account);
  }

  /** Returns up to 1,000 accounts from one snapshot, in the order of their ids here. */
  async batchGetAccounts(accountIds: string[], options?: CallOptions): Promise<Account[]> {
    const response = await this.#calls.read(methods.batchGetAccounts, { accountIds }, options);
    return response.accounts.map(accountOf);
  }

  /** Lists accounts that match all filters, in byte order of their ids, page by page. */
  async *listAccounts(filter: AccountFilter = {}, options?: CallOptions): AsyncGenerator<Account> {
    const request = { ...accountFilterMessage(filter), ...FIRST_PAGE };
    for await (const page of this.#calls.pages(methods.listAccounts, request, options)) {
      yield* page.accounts.map(accountOf);
    }
  }

  /**
   * Sums the accounts that match all filters, by currency, from one snapshot. With `atTime`, the sums of
   * a past time, which have no `held` and no `available`.
   */
  async sumBalances(
    filter: AccountFilter & { atTime?: Date | Time } = {},
    options?: CallOptions,
  ): Promise<BalanceSum[]> {
    const request = {
      ...accountFilterMessage(filter),
      atTime: optional(timestampMessage, filter.atTime),
    };
    const response = await this.#calls.read(methods.sumBalances, request, options);
    return response.sums.map(balanceSumOf);
  }

  /** Changes those attributes that are given. `labels` replace all labels. */
  async updateAccount(account: AccountUpdate, options?: CallOptions): Promise<Account> {
    const request = accountUpdateMessage(account);
    const response = await this.#calls.update(methods.updateAccount, request, options);
    return accountOf(response.account);
  }

  /** Freezes an account: money may come in, but not go out. */
  async freezeAccount(change: StateChange, options?: CallOptions): Promise<Account> {
    const request = stateMessage(change);
    const response = await this.#calls.update(methods.freezeAccount, request, options);
    return accountOf(response.account);
  }

  /** Opens a frozen account again. */
  async unfreezeAccount(change: StateChange, options?: CallOptions): Promise<Account> {
    const request = stateMessage(change);
    const response = await this.#calls.update(methods.unfreezeAccount, request, options);
    return accountOf(response.account);
  }

  /** Closes an account permanently. Its balance must be zero, and it must have no open holds. */
  async closeAccount(change: StateChange, options?: CallOptions): Promise<Account> {
    const request = stateMessage(change);
    const response = await this.#calls.update(methods.closeAccount, request, options);
    return accountOf(response.account);
  }

  /** Lists the changes of an account's state and attributes, oldest first, page by page. */
  async *listAccountChanges(
    accountId: string,
    options?: CallOptions,
  ): AsyncGenerator<AccountChange> {
    const request = { accountId, ...FIRST_PAGE };
    for await (const page of this.#calls.pages(methods.listAccountChanges, request, options)) {
      yield* page.changes.map(accountChangeOf);
    }
  }

  /** Adds money to an account. */
  async deposit(change: OneAccountChange, options?: CallOptions): Promise<TransactionResult> {
    const request = oneAccountMessage(change);
    return transactionResultOf(await this.#calls.change(methods.deposit, request, options));
  }

  /** Takes money out of an account. */
  async withdraw(
    change: OneAccountChange & Pick<Posting, "force">,
    options?: CallOptions,
  ): Promise<TransactionResult> {
    const request = { ...oneAccountMessage(change), force: change.force ?? false };
    return transactionResultOf(await this.#calls.change(methods.withdraw, request, options));
  }

  /** Moves money between two accounts. */
  async transfer(change: TransferChange, options?: CallOptions): Promise<TransactionResult> {
    const request = transferMessage(change);
    return transactionResultOf(await this.#calls.change(methods.transfer, request, options));
  }

  /** Posts up to 100 legs on any accounts: all are applied or none is. */
  async postTransaction(posting: Posting, options?: CallOptions): Promise<TransactionResult> {
    const request = postingMessage(posting);
    return transactionResultOf(await this.#calls.change(methods.postTransaction, request, options));
  }

  /**
   * Posts up to 1,000 postings in one call. Each stands alone; results are in their order. A posting
   * that has no result yet, because it was shed or its deadline passed, is repeated alone. If the whole
   * call fails, its error has all ids: `requestIds`.
   */
  batchPostTransactions(
    postings: readonly Posting[],
    options?: CallOptions,
  ): Promise<(TransactionResult | PassbookError)[]> {
    return batchPostTransactions(this.#calls, postings, options);
  }

  /**
   * Posts postings one after another and yields their results in the same order. Postings are taken
   * only as fast as results are read, at most 1,024 ahead. A stream that breaks is opened again, and
   * postings without a result are sent again under their ids. If no server answers for 60 seconds, the
   * last error is thrown. What the iterable throws, and the error of a posting that cannot be sent, come
   * after the results of the postings before.
   */
  streamTransactions(
    postings: Iterable<Posting> | AsyncIterable<Posting>,
    options: { signal?: AbortSignal } = {},
  ): AsyncGenerator<TransactionResult | PassbookError> {
    return streamTransactions(this.#calls, postings, options.signal);
  }

  /** Posts the opposite of a transaction: all that is not reversed yet, or an amount of it. */
  async reverseTransaction(
    change: MoneyChange & Pick<Posting, "force"> & { transactionId: string; amount?: Money },
    options?: CallOptions,
  ): Promise<TransactionResult> {
    const request = {
      ...moneyChangeMessage(change),
      transactionId: change.transactionId,
      amount: optional(moneyMessage, change.amount),
      force: change.force ?? false,
    };
    return transactionResultOf(
      await this.#calls.change(methods.reverseTransaction, request, options),
    );
  }

  /** Sets an amount aside. Without a name (`holdId`), the server makes one. */
  async placeHold(change: NewHold, options?: CallOptions): Promise<HoldResult> {
    const request = newHoldMessage(change);
    return holdResultOf(await this.#calls.change(methods.placeHold, request, options));
  }

  /**
   * Changes the amount or the expire time of a hold. What is not given stays as it is. With
   * `neverExpires` the hold no longer expires.
   */
  async updateHold(change: HoldUpdate, options?: CallOptions): Promise<HoldResult> {
    const request = holdUpdateMessage(change);
    return holdResultOf(await this.#calls.change(methods.updateHold, request, options));
  }

  /**
   * Takes the money of a hold, all or part of it, and releases the rest. With `keepOpen` the rest stays
   * held. With `allowExcess` the amount may be more than is held, if it is available.
   */
  async captureHold(change: Capture, options?: CallOptions): Promise<CaptureResult> {
    const request = captureMessage(change);
    const response = await this.#calls.change(methods.captureHold, request, options);
    return { ...transactionResultOf(response), ...holdResultOf(response) };
  }

  /** Gives up a hold. */
  async releaseHold(
    change: { requestId?: string; holdId: string },
    options?: CallOptions,
  ): Promise<HoldResult> {
    const request = { requestId: idOrNew(change.requestId), holdId: change.holdId };
    return holdResultOf(await this.#calls.change(methods.releaseHold, request, options));
  }

  /** Returns a hold as it is now. */
  async getHold(holdId: string, options?: CallOptions): Promise<Hold> {
    return holdOf((await this.#calls.read(methods.getHold, { holdId }, options)).hold);
  }

  /** Lists the holds of an account, in byte order of their ids, page by page. */
  async *listHolds(
    filter: { accountId: string; state?: HoldState },
    options?: CallOptions,
  ): AsyncGenerator<Hold> {
    const request = {
      accountId: filter.accountId,
      state: filter.state ?? HoldState.UNSPECIFIED,
      ...FIRST_PAGE,
    };
    for await (const page of this.#calls.pages(methods.listHolds, request, options)) {
      yield* page.holds.map(holdOf);
    }
  }

  /** Returns a transaction by its id, or by the id of its request. */
  async getTransaction(
    by: { transactionId: string } | { requestId: string },
    options?: CallOptions,
  ): Promise<Transaction> {
    const lookup =
      "transactionId" in by
        ? ({ $case: "transactionId", value: by.transactionId } as const)
        : ({ $case: "requestId", value: by.requestId } as const);
    const response = await this.#calls.read(methods.getTransaction, { lookup }, options);
    return transactionOf(response.transaction);
  }

  /** Lists transactions that match all filters, latest first, page by page. */
  async *listTransactions(
    filter: {
      accountId?: string;
      kind?: TransactionKind;
      startTime?: Date | Time;
      endTime?: Date | Time;
      timeBasis?: TimeBasis;
      labels?: Labels;
    } = {},
    options?: CallOptions,
  ): AsyncGenerator<Transaction> {
    const request = {
      accountId: filter.accountId ?? "",
      kind: filter.kind ?? TransactionKind.UNSPECIFIED,
      startTime: optional(timestampMessage, filter.startTime),
      endTime: optional(timestampMessage, filter.endTime),
      timeBasis: filter.timeBasis ?? TimeBasis.UNSPECIFIED,
      labels: filter.labels ?? {},
      ...FIRST_PAGE,
    };
    for await (const page of this.#calls.pages(methods.listTransactions, request, options)) {
      yield* page.transactions.map(transactionOf);
    }
  }

  /** Lists the statement of an account, oldest first, page by page. */
  async *listEntries(
    filter: {
      accountId: string;
      afterSequence?: number;
      startTime?: Date | Time;
      endTime?: Date | Time;
      order?: EntryOrder;
      timeBasis?: TimeBasis;
    },
    options?: CallOptions,
  ): AsyncGenerator<Entry> {
    const request = {
      accountId: filter.accountId,
      afterSequence: filter.afterSequence ?? 0,
      startTime: optional(timestampMessage, filter.startTime),
      endTime: optional(timestampMessage, filter.endTime),
      order: filter.order ?? EntryOrder.UNSPECIFIED,
      timeBasis: filter.timeBasis ?? TimeBasis.UNSPECIFIED,
      ...FIRST_PAGE,
    };
    for await (const page of this.#calls.pages(methods.listEntries, request, options)) {
      yield* page.entries.map(entryOf);
    }
  }

  /** Returns the balance of an account at a time, or now. */
  async getBalance(
    query: { accountId: string; atTime?: Date | Time; timeBasis?: TimeBasis },
    options?: CallOptions,
  ): Promise<Balance> {
    const request = {
      accountId: query.accountId,
      atTime: optional(timestampMessage, query.atTime),
      timeBasis: query.timeBasis ?? TimeBasis.UNSPECIFIED,
    };
    const { balance, sequence } = await this.#calls.read(methods.getBalance, request, options);
    return { balance: moneyOf(balance), sequence };
  }

  /**
   * Yields the entries of an account: first those that exist, then each new one, in order and without
   * a gap. A watch that breaks continues by itself after the last entry. It has no end of its own:
   * leave the loop, or abort the signal. It throws final errors, and the last error if no server
   * answers for 60 seconds.
   */
  watchEntries(
    accountId: string,
    options: { afterSequence?: number; signal?: AbortSignal } = {},
  ): AsyncGenerator<Entry> {
    return watchEntries(this.#calls, accountId, options.afterSequence ?? 0, options.signal);
  }

  /**
   * Yields everything that happens and matches all filters, with the token behind it. Each event comes
   * once, and those of an account come in order. `Events` without an event are a heartbeat. Store the
   * token together with what the events cause, and start again after that token: then each event counts
   * once, whatever breaks. A watch from now begins with its first heartbeat, which comes at once with the
   * token of that moment. To read only what there is, stop after the first `Events` that are `caughtUp`.
   *
   * A watch that breaks continues by itself after the last token. It ends as `watchEntries` does.
   */
  watchEvents(
    filter: {
      start: "beginning" | "now" | { afterToken: string };
      accountIdPrefixes?: string[];
      kinds?: EventKind[];
      currencyCode?: string;
      labels?: Labels;
    },
    options: { signal?: AbortSignal } = {},
  ): AsyncGenerator<Events> {
    const request = {
      accountIdPrefixes: filter.accountIdPrefixes ?? [],
      kinds: filter.kinds ?? [],
      currencyCode: filter.currencyCode ?? "",
      labels: filter.labels ?? {},
      start: startMessage(filter.start),
    };
    return watchEvents(this.#calls, request, options.signal);
  }

  /** Returns what became of a request until now, without applying it. */
  async getRequestOutcome(requestId: string, options?: CallOptions): Promise<RequestResult> {
    const response = await this.#calls.read(methods.getRequestOutcome, { requestId }, options);
    return requestResultOf(requestId, response);
  }

  /** Makes sure that a request without a result is never applied; returns what became of it. */
  async fenceRequest(requestId: string, options?: CallOptions): Promise<RequestResult> {
    const response = await this.#calls.change(methods.fenceRequest, { requestId }, options);
    return requestResultOf(requestId, response);
  }

  /** Recomputes an account from all of its entries. Set the timeout to match their number. */
  verifyAccount(accountId: string, options?: CallOptions): Promise<VerifyAccountResponse> {
    return this.#calls.read(methods.verifyAccount, { accountId }, options);
  }
}
