/** The error of a call, and what it means for the request. */

import { type ServiceError, status } from "@grpc/grpc-js";

import { ErrorInfo, RetryInfo } from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";

/** What became of a change without a result. */
export type Outcome = "not_applied" | "unknown";

const RESULT_CODES = new Set([
  status.INVALID_ARGUMENT,
  status.OUT_OF_RANGE,
  status.NOT_FOUND,
  status.ALREADY_EXISTS,
  status.FAILED_PRECONDITION,
]);
const DENIED_CODES = new Set([
  status.UNAUTHENTICATED,
  status.PERMISSION_DENIED,
  status.UNIMPLEMENTED,
]);
/** Of the ErrorInfo in errors of Passbook. */
const DOMAIN = "passbook";
/** Ids of a batch in the text of its error. */
const IDS_IN_TEXT_MAX = 10;
const FINAL_REASONS = new Set(["VERSION_MISMATCH", "REQUEST_TOO_LARGE", "RESPONSE_TOO_LARGE"]);

interface Details {
  reason?: string;
  metadata?: Readonly<Record<string, string>>;
  retryDelayMs?: number;
  cause?: unknown;
}

/** A call that has no successful result. */
export class PassbookError extends Error {
  override readonly name = "PassbookError";
  /** The code of gRPC. */
  readonly code: status;
  /** Why, from the enum `ErrorReason`: `INSUFFICIENT_FUNDS`. Empty if the service did not answer. */
  readonly reason: string;
  /** The values behind the reason, such as `available` and `required`. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The time to wait before a repeat, if the server asks for a delay. */
  readonly retryDelayMs: number;
  /**
   * Of a change without a result: whether it is `not_applied` or `unknown`. Absent: the error is final,
   * nothing was applied, and a repeat has no other result; or the call was a read.
   */
  outcome?: Outcome;
  /** The id of the request. After `unknown`, repeat the call with this id, or fence it. */
  requestId?: string;
  /** The id of the account, if the call opens one. After `unknown`, repeat the call with this id. */
  accountId?: string;
  /**
   * The ids in a batch of postings that has failed as a whole, or in a stream that has ended before
   * their results. Each has this outcome.
   */
  requestIds?: readonly string[];
  /** The ids in a batch of openings that has failed as a whole. Each has this outcome. */
  accountIds?: readonly string[];

  constructor(code: status, message: string, details: Details = {}) {
    super(message, details);
    this.code = code;
    this.reason = details.reason ?? "";
    this.metadata = details.metadata ?? {};
    this.retryDelayMs = details.retryDelayMs ?? 0;
  }

  override toString(): string {
    const text = [status[this.code], this.reason, this.message].filter(Boolean).join(": ");
    const notes = [];
    if (this.outcome !== undefined) notes.push(`outcome ${this.outcome}`);
    if (this.requestId !== undefined) notes.push(`request_id ${this.requestId}`);
    if (this.accountId !== undefined) notes.push(`account_id ${this.accountId}`);
    if (this.requestIds !== undefined) notes.push(listOf("request_ids", this.requestIds));
    if (this.accountIds !== undefined) notes.push(listOf("account_ids", this.accountIds));
    return notes.length > 0 ? `${text} (${notes.join(", ")})` : text;
  }

  /** Whether another attempt would end in the same way. */
  get isFinal(): boolean {
    return (
      RESULT_CODES.has(this.code) ||
      DENIED_CODES.has(this.code) ||
      FINAL_REASONS.has(this.reason) ||
      // A limit of the library, such as the size of a message.
      (this.code === status.RESOURCE_EXHAUSTED && this.reason === "")
    );
  }

  /**
   * Whether an attempt that ends with this error may have been applied. A server that denies a call or
   * a stream has not looked at a request, unless the stream `wasAnswered` before.
   */
  leavesDoubt(wasAnswered = false): boolean {
    if (this.metadata["outcome"] === "not_applied") return false;
    return wasAnswered || !DENIED_CODES.has(this.code);
  }

  /** The outcome of a change whose last attempt ended with this error. `inDoubt`: an earlier attempt may have been applied. */
  outcomeOfCall(inDoubt: boolean): Outcome | undefined {
    const isResult = RESULT_CODES.has(this.code) || this.reason === "VERSION_MISMATCH";
    if (isResult && !(inDoubt && this.#isOfThisServer)) return undefined;
    if (inDoubt || this.leavesDoubt()) return "unknown";
    return this.metadata["outcome"] === "not_applied" ? "not_applied" : undefined;
  }

  /**
   * Whether this server found a field invalid before it looked for a stored result. Another server,
   * whose settings differ, may have applied the request. An amount and a time can be out of range by
   * themselves: then the error names their field. Whatever outcome the error has is that of the last
   * attempt.
   */
  get #isOfThisServer(): boolean {
    if (this.code === status.OUT_OF_RANGE) return "field" in this.metadata;
    return this.code === status.INVALID_ARGUMENT && this.reason !== "REQUEST_ID_REUSED";
  }
}

/** The number of ids, the first ones, and how many more there are. */
function listOf(name: string, ids: readonly string[]): string {
  const more = ids.length - IDS_IN_TEXT_MAX;
  const text = `${ids.length} ${name}: ${ids.slice(0, IDS_IN_TEXT_MAX).join(", ")}`;
  return more > 0 ? `${text} and ${more} more` : text;
}

/** The error of an attempt, from its status and trailers. */
function errorOfCall(error: ServiceError): PassbookError {
  const [details] = error.metadata.get("grpc-status-details-bin");
  if (details instanceof Buffer) return errorOfStatus(Status.decode(details));
  return new PassbookError(error.code, error.details);
}

/** The error of a `google.rpc.Status`, which results of batches and streams also have. */
export function errorOfStatus(of: Status): PassbookError {
  const details: Details = {};
  for (const { typeUrl, value } of of.details) {
    switch (typeUrl.slice(typeUrl.lastIndexOf("/") + 1)) {
      case "google.rpc.ErrorInfo": {
        const info = ErrorInfo.decode(value);
        // That of another service, such as a proxy, says nothing of the request.
        if (info.domain !== DOMAIN) break;
        details.reason = info.reason;
        details.metadata = info.metadata;
        break;
      }
      case "google.rpc.RetryInfo": {
        const delay = RetryInfo.decode(value).retryDelay;
        details.retryDelayMs = (delay?.seconds ?? 0) * 1000 + (delay?.nanos ?? 0) / 1e6;
        break;
      }
    }
  }
  // eslint-disable-next-line @typescript-eslint/no-unsafe-enum-assignment -- the numbers are those of gRPC
  return new PassbookError(of.code, of.message, details);
}

/** Whether a value is an error of gRPC. */
function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "details" in error && "metadata" in error;
}

/** The error of an attempt. A defect of this program is thrown as it is. */
export function passbookError(raised: unknown): PassbookError {
  if (raised instanceof PassbookError) return raised;
  if (isServiceError(raised)) return errorOfCall(raised);
  throw raised;
}
