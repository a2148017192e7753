/** Attempts of a call: deadlines, repeats and outcomes, by the rules of clients/README.md. */

import { setTimeout as sleep } from "node:timers/promises";

import { Metadata, status } from "@grpc/grpc-js";

import { type Outcome, PassbookError, passbookError } from "./errors.js";
import { STREAMED, type StreamedChange } from "./sharedStream.js";
import { type Server, Servers, type Tls } from "./servers.js";

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
  /** Goes with every attempt as a bearer token. A function is called for each attempt. */
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

  constructor(addresses: readonly string[], options: ClientOptions) {
    this.servers = new Servers(addresses, options.tls, () => this.credentials());
    this.#shareStream = options.shareStream ?? true;
    this.#token = options.token;
    this.#timeoutMs = options.timeoutMs ?? 10_000;
  }

  /** A call that changes nothing. */
  read<Request extends object, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions | undefined,
  ): Promise<Response> {
    return this.#call(method, request, "read", options);
  }

  /** A change that has an id. */
  change<Request extends object, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions | undefined,
  ): Promise<Response> {
    return this.#call(method, request, "change", options);
  }

  /** A change that has no id. */
  update<Request extends object, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions | undefined,
  ): Promise<Response> {
    return this.#call(method, request, "update", options);
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

  /** The metadata of an attempt. */
  async credentials(): Promise<Metadata> {
    const metadata = new Metadata();
    const token = typeof this.#token === "function" ? await this.#token() : this.#token;
    if (token !== undefined) metadata.set("authorization", `Bearer ${token}`);
    return metadata;
  }

  async #call<Request extends object, Response>(
    method: Method<Request, Response>,
    request: Request,
    kind: Kind,
    { timeoutMs = this.#timeoutMs, signal }: CallOptions = {},
  ): Promise<Response> {
    const deadline = Date.now() + timeoutMs;
    let inDoubt = false;
    for (let attempt = 1; ; attempt += 1) {
      const server = this.servers.select();
      let error: PassbookError;
      try {
        const shared =
          this.#shareStream && this.#onSharedStream(server, method, request, deadline, signal);
        // A result in a stream has the fields of the method's response.
        if (shared) return (await shared) as Response;
        return await this.#attempt(server, method, request, deadline, signal);
      } catch (raised) {
        error = passbookError(raised);
      }
      if (error.code === status.UNAVAILABLE) server.passOver();
      const outcome: Outcome | undefined =
        kind === "read" ? undefined : error.outcomeOfCall(inDoubt);
      inDoubt = outcome === "unknown";
      const pauseMs = backoffMs(attempt) + error.retryDelayMs;
      const isLast =
        error.isFinal ||
        signal?.aborted === true ||
        (kind === "update" && outcome !== "not_applied") ||
        Date.now() + pauseMs >= deadline;
      if (isLast || !(await slept(pauseMs, signal))) {
        if (outcome !== undefined) error.outcome = outcome;
        if ("requestId" in request) error.requestId = request.requestId as string;
        throw error;
      }
    }
  }

  #onSharedStream<Request, Response>(
    server: Server,
    method: Method<Request, Response>,
    request: Request,
    deadline: number,
    signal: AbortSignal | undefined,
  ): Promise<unknown> | undefined {
    const $case = STREAMED.get(method.path);
    if ($case === undefined) return undefined;
    const change = { $case, value: request } as StreamedChange;
    return server.sharedStream.send(change, deadline, signal);
  }

  async #attempt<Request, Response>(
    server: Server,
    method: Method<Request, Response>,
    request: Request,
    deadline: number,
    signal: AbortSignal | undefined,
  ): Promise<Response> {
    const metadata = await this.credentials();
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        const metadata = { outcome: "not_applied" };
        reject(new PassbookError(status.CANCELLED, "canceled before it was sent", { metadata }));
        return;
      }
      const call = server.connection.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        metadata,
        { deadline },
        (error, response) => {
          signal?.removeEventListener("abort", cancel);
          if (error !== null) reject(error);
          else resolve(response as Response);
        },
      );
      const cancel = () => {
        call.cancel();
      };
      signal?.addEventListener("abort", cancel, { once: true });
    });
  }
}

/** When a stream or a watch that broke is opened again. */
export class Reconnects {
  #failures = 0;
  #outageStart = 0;

  /** Says that a server has answered, so that there is no outage. */
  hasAnswer(): void {
    this.#failures = 0;
  }

  /** Waits before the next try, or throws the error if it is final or the outage too long. */
  async pause(error: PassbookError, signal: AbortSignal | undefined): Promise<void> {
    const now = performance.now();
    if (this.#failures === 0) this.#outageStart = now;
    const outageMs = now - this.#outageStart;
    this.#failures += 1;
    const pauseMs = backoffMs(this.#failures) + error.retryDelayMs;
    if (error.isFinal || outageMs > OUTAGE_MAX_MS || !(await slept(pauseMs, signal))) throw error;
  }
}

/** Waits. False if the signal ended the wait. */
async function slept(ms: number, signal: AbortSignal | undefined): Promise<boolean> {
  try {
    await sleep(ms, undefined, signal === undefined ? {} : { signal });
    return true;
  } catch {
    return false;
  }
}

/** The pause after an attempt: full jitter, so that clients do not come back all at once. */
function backoffMs(attempt: number): number {
  return Math.random() * Math.min(BACKOFF_MS * 2 ** (attempt - 1), BACKOFF_MAX_MS);
}
