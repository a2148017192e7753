/** The values that calls take and return: those of the contract, with exact amounts and times. */

import { PassbookError, errorOfStatus } from "./errors.js";
import type * as service from "./gen/passbook/v1/account_service.js";
import type * as events from "./gen/passbook/v1/events.js";
import type * as history from "./gen/passbook/v1/history.js";
import type * as holds from "./gen/passbook/v1/holds.js";
import type * as lifecycle from "./gen/passbook/v1/lifecycle.js";
import type * as resources from "./gen/passbook/v1/resources.js";
import { type Money, moneyMessage, moneyOf } from "./money.js";

/** A time as RFC 3339 text in UTC, with all digits that the server sends. A Date has milliseconds. */
export type Time = string;

/** What must be true of an account for a request to be applied. Only what is set is checked. */
export interface Condition {
  /** The account's version before the change. */
  expectedVersion?: number;
  minBalanceAfter?: Money;
  maxBalanceAfter?: Money;
}

/** One element of a posting: an account, and a signed amount that it receives. */
export interface Leg {
  accountId: string;
  amount: Money;
  condition?: Condition;
}

/** What every change of balances or holds takes. */
export interface Change {
  /** The id of the request. Store it before the call. Default, and if it is empty: the client makes one. */
  requestId?: string;
  description?: string;
  labels?: Record<string, string>;
}

/** What every change of balances takes. */
export interface MoneyChange extends Change {
  /** When it counts (its value date), in the past or in the future. Default: when it is applied. */
  effectiveTime?: Date | Time;
}

/** A request of one or more legs: all are applied or none is. */
export interface Posting extends MoneyChange {
  legs: readonly Leg[];
  /** A dry run. */
  validateOnly?: boolean;
  /** Apply it although funds lack or an account is frozen. Needs the right `force`. */
  force?: boolean;
  /** Reject it with UNBALANCED unless the amounts sum to zero in each currency. */
  requireBalanced?: boolean;
}

/** An account to open. */
export interface NewAccount {
  /** Default, and if it is empty: the client makes one. */
  accountId?: string;
  currencyCode: string;
  overdraftLimit?: Money;
  unlimitedOverdraft?: boolean;
  labels?: Record<string, string>;
}

/** One account. docs/glossary.md defines the terms. */
export type Account = Omit<resources.Account, Amounts | "createTime" | "updateTime"> & {
  balance: Money;
  held: Money;
  available: Money;
  overdraftLimit: Money;
  createTime: Time;
  updateTime: Time;
};
type Amounts = "balance" | "held" | "available" | "overdraftLimit";

/** The attributes of an account that can be changed. */
export type AccountAttributes = Omit<lifecycle.AccountAttributes, "overdraftLimit"> & {
  overdraftLimit: Money;
};

/** One change of an account's state or attributes. */
export type AccountChange = Omit<lifecycle.AccountChange, "before" | "after" | "createTime"> & {
  before: AccountAttributes;
  after: AccountAttributes;
  createTime: Time;
};

/** One line of an account's statement. A dry run has no time. */
export type Entry = Omit<
  resources.Entry,
  "amount" | "balanceAfter" | "createTime" | "effectiveTime"
> & {
  amount: Money;
  balanceAfter: Money;
  createTime: Time | undefined;
  /** When it counts, if that is not its `createTime`. */
  effectiveTime: Time | undefined;
};

/** What one applied request did to balances. A dry run has no time. */
export type Transaction = Omit<
  resources.Transaction,
  "entries" | "createTime" | "effectiveTime" | "reversedAmount"
> & {
  entries: Entry[];
  createTime: Time | undefined;
  /** When it counts, if that is not its `createTime`. */
  effectiveTime: Time | undefined;
  /** The sum of the reversals, if only a part was reversed. */
  reversedAmount: Money | undefined;
};

/** An amount that is set aside on an account. */
export type Hold = Omit<
  holds.Hold,
  "amount" | "capturedAmount" | "expireTime" | "createTime" | "updateTime"
> & {
  amount: Money;
  capturedAmount: Money | undefined;
  expireTime: Time | undefined;
  createTime: Time;
  updateTime: Time;
};

/** Something that happened in the ledger, with what it concerns as that was right after it. */
export type Event = Omit<events.Event, "transaction" | "hold" | "account" | "accountChange"> & {
  transaction: Transaction | undefined;
  hold: Hold | undefined;
  account: Account | undefined;
  accountChange: AccountChange | undefined;
};

/** The next events of a watch. Without an event: a heartbeat. */
export interface Events {
  events: Event[];
  /** The position behind these events: start again after it. */
  token: string;
  /** Since when the watch waits for a server that hangs in a database transaction. */
  delayedSince: Time | undefined;
  /**
   * Whether all events that match and were committed when the stream began have come. After a broken
   * connection, the next stream says it anew.
   */
  caughtUp: boolean;
}

/** The result of a request that was applied. */
export interface TransactionResult {
  transaction: Transaction;
  /** Whether the result was stored before under this request id. */
  replayed: boolean;
}

/** The result of placing, updating or releasing a hold. */
export interface HoldResult {
  hold: Hold;
  replayed: boolean;
}

/** The result of capturing a hold. */
export interface CaptureResult extends TransactionResult, HoldResult {}

/** The balance of an account at a time. */
export interface Balance {
  balance: Money;
  /** The sequence of the latest entry in the balance. */
  sequence: number;
}

/** The sum of all accounts of one currency that match. */
export type BalanceSum = Omit<service.BalanceSum, "balance" | "held" | "available"> & {
  balance: Money;
  /** Undefined in a sum of a past time. */
  held: Money | undefined;
  /** Undefined in a sum of a past time. */
  available: Money | undefined;
};

/** What became of a request. */
export interface RequestResult {
  outcome: history.RequestOutcome;
  transaction: Transaction | undefined;
  hold: Hold | undefined;
  /** The rejection, as the caller got it. */
  error: PassbookError | undefined;
  /**
   * Whether no request with this id is ever applied. If the outcome is NOT_SEEN and this is false, the
   * request can still be on its way.
   */
  fenced: boolean;
}

export function accountOf(message: resources.Account | undefined): Account {
  const account = present(message);
  return {
    ...account,
    balance: moneyOf(account.balance),
    held: moneyOf(account.held),
    available: moneyOf(account.available),
    overdraftLimit: moneyOf(account.overdraftLimit),
    createTime: timeOf(account.createTime),
    updateTime: timeOf(account.updateTime),
  };
}

function attributesOf(message: lifecycle.AccountAttributes | undefined): AccountAttributes {
  const attributes = present(message);
  return { ...attributes, overdraftLimit: moneyOf(attributes.overdraftLimit) };
}

export function accountChangeOf(message: lifecycle.AccountChange): AccountChange {
  return {
    ...message,
    before: attributesOf(message.before),
    after: attributesOf(message.after),
    createTime: timeOf(message.createTime),
  };
}

export function entryOf(message: resources.Entry): Entry {
  return {
    ...message,
    amount: moneyOf(message.amount),
    balanceAfter: moneyOf(message.balanceAfter),
    createTime: optional(timeOf, message.createTime),
    effectiveTime: optional(timeOf, message.effectiveTime),
  };
}

export function transactionOf(message: resources.Transaction | undefined): Transaction {
  const transaction = present(message);
  return {
    ...transaction,
    entries: transaction.entries.map(entryOf),
    createTime: optional(timeOf, transaction.createTime),
    effectiveTime: optional(timeOf, transaction.effectiveTime),
    reversedAmount: optional(moneyOf, transaction.reversedAmount),
  };
}

export function transactionResultOf(response: {
  transaction?: resources.Transaction | undefined;
  replayed: boolean;
}): TransactionResult {
  return { transaction: transactionOf(response.transaction), replayed: response.replayed };
}

export function holdOf(message: holds.Hold | undefined): Hold {
  const hold = present(message);
  return {
    ...hold,
    amount: moneyOf(hold.amount),
    capturedAmount: optional(moneyOf, hold.capturedAmount),
    expireTime: optional(timeOf, hold.expireTime),
    createTime: timeOf(hold.createTime),
    updateTime: timeOf(hold.updateTime),
  };
}

export function holdResultOf(response: {
  hold?: holds.Hold | undefined;
  replayed: boolean;
}): HoldResult {
  return { hold: holdOf(response.hold), replayed: response.replayed };
}

export function balanceSumOf(message: service.BalanceSum): BalanceSum {
  return {
    ...message,
    balance: moneyOf(message.balance),
    held: optional(moneyOf, message.held),
    available: optional(moneyOf, message.available),
  };
}

export function eventsOf(message: events.WatchEventsResponse): Events {
  return {
    events: message.events.map((event) => ({
      ...event,
      transaction: optional(transactionOf, event.transaction),
      hold: optional(holdOf, event.hold),
      account: optional(accountOf, event.account),
      accountChange: optional(accountChangeOf, event.accountChange),
    })),
    token: message.token,
    delayedSince: optional(timeOf, message.delayedSince),
    caughtUp: message.caughtUp,
  };
}

export function requestResultOf(
  requestId: string,
  message: history.GetRequestOutcomeResponse | history.FenceRequestResponse,
): RequestResult {
  const error = optional(errorOfStatus, message.error);
  if (error !== undefined) error.requestId = requestId;
  return {
    outcome: message.outcome,
    transaction: optional(transactionOf, message.transaction),
    hold: optional(holdOf, message.hold),
    error,
    fenced: message.fenced,
  };
}

/**
 * The id, or a new one if there is none. An empty one is none: the server would make an id in each
 * attempt, and a repeat would open a second account.
 */
export function idOrNew(id: string | undefined): string {
  return id ? id : crypto.randomUUID();
}

export function newAccountMessage(account: NewAccount): service.CreateAccountRequest {
  return {
    accountId: idOrNew(account.accountId),
    currencyCode: account.currencyCode,
    overdraftLimit: optional(moneyMessage, account.overdraftLimit),
    unlimitedOverdraft: account.unlimitedOverdraft ?? false,
    labels: account.labels ?? {},
  };
}

export function conditionMessage(condition: Condition): resources.Condition {
  return {
    expectedVersion: condition.expectedVersion,
    minBalanceAfter: optional(moneyMessage, condition.minBalanceAfter),
    maxBalanceAfter: optional(moneyMessage, condition.maxBalanceAfter),
  };
}

export function legMessage(leg: Leg): service.Leg {
  return {
    accountId: leg.accountId,
    amount: moneyMessage(leg.amount),
    condition: optional(conditionMessage, leg.condition),
  };
}

/** The fields that all changes of balances and holds have. */
export function changeMessage(change: Change): Required<Change> {
  return {
    requestId: idOrNew(change.requestId),
    description: change.description ?? "",
    labels: change.labels ?? {},
  };
}

/** The fields that all changes of balances have. */
export function moneyChangeMessage(change: MoneyChange) {
  return {
    ...changeMessage(change),
    effectiveTime: optional(timestampMessage, change.effectiveTime),
  };
}

export function postingMessage(posting: Posting): service.PostTransactionRequest {
  return {
    ...moneyChangeMessage(posting),
    legs: posting.legs.map(legMessage),
    validateOnly: posting.validateOnly ?? false,
    force: posting.force ?? false,
    requireBalanced: posting.requireBalanced ?? false,
  };
}

/** The message of a time: a Date, or RFC 3339 text in UTC with up to nine decimals. */
export function timestampMessage(time: Date | Time): Timestamp {
  if (time instanceof Date) time = time.toISOString();
  const parts = /^(.{19})(?:\.(\d{1,9}))?Z$/.exec(time);
  const ms = Date.parse(`${parts?.[1] ?? ""}Z`);
  if (parts === null || Number.isNaN(ms)) throw new RangeError(`${time} is not a time in UTC`);
  return { seconds: ms / 1000, nanos: Number((parts[2] ?? "").padEnd(9, "0")) };
}

function timeOf(message: Timestamp | undefined): Time {
  const { seconds, nanos } = present(message);
  const fraction = nanos
    .toString()
    .padStart(9, "0")
    .replace(/(?:000){1,3}$/, "");
  const whole = new Date(seconds * 1000).toISOString().slice(0, 19);
  return fraction === "" ? `${whole}Z` : `${whole}.${fraction}Z`;
}

export interface Timestamp {
  seconds: number;
  nanos: number;
}

/** Applies a conversion to a value that may be absent. */
export function optional<From, To>(
  convert: (value: From) => To,
  value: From | undefined,
): To | undefined {
  return value === undefined ? undefined : convert(value);
}

function present<Message>(message: Message | undefined): Message {
  if (message === undefined) throw new Error("the server has left out a part of the response");
  return message;
}
