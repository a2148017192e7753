/** Streams that survive their connections: postings, entries of an account, and events. */

import { type ClientDuplexStream, type ClientReadableStream, status } from "@grpc/grpc-js";

import { type CallOptions, type Calls, type Method, Reconnects } from "./calls.js";
import { PassbookError, errorOfStatus, passbookError } from "./errors.js";
import {
  AccountServiceService,
  type CreateAccountRequest,
  type CreateAccountResult,
  type PostTransactionRequest,
  type PostTransactionResult,
  StreamTransactionsRequest,
  type StreamTransactionsResponse,
} from "./gen/passbook/v1/account_service.js";
import type { WatchEventsRequest } from "./gen/passbook/v1/events.js";
import {
  type Account,
  type Entry,
  type Events,
  type Posting,
  type TransactionResult,
  accountOf,
  entryOf,
  eventsOf,
  postingMessage,
  transactionOf,
} from "./model.js";
import type { Server } from "./servers.js";

/** Requests of a stream without a result: as many as the server reads ahead. */
const IN_FLIGHT_MAX = 1024;

/** The result of one request of a batch or a stream. One without a result is repeated alone. */
export async function resultOf(
  calls: Calls,
  request: PostTransactionRequest,
  { result, replayed }: PostTransactionResult,
  options?: CallOptions,
): Promise<TransactionResult | PassbookError> {
  if (result?.$case === "transaction") {
    return { transaction: transactionOf(result.value), replayed };
  }
  if (result === undefined) throw new Error("the server has left out a result");
  const error = errorOfStatus(result.value);
  if (!error.isWithoutResult) {
    error.requestId = request.requestId;
    return error;
  }
  try {
    const response = await calls.change(AccountServiceService.postTransaction, request, options);
    return { transaction: transactionOf(response.transaction), replayed: response.replayed };
  } catch (raised) {
    return passbookError(raised);
  }
}

/** The result of one opening of a batch. One without a result is repeated alone. */
export async function openedOf(
  calls: Calls,
  request: CreateAccountRequest,
  result: CreateAccountResult["result"],
  options?: CallOptions,
): Promise<Account | PassbookError> {
  if (result === undefined) throw new Error("the server has left out a result");
  if (result.$case === "account") return accountOf(result.value);
  const error = errorOfStatus(result.value);
  if (!error.isWithoutResult) return error;
  try {
    const response = await calls.change(AccountServiceService.createAccount, request, options);
    return accountOf(response.account);
  } catch (raised) {
    return passbookError(raised);
  }
}

type Stream = ClientDuplexStream<StreamTransactionsRequest, StreamTransactionsResponse>;

/** The requests that were taken from the caller and have no result yet, oldest first. */
class Window {
  readonly #source: AsyncIterator<Posting> | Iterator<Posting>;
  #taking: Promise<void> | undefined;
  #sourceIsAtEnd = false;
  #sourceError: unknown;
  readonly #requests: PostTransactionRequest[] = [];
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
      const request = this.#requests[this.#sent];
      if (request !== undefined) {
        this.#sent += 1;
        const message = StreamTransactionsRequest.fromPartial({ request });
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
        if (next.done === true) this.#sourceIsAtEnd = true;
        else this.#requests.push(postingMessage(next.value));
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
  get oldest(): PostTransactionRequest {
    const [request] = this.#requests;
    if (request === undefined) throw new Error("the server has sent a result without a request");
    return request;
  }

  /** Says that the oldest request has its result. */
  hasResult(): void {
    this.#requests.shift();
    this.#sent -= 1;
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
  const { path, requestSerialize, responseDeserialize } = AccountServiceService.streamTransactions;
  try {
    for (;;) {
      const server = calls.servers.select();
      const stream = server.connection.makeBidiStreamRequest(
        path,
        requestSerialize,
        responseDeserialize,
        await calls.credentials(),
      );
      void window.send(stream);
      let error = new PassbookError(status.UNAVAILABLE, "the server ended the stream");
      try {
        for await (const { result } of messages(stream, reconnects, signal)) {
          if (result === undefined) throw new Error("the server has left out a result");
          const answered = await resultOf(calls, window.oldest, result);
          window.hasResult();
          yield answered;
        }
      } catch (raised) {
        error = passbookError(raised);
      }
      if (window.isComplete) return;
      passOver(server, error);
      await reconnects.pause(error, signal);
    }
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
async function* watch<Request, Message>(
  calls: Calls,
  { path, requestSerialize, responseDeserialize }: Method<Request, Message>,
  request: Request,
  signal: AbortSignal | undefined,
): AsyncGenerator<Message> {
  const reconnects = new Reconnects();
  for (;;) {
    const server = calls.servers.select();
    const stream = server.connection.makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      await calls.credentials(),
    );
    let error = new PassbookError(status.UNAVAILABLE, "the server ended the watch");
    try {
      yield* messages<Message>(stream, reconnects, signal);
    } catch (raised) {
      error = passbookError(raised);
    }
    passOver(server, error);
    await reconnects.pause(error, signal);
  }
}

/** The messages of a stream, read as fast as they are consumed. Cancels the stream at the end. */
async function* messages<Message>(
  stream: ClientReadableStream<Message> | ClientDuplexStream<StreamTransactionsRequest, Message>,
  reconnects: Reconnects,
  signal: AbortSignal | undefined,
): AsyncGenerator<Message> {
  const cancel = () => {
    stream.cancel();
  };
  signal?.addEventListener("abort", cancel, { once: true });
  // The headers come before the first message.
  stream.on("metadata", () => {
    reconnects.hasAnswer();
  });
  try {
    for await (const message of stream) yield message as Message;
  } finally {
    signal?.removeEventListener("abort", cancel);
    stream.cancel();
    // The error of the cancellation comes after the last reader has gone.
    stream.on("error", () => undefined);
  }
}

function passOver(server: Server, error: PassbookError): void {
  if (error.code === status.UNAVAILABLE) server.passOver();
}
