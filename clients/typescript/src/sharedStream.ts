/**
 * One stream to a server for the concurrent changes of a client.
 *
 * While one message is on its way, the next one gathers the changes that wait. Results come in any
 * order, so a change that waits for a locked row delays no other.
 */

import { type Client, type ClientDuplexStream, type Metadata, status } from "@grpc/grpc-js";

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
/** Bytes of one message: half of the server's default limit. A longer request is sent alone. */
const BYTES_MAX = 512 * 1024;
const REQUEST_ID_BYTES_MAX = 64;

interface Change {
  request: StreamedChange;
  deadline: number;
  bytes: number;
  isSent: boolean;
  finish: (outcome: StreamedResult | PassbookError) => void;
}

/** The stream, which is opened with the first change and opened again when it breaks. */
export class SharedStream {
  readonly #connection: Client;
  readonly #credentials: () => Promise<Metadata>;
  #isUsable = true;
  #stream: Promise<Stream> | undefined;
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
   * the server takes no streams from this caller, or a change with the same id is under way.
   */
  send(
    request: StreamedChange,
    deadline: number,
    signal: AbortSignal | undefined,
  ): Promise<StreamedResult> | undefined {
    const { requestId } = request.value;
    const isInUse = this.#changes.has(requestId) || this.#givenUp.has(requestId);
    const isTooLong = Buffer.byteLength(requestId) > REQUEST_ID_BYTES_MAX;
    if (!this.#isUsable || isInUse || isTooLong) return undefined;
    return new Promise((resolve, reject) => {
      const giveUp = (code: status, message: string) => {
        this.#waiting = this.#waiting.filter((waiting) => waiting !== change);
        if (change.isSent) this.#givenUp.add(requestId);
        change.finish(streamError(code, message, change.isSent));
      };
      const abort = () => {
        giveUp(status.CANCELLED, "the caller has canceled the call");
      };
      const timer = setTimeout(
        () => {
          giveUp(status.DEADLINE_EXCEEDED, "time is up");
        },
        Math.max(deadline - Date.now(), 0),
      );
      const change: Change = {
        request,
        deadline,
        bytes: StreamedRequest.encode({ request }).finish().length,
        isSent: false,
        finish: (outcome) => {
          clearTimeout(timer);
          signal?.removeEventListener("abort", abort);
          this.#changes.delete(requestId);
          if (outcome instanceof PassbookError) reject(outcome);
          else if (outcome.error !== undefined) reject(errorOfStatus(outcome.error));
          else resolve(outcome);
        },
      };
      this.#changes.set(requestId, change);
      this.#waiting.push(change);
      if (signal?.aborted === true) abort();
      else signal?.addEventListener("abort", abort, { once: true });
      // Changes of the same turn of the event loop go into one message.
      if (!this.#isWriting) {
        this.#isWriting = true;
        setImmediate(() => void this.#write());
      }
    });
  }

  /** Writes messages until no change waits. */
  async #write(): Promise<void> {
    try {
      while (this.#waiting.length > 0) {
        this.#stream ??= this.#open();
        const stream = await this.#stream;
        const changes = this.#take();
        const now = Date.now();
        const message = {
          request: undefined,
          requests: changes.map(({ request, deadline }) => ({
            request,
            timeout: durationOf(Math.max(deadline - now, 1)),
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
    } catch (raised) {
      this.#end(passbookError(raised));
    } finally {
      this.#isWriting = false;
    }
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
    void this.#receive(stream);
    return stream;
  }

  /** Hands out results until the stream ends. */
  async #receive(stream: Stream): Promise<void> {
    let error = new PassbookError(status.UNAVAILABLE, "the server ended the stream");
    try {
      for await (const { results } of stream as AsyncIterable<StreamTransactionsResponse>) {
        for (const result of results) {
          if (!this.#givenUp.delete(result.requestId)) {
            this.#changes.get(result.requestId)?.finish(result);
          }
        }
      }
    } catch (raised) {
      error = passbookError(raised);
    }
    stream.cancel();
    this.#end(error);
  }

  /** Ends all changes without a result: they are repeated, on any server. */
  #end(error: PassbookError): void {
    this.#stream = undefined;
    this.#givenUp.clear();
    if (error.code === status.PERMISSION_DENIED || error.code === status.UNIMPLEMENTED) {
      this.#isUsable = false;
    }
    // What the stream's error says is about the stream, and not about its requests.
    const code = error.code === status.UNAVAILABLE ? error.code : status.ABORTED;
    this.#waiting = [];
    for (const change of this.#changes.values()) {
      change.finish(streamError(code, `the stream ended: ${error.toString()}`, change.isSent));
    }
  }
}

function streamError(code: status, message: string, isSent: boolean): PassbookError {
  return new PassbookError(code, message, isSent ? {} : { metadata: { outcome: "not_applied" } });
}

function durationOf(ms: number) {
  return { seconds: Math.floor(ms / 1000), nanos: Math.floor((ms % 1000) * 1e6) };
}
