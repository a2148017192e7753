package passbook.client;

import io.grpc.Context;
import io.grpc.Status;
import java.util.Iterator;
import java.util.function.Function;
import passbook.v1.AccountServiceGrpc;
import passbook.v1.AccountServiceGrpc.AccountServiceBlockingStub;

/** The messages of a stream that is opened again, on the next server, when it breaks. */
final class Watch<M> {
  private final Calls calls;
  private final Function<AccountServiceBlockingStub, Iterator<M>> open;
  private final Context.CancellableContext context = Context.current().withCancellation();

  private Server server;
  private Iterator<M> messages;
  // Streams that broke since the last message.
  private int failures;
  // When the first of them broke.
  private long outageStart;
  // Whether there was a message of the stream that is open.
  private boolean hasAnswered;

  /**
   * A watch that is not open yet.
   *
   * @param open opens a stream behind the last message of the stream before
   */
  Watch(Calls calls, Function<AccountServiceBlockingStub, Iterator<M>> open) {
    this.calls = calls;
    this.open = open;
  }

  /**
   * Waits for the next message.
   *
   * @throws PassbookException the watch has a final error, no server has answered for 60 seconds,
   *     or the watch was closed
   */
  M next() {
    while (true) {
      try {
        M message = nextOfStream();
        failures = 0;
        hasAnswered = true;
        return message;
      } catch (RuntimeException e) {
        messages = null;
        pauseAfter(PassbookException.of(e).with(Outcome.NONE));
      }
    }
  }

  void close() {
    context.cancel(null);
  }

  private M nextOfStream() {
    if (messages == null) {
      hasAnswered = false;
      if (calls.isClosed()) {
        throw Status.CANCELLED.withDescription("nothing was sent").asRuntimeException();
      }
      server = calls.pick();
      var stub =
          AccountServiceGrpc.newBlockingStub(server.channel())
              .withCallCredentials(calls.credentials());
      context.run(() -> messages = open.apply(stub));
    }
    if (!messages.hasNext()) {
      throw Status.UNAVAILABLE.withDescription("the stream has ended").asRuntimeException();
    }
    return messages.next();
  }

  private void pauseAfter(PassbookException error) {
    failures++;
    if (failures == 1) {
      outageStart = calls.now();
    }
    if (calls.isClosed() && !isFinal(error)) {
      throw Calls.closedError(error);
    }
    server.answered(error);
    boolean isTooLong = calls.now() - outageStart > Calls.OUTAGE_MAX.toNanos();
    if (context.isCancelled() || isFinal(error) || isTooLong) {
      throw error;
    }
    long pause = RepeatedRequest.pauseAfter(failures) + error.retryDelay().toNanos();
    try {
      calls.pause(pause);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw error;
    }
  }

  /**
   * False for a token that has expired under an open stream: the next stream has a new one. If it
   * has not, the server denies it before the first message.
   */
  private boolean isFinal(PassbookException error) {
    boolean hasExpired = hasAnswered && error.code() == Status.Code.UNAUTHENTICATED;
    return error.isFinal() && !hasExpired;
  }
}
