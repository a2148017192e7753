package passbook.client;

import java.util.Iterator;
import passbook.v1.WatchEventsRequest;
import passbook.v1.WatchEventsResponse;

/**
 * The messages of WatchEvents: events with the token behind them. A message without events is a
 * heartbeat. After a broken connection the watch continues after the last token, on the next
 * server: no event is missed, and none comes twice. {@link #next} waits for the next message, and
 * takes messages of the server only as fast as it is called.
 *
 * <p>Store the token together with what the events cause, and start again after that token: then
 * each event counts once, whatever breaks. A watch from now begins with its first message, which
 * comes at once with the token of that moment. To read only what there is, stop after the first
 * message that has caught up ({@code getCaughtUp}).
 *
 * <p>A watch is for one thread. Another thread may {@link #close} it, which ends {@link #next} with
 * an error.
 */
public final class EventWatch implements Iterator<WatchEventsResponse>, AutoCloseable {
  private final Watch<WatchEventsResponse> messages;
  private final WatchEventsRequest.Builder request;

  EventWatch(Calls calls, WatchEventsRequest first) {
    request = first.toBuilder();
    messages = new Watch<>(calls, stub -> stub.watchEvents(Requests.checked(request.build())));
  }

  /** Always true: a watch has no end of its own. */
  @Override
  public boolean hasNext() {
    return true;
  }

  /**
   * Waits for the next message.
   *
   * @throws PassbookException the watch has a final error, no server has answered for 60 seconds,
   *     or the watch was closed
   */
  @Override
  public WatchEventsResponse next() {
    WatchEventsResponse message = messages.next();
    request.setAfterToken(message.getToken());
    return message;
  }

  @Override
  public void close() {
    messages.close();
  }
}
