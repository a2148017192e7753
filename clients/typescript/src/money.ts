/** Exact amounts. */

import Big from "big.js";

import type { Money as MoneyMessage } from "./gen/passbook/v1/resources.js";

/**
 * The decimal of amounts: big.js, whose sums, differences and products are exact. It is strict: it
 * takes strings and bigints, and throws on a number, which may have been rounded already.
 */
export const Decimal = Big();
Decimal.strict = true;

/** An exact amount of one currency. */
export interface Money {
  readonly value: Big;
  readonly currencyCode: string;
}

/** An amount: `money("100.00", "USD")`. */
export function money(value: Big | string | bigint, currencyCode: string): Money {
  // Another constructor's decimal is taken by its digits.
  const digits = value instanceof Big ? value.toFixed() : value;
  return { value: new Decimal(digits as string), currencyCode };
}

/**
 * The amount in the contract's form, without zeros at the end of its decimals. JavaScript does not check types: a number
 * has `toFixed`, too, and that rounds.
 */
export function moneyMessage({ value, currencyCode }: Money): MoneyMessage {
  const given: unknown = value;
  if (!(given instanceof Big)) {
    const what = `${typeof given} ${String(given)}`;
    throw new TypeError(`the field \`value\` of an amount is a Big, see money(), not the ${what}`);
  }
  return { currencyCode, value: given.toFixed() };
}

/** The amount of a message. */
export function moneyOf(message: MoneyMessage | undefined): Money {
  if (message === undefined) {
    throw new Error("the server has left out an amount");
  }
  return money(message.value, message.currencyCode);
}
