package passbook.client;

import io.grpc.Context;
import io.grpc.Status;
import java.time.Duration;
import java.util.Collections;
import java.util.Iterator;
import passbook.v1.AccountServiceGrpc;
import passbook.v1.Entry;
import passbook.v1.WatchEntriesRequest;
import passbook.v1.WatchEntriesResponse;

/**
 * The entries of an account: first those that exist, then each new one. After a broken connection
 * the watch continues on the next server: no entry is missed, and none comes twice. {@link #next}
 * waits for the next entry, and takes messages of the server only as fast as it is called.
 *
 * <p>A watch is for one thread. Another thread may {@link #close} it, which ends {@link #next} with
 * an error.
 */
public final class EntryWatch implements Iterator<Entry>, AutoCloseable {
  /** The longest time without a message of any server. Servers send one every 5 seconds. */
  private static final Duration SILENCE_MAX = Duration.ofSeconds(60);

  private final Calls calls;
  private final String accountId;
  private final Context.CancellableContext context = Context.current().withCancellation();

  private long sequence;
  private Server server;
  private Iterator<WatchEntriesResponse> messages;
  private Iterator<Entry> entries = Collections.emptyIterator();
  // Streams that broke since the last message.
  private int failures;
  private long lastMessage = System.nanoTime();

  EntryWatch(Calls calls, String accountId, long afterSequence) {
    this.calls = calls;
    this.accountId = accountId;
    this.sequence = afterSequence;
  }

  /** Always true: a watch has no end of its own. */
  @Override
  public boolean hasNext() {
    return true;
  }

  /**
   * Waits for the next entry.
   *
   * @throws PassbookException the watch has a final error, no server has sent a message for 60
   *     seconds, or the watch was closed
   */
  @Override
  public Entry next() {
    while (!entries.hasNext()) {
      try {
        entries = nextMessage().getEntriesList().iterator();
        failures = 0;
        lastMessage = System.nanoTime();
      } catch (RuntimeException e) {
        messages = null;
        pauseAfter(PassbookException.of(e).with(Outcome.NONE));
      }
    }
    Entry entry = entries.next();
    sequence = entry.getSequence();
    return entry;
  }

  @Override
  public void close() {
    context.cancel(null);
  }

  private WatchEntriesResponse nextMessage() {
    if (messages == null) {
      server = calls.pick();
      var request =
          WatchEntriesRequest.newBuilder()
              .setAccountId(accountId)
              .setAfterSequence(sequence)
              .build();
      var stub =
          AccountServiceGrpc.newBlockingStub(server.channel())
              .withCallCredentials(calls.credentials());
      context.run(() -> messages = stub.watchEntries(request));
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
