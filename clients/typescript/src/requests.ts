/** What the calls take beside postings and accounts, and the messages of it. */

import type { WatchEventsRequest } from "./gen/passbook/v1/events.js";
import { AccountState } from "./gen/passbook/v1/resources.js";
import {
  type Change,
  type Condition,
  type MoneyChange,
  type Time,
  changeMessage,
  conditionMessage,
  idOrNew,
  moneyChangeMessage,
  optional,
  timestampMessage,
} from "./model.js";
import { type Money, moneyMessage } from "./money.js";

export type Labels = Record<string, string>;

/** Which accounts are listed or summed: those that match all that is given. */
export interface AccountFilter {
  accountIdPrefix?: string;
  currencyCode?: string;
  state?: AccountState;
  labels?: Labels;
}

/** A deposit or a withdrawal. */
export interface OneAccountChange extends MoneyChange {
  accountId: string;
  amount: Money;
  condition?: Condition;
  /** A dry run. */
  validateOnly?: boolean;
}

/** A transfer. The condition is that of the source. */
export interface TransferChange extends MoneyChange {
  sourceAccountId: string;
  destinationAccountId: string;
  amount: Money;
  condition?: Condition;
  /** A dry run. */
  validateOnly?: boolean;
  /** Apply it although funds lack or an account is frozen. Needs the right `force`. */
  force?: boolean;
}

/** A change of an account's state. */
export interface StateChange {
  accountId: string;
  /** Stored in the account's history. */
  reason?: string;
  expectedVersion?: number;
}

/** A change of those attributes of an account that are given. */
export interface AccountUpdate {
  accountId: string;
  labels?: Labels;
  overdraftLimit?: Money;
  unlimitedOverdraft?: boolean;
  expectedVersion?: number;
}

/** A hold to place. */
export interface NewHold extends Change {
  /** Default: the server makes one. */
  holdId?: string;
  accountId: string;
  amount: Money;
  expireTime?: Date | Time;
}

/** A change of what is given of a hold. */
export interface HoldUpdate {
  requestId?: string;
  holdId: string;
  amount?: Money;
  expireTime?: Date | Time;
  neverExpires?: boolean;
}

/** A capture of a hold. */
export interface Capture extends MoneyChange {
  holdId: string;
  /** Default: all that is held. */
  amount?: Money;
  destinationAccountId?: string;
  keepOpen?: boolean;
  allowExcess?: boolean;
}

/** What a list adds to its filters. */
export const FIRST_PAGE = { pageSize: 0, pageToken: "" };

export function startMessage(
  start: "beginning" | "now" | { afterToken: string },
): WatchEventsRequest["start"] {
  if (start === "beginning") return { $case: "fromBeginning", value: {} };
  if (start === "now") return { $case: "fromNow", value: {} };
  return { $case: "afterToken", value: start.afterToken };
}

export function accountFilterMessage(filter: AccountFilter) {
  return {
    accountIdPrefix: filter.accountIdPrefix ?? "",
    currencyCode: filter.currencyCode ?? "",
    state: filter.state ?? AccountState.UNSPECIFIED,
    labels: filter.labels ?? {},
  };
}

export function stateMessage({ accountId, reason, expectedVersion }: StateChange) {
  return { accountId, reason: reason ?? "", expectedVersion };
}

export function oneAccountMessage(change: OneAccountChange) {
  return {
    ...moneyChangeMessage(change),
    accountId: change.accountId,
    amount: moneyMessage(change.amount),
    condition: optional(conditionMessage, change.condition),
    validateOnly: change.validateOnly ?? false,
  };
}

export function accountUpdateMessage(account: AccountUpdate) {
  const updateMask = [];
  if (account.labels !== undefined) updateMask.push("labels");
  if (account.overdraftLimit !== undefined) updateMask.push("overdraft_limit");
  if (account.unlimitedOverdraft !== undefined) updateMask.push("unlimited_overdraft");
  return {
    accountId: account.accountId,
    updateMask,
    labels: account.labels ?? {},
    overdraftLimit: optional(moneyMessage, account.overdraftLimit),
    unlimitedOverdraft: account.unlimitedOverdraft ?? false,
    expectedVersion: account.expectedVersion,
  };
}

export function transferMessage(change: TransferChange) {
  return {
    ...moneyChangeMessage(change),
    sourceAccountId: change.sourceAccountId,
    destinationAccountId: change.destinationAccountId,
    amount: moneyMessage(change.amount),
    condition: optional(conditionMessage, change.condition),
    validateOnly: change.validateOnly ?? false,
    force: change.force ?? false,
  };
}

export function newHoldMessage(change: NewHold) {
  return {
    ...changeMessage(change),
    holdId: change.holdId ?? "",
    accountId: change.accountId,
    amount: moneyMessage(change.amount),
    expireTime: optional(timestampMessage, change.expireTime),
  };
}

export function holdUpdateMessage(change: HoldUpdate) {
  const updateMask = [];
  if (change.amount !== undefined) updateMask.push("amount");
  if (change.expireTime !== undefined || change.neverExpires === true) {
    updateMask.push("expire_time");
  }
  return {
    requestId: idOrNew(change.requestId),
    holdId: change.holdId,
    updateMask,
    amount: optional(moneyMessage, change.amount),
    expireTime: optional(timestampMessage, change.neverExpires ? undefined : change.expireTime),
  };
}

export function captureMessage(change: Capture) {
  return {
    ...moneyChangeMessage(change),
    holdId: change.holdId,
    amount: optional(moneyMessage, change.amount),
    destinationAccountId: change.destinationAccountId ?? "",
    keepOpen: change.keepOpen ?? false,
    allowExcess: change.allowExcess ?? false,
  };
}
