/** Streams that survive their connections: postings, entries of an account, and events. */

import { type ClientDuplexStream, type ClientReadableStream, status } from "@grpc/grpc-js";

import { resultOf } from "./batches.js";
import { onEnd } from "./callState.js";
import { type Calls, type Method, Reconnects, checkEnds, checkText } from "./calls.js";
import { PassbookError, passbookError } from "./errors.js";
import {
  AccountServiceService,
  type PostTransactionRequest,
  StreamTransactionsRequest,
  type StreamTransactionsResponse,
} from "./gen/passbook/v1/account_service.js";
import type { WatchEventsRequest } from "./gen/passbook/v1/events.js";
import {
  type Entry,
  type Events,
  type Posting,
  type TransactionResult,
  entryOf,
  eventsOf,
  postingMessage,
} from "./model.js";
import type { Server } from "./servers.js";

/** Requests of a stream without a result: as many as the server reads ahead. */
const IN_FLIGHT_MAX = 1024;

type Stream = ClientDuplexStream<StreamTransactionsRequest, StreamTransactionsResponse>;

interface Streamed {
  request: PostTransactionRequest;
  /** Whether an earlier stream may have applied it. */
  inDoubt: boolean;
}

/** The requests that were taken from the caller and have no result yet, oldest first. */
class Window {
  readonly #source: AsyncIterator<Posting> | Iterator<Posting>;
  #taking: Promise<void> | undefined;
  #sourceIsAtEnd = false;
  #sourceError: unknown;
  readonly #requests: Streamed[] = [];
  #stream: Stream | undefined;
  #sent = 0;
  #wake: () => void = () => undefined;

  constructor(postings: Iterable<Posting> | AsyncIterable<Posting>) {
    this.#source =
      Symbol.asyncIterator in postings
        ? postings[Symbol.asyncIterator]()
        : postings[Symbol.iterator]();
  }

  /** Sends all requests without a result to a new stream, then new ones. Ends with the stream. */
  async send(stream: Stream): Promise<void> {
    this.#stream = stream;
    this.#sent = 0;
    this.#wake();
    stream.on("drain", () => {
      this.#wake();
    });
    while (this.#stream === stream) {
      const next = this.#requests[this.#sent];
      if (next !== undefined) {
        this.#sent += 1;
        const message = StreamTransactionsRequest.fromPartial({ request: next.request });
        if (!stream.write(message)) await this.#change();
      } else if (this.#sourceIsAtEnd) {
        stream.end();
        return;
      } else if (this.#requests.length >= IN_FLIGHT_MAX) {
        await this.#change();
      } else {
        await this.#take();
      }
    }
  }

  /** Takes the caller's next request. A request that comes after its stream goes to the next one. */
  #take(): Promise<void> {
    this.#taking ??= (async () => {
      try {
        const next = await this.#source.next();
        if (next.done === true) {
          this.#sourceIsAtEnd = true;
        } else {
          const request = postingMessage(next.value);
          checkText(request, "change");
          this.#requests.push({ request, inDoubt: false });
        }
      } catch (error) {
        this.#sourceIsAtEnd = true;
        this.#sourceError = error;
      }
      this.#taking = undefined;
    })();
    return this.#taking;
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  /** The request of the next result. */
  get oldest(): Streamed {
    const [oldest] = this.#requests;
    if (oldest === undefined) throw new Error("the server has sent a result without a request");
    return oldest;
  }

  /** Says that the oldest request has its result. */
  hasResult(): void {
    this.#requests.shift();
    this.#sent -= 1;
    this.#wake();
  }

  /** Says that the stream has ended. `inDoubt`: it may have applied requests without a result. */
  hasEnd(inDoubt: boolean): void {
    this.#stream = undefined;
    const sent = this.#requests.slice(0, this.#sent);
    for (const streamed of sent) streamed.inDoubt ||= inDoubt;
    this.#wake();
  }

  /** Whether all requests have their results. Throws the error of the caller's requests. */
  get isComplete(): boolean {
    const isComplete = this.#sourceIsAtEnd && this.#requests.length === 0;
    if (isComplete && this.#sourceError !== undefined) {
      // eslint-disable-next-line @typescript-eslint/only-throw-error -- as the caller has thrown it
      throw this.#sourceError;
    }
    return isComplete;
  }

  /** Gives the error that ends the stream the ids of all requests without a result. */
  name(error: PassbookError): void {
    error.requestIds = this.#requests.map(({ request }) => request.requestId);
    const isInDoubt = this.#requests.some(({ inDoubt }) => inDoubt);
    error.outcome = isInDoubt ? "unknown" : "not_applied";
  }

  /** Whether the caller's own requests have thrown it. */
  isOfSource(error: unknown): boolean {
    return this.#sourceError === error;
  }

  /** Ends the stream that is open, and the caller's requests. Does not wait for the caller. */
  close(): void {
    this.#stream = undefined;
    this.#wake();
    if (!this.#sourceIsAtEnd) Promise.resolve(this.#source.return?.()).catch(() => undefined);
  }
}

/** See `Client.streamTransactions`. */
export async function* streamTransactions(
  calls: Calls,
  postings: Iterable<Posting> | AsyncIterable<Posting>,
  signal: AbortSignal | undefined,
): AsyncGenerator<TransactionResult | PassbookError> {
  const window = new Window(postings);
  const reconnects = new Reconnects();
  const ends = calls.ends(signal);
  const { path, requestSerialize, responseDeserialize } = AccountServiceService.streamTransactions;
  try {
    for (;;) {
      const metadata = await calls.credentialsOfStream(signal);
      checkEnds(ends);
      const server = calls.servers.select();
      const stream = server.connection.makeBidiStreamRequest(
        path,
        requestSerialize,
        responseDeserialize,
        metadata,
      );
      void window.send(stream);
      let error = new PassbookError(status.UNAVAILABLE, "the server ended the stream");
      try {
        for await (const { result } of messages(stream, reconnects, ends)) {
          const { request, inDoubt } = window.oldest;
          const call = calls.begin(signal === undefined ? {} : { signal });
          const answered = await resultOf(calls, request, result, { ...call, inDoubt });
          window.hasResult();
          yield answered;
        }
      } catch (raised) {
        error = passbookError(raised);
      }
      window.hasEnd(reconnects.isInDoubt(error));
      if (window.isComplete) return;
      passOver(server, error);
      await reconnects.pause(error, ends);
    }
  } catch (raised) {
    if (raised instanceof PassbookError && !window.isOfSource(raised)) window.name(raised);
    throw raised;
  } finally {
    window.close();
  }
}

/** See `Client.watchEntries`. */
export async function* watchEntries(
  calls: Calls,
  accountId: string,
  afterSequence: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Entry> {
  const method = AccountServiceService.watchEntries;
  const request = { accountId, afterSequence };
  for await (const message of watch(calls, method, request, signal)) {
    for (const entry of message.entries) {
      request.afterSequence = entry.sequence;
      yield entryOf(entry);
    }
  }
}

/** See `Client.watchEvents`. */
export async function* watchEvents(
  calls: Calls,
  request: WatchEventsRequest,
  signal: AbortSignal | undefined,
): AsyncGenerator<Events> {
  for await (const message of watch(calls, AccountServiceService.watchEvents, request, signal)) {
    request.start = { $case: "afterToken", value: message.token };
    yield eventsOf(message);
  }
}

/** The messages of a watch. Each new stream has the request as it is then. */
async function* watch<Request extends object, Message>(
  calls: Calls,
  { path, requestSerialize, responseDeserialize }: Method<Request, Message>,
  request: Request,
  signal: AbortSignal | undefined,
): AsyncGenerator<Message> {
  checkText(request, "read");
  const reconnects = new Reconnects();
  const ends = calls.ends(signal);
  for (;;) {
    const metadata = await calls.credentialsOfStream(signal);
    checkEnds(ends);
    const server = calls.servers.select();
    const stream = server.connection.makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      metadata,
    );
    let error = new PassbookError(status.UNAVAILABLE, "the server ended the watch");
    try {
      yield* messages<Message>(stream, reconnects, ends);
    } catch (raised) {
      error = passbookError(raised);
    }
    passOver(server, error);
    await reconnects.pause(error, ends);
  }
}

/** The messages of a stream, read as fast as they are consumed. Cancels the stream at the end. */
async function* messages<Message>(
  stream: ClientReadableStream<Message> | ClientDuplexStream<StreamTransactionsRequest, Message>,
  reconnects: Reconnects,
  ends: readonly AbortSignal[],
): AsyncGenerator<Message> {
  const stop = onEnd(ends, () => {
    stream.cancel();
  });
  // The headers come before the first message.
  stream.on("metadata", () => {
    reconnects.hasAnswer();
  });
  try {
    for await (const message of stream) yield message as Message;
  } finally {
    stop();
    stream.cancel();
    // The error of the cancellation comes after the last reader has gone.
    stream.on("error", () => undefined);
  }
}

function passOver(server: Server, error: PassbookError): void {
  if (error.code === status.UNAVAILABLE) server.passOver();
}
