/**
 * One stream to a server for the concurrent changes of a client.
 *
 * While one message is on its way, the next one gathers the changes that wait. Results come in any
 * order, so a change that waits for a locked row delays no other.
 */

import { type Client, type ClientDuplexStream, type Metadata, status } from "@grpc/grpc-js";

import { type CallState, leftMs, onEnd } from "./callState.js";
import { PassbookError, errorOfStatus, passbookError } from "./errors.js";
import {
  AccountServiceService,
  ResultOrder,
  StreamedRequest,
  type StreamTransactionsRequest,
  type StreamTransactionsResponse,
  type StreamedResult,
} from "./gen/passbook/v1/account_service.js";

type Stream = ClientDuplexStream<StreamTransactionsRequest, StreamTransactionsResponse>;
/** A change with the field of its method. */
export type StreamedChange = NonNullable<StreamedRequest["request"]>;

/** The methods that a stream takes, with the field of each request. */
export const STREAMED: ReadonlyMap<string, StreamedChange["$case"]> = new Map([
  [AccountServiceService.deposit.path, "deposit"],
  [AccountServiceService.withdraw.path, "withdraw"],
  [AccountServiceService.transfer.path, "transfer"],
  [AccountServiceService.postTransaction.path, "postTransaction"],
  [AccountServiceService.reverseTransaction.path, "reverseTransaction"],
  [AccountServiceService.placeHold.path, "placeHold"],
  [AccountServiceService.updateHold.path, "updateHold"],
  [AccountServiceService.captureHold.path, "captureHold"],
  [AccountServiceService.releaseHold.path, "releaseHold"],
]);

/** Requests in one message: the limit of the server. */
const REQUESTS_MAX = 1000;
/** Bytes of one message: far below a server's limit of 1 MiB, which an operator may have lowered. */
const BYTES_MAX = 256 * 1024;
/** A longer request goes alone. */
const REQUEST_BYTES_MAX = 64 * 1024;
/** A request with a longer id goes alone: its result in a stream would have no id. */
const REQUEST_ID_BYTES_MAX = 64;
/** How long changes go alone after a server did not take the stream. */
const ALONE_MS = 60_000;

interface Change {
  request: StreamedChange;
  call: CallState;
  bytes: number;
  isSent: boolean;
  /** Ends the change. Undefined: it goes alone. */
  resolve: (result: StreamedResult | undefined) => void;
  reject: (error: unknown) => void;
}

/** The stream, which is opened with the first change and opened again when it breaks. */
export class SharedStream {
  readonly #connection: Client;
  readonly #credentials: () => Promise<Metadata>;
  #aloneUntil = 0;
  #stream: Promise<Stream> | undefined;
  /** Whether the server has answered the stream that is open. */
  #isAnswered = false;
  #isWriting = false;
  #waiting: Change[] = [];
  readonly #changes = new Map<string, Change>();
  /**
   * The ids of changes that were sent and given up: the result of such a change must not be taken for
   * the result of a repeat.
   */
  readonly #givenUp = new Set<string>();

  constructor(connection: Client, credentials: () => Promise<Metadata>) {
    this.#connection = connection;
    this.#credentials = credentials;
  }

  /**
   * Sends a change and resolves with its result. Undefined: the change needs a call of its own, since
   * the server takes no stream now, the change is too long, or one with the same id is under way.
   */
  async send(request: StreamedChange, call: CallState): Promise<StreamedResult | undefined> {
    const { requestId } = request.value;
    const bytes = StreamedRequest.encode({ request }).finish().length;
    const isInUse = this.#changes.has(requestId) || this.#givenUp.has(requestId);
    const isTooLong =
      bytes > REQUEST_BYTES_MAX || Buffer.byteLength(requestId) > REQUEST_ID_BYTES_MAX;
    if (isInUse || isTooLong || performance.now() < this.#aloneUntil) return undefined;
    return new Promise((resolve, reject) => {
      const giveUp = (code: status, message: string) => {
        this.#waiting = this.#waiting.filter((waiting) => waiting !== change);
        if (change.isSent) this.#givenUp.add(requestId);
        change.reject(streamError(code, message, change.isSent));
      };
      const abort = () => {
        giveUp(status.CANCELLED, "no result came until then");
      };
      const expire = () => {
        giveUp(status.DEADLINE_EXCEEDED, "time is up");
      };
      const timer = setTimeout(expire, leftMs(call));
      let stop = () => {};
      const leave = () => {
        clearTimeout(timer);
        stop();
        this.#changes.delete(requestId);
      };
      const change: Change = {
        request,
        call,
        bytes,
        isSent: false,
        resolve: (result) => {
          leave();
          if (result?.error === undefined) resolve(result);
          else reject(errorOfStatus(result.error));
        },
        reject: (error) => {
          leave();
          // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- as it was raised
          reject(error);
        },
      };
      this.#changes.set(requestId, change);
      this.#waiting.push(change);
      stop = onEnd(call.ends, abort);
      // Changes of the same turn of the event loop go into one message.
      if (!this.#isWriting) {
        this.#isWriting = true;
        setImmediate(() => void this.#write());
      }
    });
  }

  /** Ends the stream that is open. The ends of calls end the changes. */
  close(): void {
    this.#stream?.then(
      (stream) => {
        stream.cancel();
      },
      () => undefined,
    );
  }

  /** Writes messages until no change waits. */
  async #write(): Promise<void> {
    try {
      while (this.#waiting.length > 0) {
        const opening = (this.#stream ??= this.#open());
        const stream = await opening;
        if (this.#stream === opening) await this.#writeMessage(stream);
      }
    } catch (raised) {
      // The token function has failed: each change goes alone, and asks it again.
      if (raised instanceof PassbookError) this.#end(raised);
      else this.#fail(raised);
    } finally {
      this.#isWriting = false;
    }
  }

  /** Writes the changes that wait. They may all have been given up before. */
  async #writeMessage(stream: Stream): Promise<void> {
    const changes = this.#take();
    if (changes.length === 0) return;
    const message = {
      request: undefined,
      requests: changes.map(({ request, call }) => ({
        request,
        timeout: durationOf(Math.max(leftMs(call), 1)),
      })),
      resultOrder: ResultOrder.AS_COMPLETED,
    };
    await new Promise<void>((resolve) => {
      stream.once("close", resolve);
      stream.write(message, () => {
        stream.off("close", resolve);
        resolve();
      });
    });
  }

  #take(): Change[] {
    let bytes = 0;
    const tooMuch = this.#waiting.findIndex((change, index) => {
      bytes += change.bytes;
      return index === REQUESTS_MAX || (index > 0 && bytes > BYTES_MAX);
    });
    const changes = this.#waiting.splice(0, tooMuch === -1 ? this.#waiting.length : tooMuch);
    for (const change of changes) change.isSent = true;
    return changes;
  }

  async #open(): Promise<Stream> {
    const { path, requestSerialize, responseDeserialize } =
      AccountServiceService.streamTransactions;
    const stream = this.#connection.makeBidiStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      await this.#credentials(),
    );
    this.#receive(stream).catch((raised: unknown) => {
      this.#fail(raised);
    });
    return stream;
  }

  /** Ends all changes with an error that no server has made: the client is closed. */
  #fail(raised: unknown): void {
    this.#stream = undefined;
    this.#waiting = [];
    for (const change of this.#changes.values()) change.reject(raised);
  }

  /** Hands out results until the stream ends. */
  async #receive(stream: Stream): Promise<void> {
    this.#isAnswered = false;
    // The headers come before the first message.
    stream.on("metadata", () => {
      this.#isAnswered = true;
    });
    let error = new PassbookError(status.UNAVAILABLE, "the server ended the stream");
    try {
      for await (const { results } of stream as AsyncIterable<StreamTransactionsResponse>) {
        for (const result of results) {
          if (!this.#givenUp.delete(result.requestId)) {
            this.#changes.get(result.requestId)?.resolve(result);
          }
        }
      }
    } catch (raised) {
      error = passbookError(raised);
    } finally {
      stream.cancel();
    }
    this.#end(error);
  }

  /**
   * Ends all changes without a result. A final error is about the stream, or about one change in it:
   * each change goes alone, and gets a result of its own. After any other, they are repeated, on any
   * server.
   */
  #end(error: PassbookError): void {
    this.#stream = undefined;
    this.#givenUp.clear();
    this.#waiting = [];
    // After a token that has expired, the next stream has a new one.
    if (error.isFinal && error.code !== status.UNAUTHENTICATED) {
      this.#aloneUntil = performance.now() + ALONE_MS;
    }
    const inDoubt = error.leavesDoubt(this.#isAnswered);
    // What the stream's error says is about the stream, and not about its requests.
    const code = error.code === status.UNAVAILABLE ? error.code : status.ABORTED;
    for (const change of this.#changes.values()) {
      const mayBeApplied = inDoubt && change.isSent;
      if (error.isFinal) {
        change.call.inDoubt ||= mayBeApplied;
        change.resolve(undefined);
      } else {
        const message = `the stream ended: ${error.toString()}`;
        change.reject(streamError(code, message, mayBeApplied, error.retryDelayMs));
      }
    }
  }
}

function streamError(
  code: status,
  message: string,
  mayBeApplied: boolean,
  retryDelayMs = 0,
): PassbookError {
  const metadata: Record<string, string> = mayBeApplied ? {} : { outcome: "not_applied" };
  return new PassbookError(code, message, { metadata, retryDelayMs });
}

function durationOf(ms: number) {
  return { seconds: Math.floor(ms / 1000), nanos: Math.floor((ms % 1000) * 1e6) };
}
