/** Attempts of a call: deadlines, repeats and outcomes, by the rules of clients/README.md. */

import { setMaxListeners } from "node:events";

import { Metadata, status } from "@grpc/grpc-js";

import { type CallState, beginCall, isEnded, leftMs, onEnd, slept, within } from "./callState.js";
import { PassbookError, passbookError } from "./errors.js";
import { STREAMED, type StreamedChange } from "./sharedStream.js";
import { type Server, Servers, type Tls, isLoopback } from "./servers.js";
import { hasHalfPair } from "./text.js";

/** The most that the pause after the first attempt takes. It doubles with each attempt. */
const BACKOFF_MS = 50;
const BACKOFF_MAX_MS = 2000;
/** How long a stream or a watch looks for a server that answers before it gives up. */
const OUTAGE_MAX_MS = 60_000;

/** Options of one call. */
export interface CallOptions {
  /** Bounds the call with all of its attempts. Default: that of the client. */
  timeoutMs?: number;
  /** Cancels the call. */
  signal?: AbortSignal;
}

/** How a client connects. */
export interface ClientOptions {
  /**
   * Goes with every attempt as a bearer token. A function is called for each attempt, and may take as
   * long as the call has time; for a stream, as long as `timeoutMs` of the client. Without TLS, a token
   * goes to servers on this machine only.
   */
  token?: string | (() => string | Promise<string>);
  tls?: Tls;
  /** The timeout of calls that have none of their own. Default: 10,000. */
  timeoutMs?: number;
  /**
   * Whether concurrent changes share one stream to each server, which costs less than a call for each.
   * Default: true.
   */
  shareStream?: boolean;
}

/** A method of the generated service. */
export interface Method<Request, Response> {
  path: string;
  requestSerialize: (request: Request) => Buffer;
  responseDeserialize: (bytes: Buffer) => Response;
}

/**
 * What a call is, which decides when it is repeated. A change has an id and is safe to repeat under
 * it. An update has none: a late repeat could undo what another caller has changed.
 */
type Kind = "read" | "change" | "update";

/** Makes calls on several servers, with the token. */
export class Calls {
  readonly servers: Servers;
  readonly #token: ClientOptions["token"];
  readonly #timeoutMs: number;
  readonly #shareStream: boolean;
  readonly #closing = new AbortController();

  constructor(addresses: readonly string[], options: ClientOptions) {
    const remote = addresses.find((address) => !isLoopback(address));
    if (options.token !== undefined && options.tls === undefined && remote !== undefined) {
      throw new Error(`a token for ${remote} needs TLS: anyone on the way could read it`);
    }
    this.servers = new Servers(addresses, options.tls, () => this.credentialsOfStream());
    this.#shareStream = options.shareStream ?? true;
    this.#token = options.token;
    this.#timeoutMs = options.timeoutMs ?? 10_000;
    // All calls that are under way listen.
    setMaxListeners(0, this.#closing.signal);
  }

  /** Ends all calls, and closes all connections. */
  close(): void {
    this.#closing.abort();
    this.servers.close();
  }

  /** What ends a call, a stream or a watch. */
  ends(signal: AbortSignal | undefined): readonly AbortSignal[] {
    return signal === undefined ? [this.#closing.signal] : [signal, this.#closing.signal];
  }

  /** A call that changes nothing. */
  read<Request extends object, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions | undefined,
  ): Promise<Response> {
    return this.#call(method, request, "read", this.begin(options));
  }

  /** A change that has an id. */
  change<Request extends object, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions | undefined,
  ): Promise<Response> {
    return this.changeWithin(method, request, this.begin(options));
  }

  /** A change that has an id, within a call that has begun. */
  changeWithin<Request extends object, Response>(
    method: Method<Request, Response>,
    request: Request,
    call: CallState,
  ): Promise<Response> {
    return this.#call(method, request, "change", call);
  }

  /** A change whose first attempt, in a batch or a stream, has ended with this error. */
  repeat<Request extends object, Response>(
    method: Method<Request, Response>,
    request: Request,
    first: PassbookError,
    call: CallState,
  ): Promise<Response> {
    return this.#call(method, request, "change", call, first);
  }

  /** A change that has no id. */
  update<Request extends object, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions | undefined,
  ): Promise<Response> {
    return this.#call(method, request, "update", this.begin(options));
  }

  /** The state of a call that begins now. */
  begin({ timeoutMs = this.#timeoutMs, signal }: CallOptions = {}): CallState {
    return beginCall(timeoutMs, this.ends(signal));
  }

  /** All pages of a list. The timeout is that of each page. */
  async *pages<Request extends { pageToken: string }, Response extends { nextPageToken: string }>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions | undefined,
  ): AsyncGenerator<Response> {
    for (;;) {
      const page = await this.read(method, request, options);
      yield page;
      if (page.nextPageToken === "") return;
      request = { ...request, pageToken: page.nextPageToken };
    }
  }

  /** The metadata of an attempt. The token function may take as long as the call has time. */
  credentials(call: CallState): Promise<Metadata> {
    return this.#credentials(call, status.DEADLINE_EXCEEDED);
  }

  /**
   * The metadata of a stream, which has no deadline. A token function that takes longer than the timeout
   * of the client has failed: a shared stream would keep all calls waiting for it.
   */
  credentialsOfStream(signal?: AbortSignal): Promise<Metadata> {
    const call = this.begin(signal === undefined ? {} : { signal });
    return this.#credentials(call, status.UNAUTHENTICATED);
  }

  /** `late`: the code of the error if the token function takes too long. */
  async #credentials(call: CallState, late: status): Promise<Metadata> {
    const metadata = new Metadata();
    const details = { metadata: { outcome: "not_applied" } };
    const token = this.#token;
    let answer: { value: string | undefined } | undefined;
    try {
      answer = typeof token === "function" ? await within(call, token) : { value: token };
      if (answer?.value !== undefined) metadata.set("authorization", `Bearer ${answer.value}`);
    } catch (cause) {
      throw new PassbookError(status.UNAUTHENTICATED, "there is no token", { ...details, cause });
    }
    if (answer === undefined) {
      const code = isEnded(call.ends) ? status.CANCELLED : late;
      throw new PassbookError(code, "the token function takes too long", details);
    }
    return metadata;
  }

  async #call<Request extends object, Response>(
    method: Method<Request, Response>,
    request: Request,
    kind: Kind,
    call: CallState,
    first?: PassbookError,
  ): Promise<Response> {
    checkText(request, kind);
    for (let attempt = 1; ; attempt += 1) {
      let error = attempt === 1 ? first : undefined;
      if (error === undefined) {
        const server = this.servers.select();
        try {
          return await this.#attempt(server, method, request, call);
        } catch (raised) {
          error = passbookError(raised);
        }
        if (error.code === status.UNAVAILABLE) server.passOver();
      }
      const outcome = kind === "read" ? undefined : error.outcomeOfCall(call.inDoubt);
      call.inDoubt = outcome === "unknown";
      const pauseMs = backoffMs(attempt) + error.retryDelayMs;
      const isLast =
        error.isFinal ||
        // A batch or a stream can have another deadline.
        (error.code === status.DEADLINE_EXCEEDED && error !== first) ||
        isEnded(call.ends) ||
        (kind === "update" && outcome !== "not_applied") ||
        pauseMs >= leftMs(call);
      if (isLast || !(await slept(pauseMs, call.ends))) {
        error = endedError(error, call.ends);
        if (outcome !== undefined) error.outcome = outcome;
        throw named(error, kind, request);
      }
    }
  }

  async #attempt<Request, Response>(
    server: Server,
    method: Method<Request, Response>,
    request: Request,
    call: CallState,
  ): Promise<Response> {
    const $case = STREAMED.get(method.path);
    if (this.#shareStream && $case !== undefined) {
      const change = { $case, value: request } as StreamedChange;
      const result = await server.sharedStream.send(change, call);
      // A result in a stream has the fields of the method's response.
      if (result !== undefined) return result as Response;
    }
    return this.#attemptAlone(server, method, request, call);
  }

  async #attemptAlone<Request, Response>(
    server: Server,
    method: Method<Request, Response>,
    request: Request,
    call: CallState,
  ): Promise<Response> {
    const metadata = await this.credentials(call);
    return new Promise((resolve, reject) => {
      if (isEnded(call.ends)) {
        const metadata = { outcome: "not_applied" };
        reject(new PassbookError(status.CANCELLED, "nothing was sent", { metadata }));
        return;
      }
      const attempt = server.connection.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        metadata,
        { deadline: Date.now() + leftMs(call) },
        (error, response) => {
          stop();
          if (error !== null) reject(error);
          else resolve(response as Response);
        },
      );
      const stop = onEnd(call.ends, () => {
        attempt.cancel();
      });
    });
  }
}

/** The error of a call with the ids that a repeat needs. */
function named(error: PassbookError, kind: Kind, request: object): PassbookError {
  if ("requestId" in request) {
    error.requestId = request.requestId as string;
  } else if (kind === "change" && "accountId" in request) {
    // The request of an opening has no other id.
    error.accountId = request.accountId as string;
  } else if (kind === "change" && "requests" in request) {
    const elements = request.requests as ({ requestId: string } | { accountId: string })[];
    const ids = elements.map((it) => ("requestId" in it ? it.requestId : it.accountId));
    const isOfPostings = elements.some((it) => "requestId" in it);
    if (ids.length > 0) error[isOfPostings ? "requestIds" : "accountIds"] = ids;
  }
  return error;
}

/** Throws the error of a request with a text that cannot be sent. */
export function checkText(request: object, kind: Kind): void {
  if (!hasHalfPair(request)) return;
  const message = "a text of the request has half of a surrogate pair";
  throw named(new PassbookError(status.INVALID_ARGUMENT, message), kind, request);
}

/** When a stream or a watch that broke is opened again. */
export class Reconnects {
  #failures = 0;
  #outageStart = 0;
  #isAnswered = false;

  /** Says that a server has answered the stream, so that there is no outage. */
  hasAnswer(): void {
    this.#failures = 0;
    this.#isAnswered = true;
  }

  /** Whether requests on the stream that has ended with this error may have been applied. */
  isInDoubt(error: PassbookError): boolean {
    return error.leavesDoubt(this.#isAnswered);
  }

  /** Waits before the next try, or throws the error if it is final or the outage too long. */
  async pause(error: PassbookError, ends: readonly AbortSignal[]): Promise<void> {
    // Servers end a stream when its token expires. The next stream has a new token.
    const isExpired = this.#isAnswered && error.code === status.UNAUTHENTICATED;
    const isFinal = error.isFinal && !isExpired;
    this.#isAnswered = false;
    const now = performance.now();
    if (this.#failures === 0) this.#outageStart = now;
    const outageMs = now - this.#outageStart;
    this.#failures += 1;
    const pauseMs = backoffMs(this.#failures) + error.retryDelayMs;
    if (isFinal || outageMs > OUTAGE_MAX_MS || !(await slept(pauseMs, ends))) {
      throw endedError(error, ends);
    }
  }
}

/** Throws the error of what would begin after its end. */
export function checkEnds(ends: readonly AbortSignal[]): void {
  if (isEnded(ends)) {
    throw endedError(new PassbookError(status.CANCELLED, "nothing was sent"), ends);
  }
}

/** The error with which something ends whose last attempt had this error. */
function endedError(error: PassbookError, ends: readonly AbortSignal[]): PassbookError {
  if (error.isFinal || !isEnded(ends)) return error;
  const message = `the caller has canceled the call or closed the client: ${error.message}`;
  return new PassbookError(status.CANCELLED, message);
}

/** The pause after an attempt: full jitter, so that clients do not come back all at once. */
function backoffMs(attempt: number): number {
  return Math.random() * Math.min(BACKOFF_MS * 2 ** (attempt - 1), BACKOFF_MAX_MS);
}
