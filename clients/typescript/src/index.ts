/** The client of Passbook, a gRPC account service: exact amounts, exactly once. */

export { status } from "@grpc/grpc-js";

export type { CallOptions, ClientOptions } from "./calls.js";
export { Client } from "./client.js";
export { PassbookError } from "./errors.js";
export type { Outcome } from "./errors.js";
export { EntryOrder } from "./gen/passbook/v1/account_service.js";
export { RequestOutcome, VerificationFaultKind } from "./gen/passbook/v1/history.js";
export type { VerificationFault, VerifyAccountResponse } from "./gen/passbook/v1/history.js";
export { EventKind } from "./gen/passbook/v1/events.js";
export { HoldState } from "./gen/passbook/v1/holds.js";
export { AccountChangeKind } from "./gen/passbook/v1/lifecycle.js";
export { AccountState, TimeBasis, TransactionKind } from "./gen/passbook/v1/resources.js";
export type * from "./model.js";
export { Decimal, money } from "./money.js";
export type { Money } from "./money.js";
export type {
  AccountFilter,
  AccountUpdate,
  Capture,
  HoldUpdate,
  NewHold,
  OneAccountChange,
  StateChange,
  TransferChange,
} from "./requests.js";
export type { Tls } from "./servers.js";
