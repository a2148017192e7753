/** A server that answers with what a test says. */

import { type TestContext } from "node:test";

import { Metadata, Server, ServerCredentials, type StatusObject } from "@grpc/grpc-js";

import { ErrorInfo, RetryInfo } from "../src/gen/google/rpc/error_details.js";
import { Status } from "../src/gen/google/rpc/status.js";
import {
  type AccountServiceServer,
  AccountServiceService,
  type StreamedRequest,
  StreamedResult,
} from "../src/gen/passbook/v1/account_service.js";
import { Transaction } from "../src/gen/passbook/v1/resources.js";
import {
  Client,
  type ClientOptions,
  type Outcome,
  PassbookError,
  type Posting,
  money,
  status,
} from "../src/index.js";

/** An answer to one request: undefined is a success. */
export type Answer = Status | undefined;

/** The error of a server, as the result of a request in a batch or a stream. */
export function errorOf(
  code: status,
  reason = "",
  {
    outcome,
    retrySeconds,
    field,
  }: { outcome?: Outcome; retrySeconds?: number; field?: string } = {},
): Status {
  const details = [];
  if (reason !== "") {
    const metadata: Record<string, string> = {};
    if (outcome !== undefined) metadata["outcome"] = outcome;
    if (field !== undefined) metadata["field"] = field;
    const value = Buffer.from(ErrorInfo.encode({ reason, domain: "passbook", metadata }).finish());
    details.push({ typeUrl: "type.googleapis.com/google.rpc.ErrorInfo", value });
  }
  if (retrySeconds !== undefined) {
    const retryDelay = { seconds: retrySeconds, nanos: 0 };
    const value = Buffer.from(RetryInfo.encode({ retryDelay }).finish());
    details.push({ typeUrl: "type.googleapis.com/google.rpc.RetryInfo", value });
  }
  return { code, message: "a test", details };
}

/** The same error as the status of a call. */
export function statusOf(error: Status): Partial<StatusObject> {
  const metadata = new Metadata();
  if (error.details.length > 0) {
    metadata.set("grpc-status-details-bin", Buffer.from(Status.encode(error).finish()));
  }
  // eslint-disable-next-line @typescript-eslint/no-unsafe-enum-assignment -- the numbers are those of gRPC
  return { code: error.code, details: error.message, metadata };
}

// What tests need most. A call that is shed for long ends: the next attempt would come after its deadline.
export const lost = errorOf(status.UNAVAILABLE);
export const shed = errorOf(status.RESOURCE_EXHAUSTED, "OVERLOADED", { outcome: "not_applied" });
export const shedForLong = errorOf(status.RESOURCE_EXHAUSTED, "OVERLOADED", {
  outcome: "not_applied",
  retrySeconds: 3600,
});
export const inDoubt = errorOf(status.UNAVAILABLE, "DATABASE_UNAVAILABLE", { outcome: "unknown" });
export const unauthenticated = errorOf(status.UNAUTHENTICATED, "UNAUTHENTICATED");
export const denied = errorOf(status.PERMISSION_DENIED, "PERMISSION_DENIED");
export const closed = errorOf(status.FAILED_PRECONDITION, "ACCOUNT_CLOSED");

/** The transaction of a request that was applied. */
export function transactionOf(requestId: string): Transaction {
  return Transaction.fromPartial({ requestId });
}

/** The result of a request in a shared stream. */
export function streamedResult({ request }: StreamedRequest, error: Answer): StreamedResult {
  const requestId = request?.value.requestId ?? "";
  return StreamedResult.fromPartial({
    requestId,
    transaction: error === undefined ? transactionOf(requestId) : undefined,
    error,
  });
}

/** Starts a server with these methods until the end of the test. It has no others. */
export async function start(
  t: TestContext,
  methods: Partial<AccountServiceServer>,
): Promise<string> {
  const server = new Server();
  server.addService(AccountServiceService, methods as AccountServiceServer);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) => {
      if (error === null) resolve(port);
      else reject(error);
    });
  });
  t.after(() => {
    server.forceShutdown();
  });
  return `127.0.0.1:${port}`;
}

/** A client until the end of the test. */
export function connect(
  t: TestContext,
  addresses: string | readonly string[],
  options: ClientOptions = {},
): Client {
  const client = new Client(addresses, options);
  t.after(() => {
    client.close();
  });
  return client;
}

/** A deposit under an id. */
export function deposit(requestId: string) {
  return { requestId, accountId: "joint", amount: money("1.00", "USD") };
}

/** A posting under an id. */
export function posting(requestId: string): Posting {
  return { requestId, legs: [{ accountId: "joint", amount: money("1.00", "USD") }] };
}

/** The error of a call that has no result. */
export async function failed(call: Promise<unknown>): Promise<PassbookError> {
  const result = await call.catch((raised: unknown) => raised);
  if (!(result instanceof PassbookError)) throw new Error(`no error: ${String(result)}`);
  return result;
}
