package passbook.client;

import java.util.Collections;
import java.util.Iterator;
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
  private final Watch<WatchEntriesResponse> messages;
  private final WatchEntriesRequest.Builder request;
  private Iterator<Entry> entries = Collections.emptyIterator();

  EntryWatch(Calls calls, String accountId, long afterSequence) {
    request =
        WatchEntriesRequest.newBuilder().setAccountId(accountId).setAfterSequence(afterSequence);
    messages = new Watch<>(calls, stub -> stub.watchEntries(Requests.checked(request.build())));
  }

  /** Always true: a watch has no end of its own. */
  @Override
  public boolean hasNext() {
    return true;
  }

  /**
   * Waits for the next entry.
   *
   * @throws PassbookException the watch has a final error, no server has answered for 60 seconds,
   *     or the watch was closed
   */
  @Override
  public Entry next() {
    while (!entries.hasNext()) {
      entries = messages.next().getEntriesList().iterator();
    }
    Entry entry = entries.next();
    request.setAfterSequence(entry.getSequence());
    return entry;
  }

  @Override
  public void close() {
    messages.close();
  }
}
