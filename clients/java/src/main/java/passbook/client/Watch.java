package passbook.client;

import io.grpc.Context;
import io.grpc.Status;
import java.time.Duration;
import java.util.Iterator;
import java.util.function.Function;
import passbook.v1.AccountServiceGrpc;
import passbook.v1.AccountServiceGrpc.AccountServiceBlockingStub;

/** The messages of a stream that is opened again, on the next server, when it breaks. */
final class Watch<M> {
  /** The longest time without a message of any server. Servers send one every 5 seconds. */
  private static final Duration SILENCE_MAX = Duration.ofSeconds(60);

  private final Calls calls;
  private final Function<AccountServiceBlockingStub, Iterator<M>> open;
  private final Context.CancellableContext context = Context.current().withCancellation();

  private Server server;
  private Iterator<M> messages;
  // Streams that broke since the last message.
  private int failures;
  private long lastMessage = System.nanoTime();

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
   * @throws PassbookException the watch has a final error, no server has sent a message for 60
   *     seconds, or the watch was closed
   */
  M next() {
    while (true) {
      try {
        M message = nextOfStream();
        failures = 0;
        lastMessage = System.nanoTime();
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
    server.answered(error);
    boolean isSilent = System.nanoTime() - lastMessage > SILENCE_MAX.toNanos();
    if (context.isCancelled() || error.isFinal() || isSilent) {
      throw error;
    }
    long pause = RepeatedRequest.pauseAfter(failures) + error.retryDelay().toNanos();
    try {
      Thread.sleep(Duration.ofNanos(pause).toMillis());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw error;
    }
  }
}
