package passbook.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import java.time.Duration;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.IntFunction;
import java.util.function.LongSupplier;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import passbook.v1.PostTransactionRequest;

/** When a watch ends because no server answers. Has a clock of its own, and no server. */
@Timeout(30)
class WatchTest {
  private final AtomicLong clock = new AtomicLong();
  private final ManagedChannel channel =
      Grpc.newChannelBuilder("127.0.0.1:1", InsecureChannelCredentials.create()).build();
  private final Server server = new Server(channel, null);

  @AfterEach
  void endChannel() {
    channel.shutdownNow();
  }

  /** A watch of streams. Each gets its number, from 1. */
  private Watch<String> watch(IntFunction<Iterator<String>> stream) {
    AtomicInteger number = new AtomicInteger();
    return new Watch<>(
        calls(false, null, clock::get), stub -> stream.apply(number.incrementAndGet()));
  }

  private Calls calls(boolean isUnary, ScheduledExecutorService timer, LongSupplier clock) {
    Duration timeout = Duration.ofSeconds(10);
    return new Calls(List.of(server), null, timeout, isUnary, timer, Runnable::run, clock);
  }

  private void passSeconds(long seconds) {
    clock.addAndGet(Duration.ofSeconds(seconds).toNanos());
  }

  /** Each look at the clock takes 10 s. */
  @Test
  @Timeout(value = 10, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
  void allPostingsEndAfterALongOutage() {
    var timer = new ScheduledThreadPoolExecutor(1);
    var calls = calls(true, timer, () -> clock.addAndGet(10_000_000_000L));
    var requests =
        Stream.iterate(1, it -> it + 1)
            .map(it -> PostTransactionRequest.newBuilder().setRequestId("id-" + it).build())
            .iterator();
    try (Postings postings = new Postings(calls, requests, it -> new Thread(it).start())) {
      int number = 0;
      while (true) {
        Posted posted = postings.next();
        number++;
        assertEquals("id-" + number, posted.requestId());
        assertEquals(Status.Code.UNAVAILABLE, posted.error().code());
        assertEquals(Outcome.UNKNOWN, posted.error().outcome());
        assertEquals("id-" + number, posted.error().requestId());
      }
    } catch (PassbookException e) {
      // The error of all requests that are left.
      assertEquals(Status.Code.UNAVAILABLE, e.code());
      assertEquals("", e.requestId());
    } finally {
      timer.shutdownNow();
    }
  }

  @Test
  void theTimeOfTheProgramIsNoOutage() {
    // Each stream has one message, and then breaks.
    Watch<String> watch = watch(number -> List.of("message " + number).iterator());
    for (int number = 1; number <= 3; number++) {
      assertEquals("message " + number, watch.next());
      passSeconds(600);
    }
  }

  @Test
  void aWatchEndsWithTheLastErrorOfALongOutage() {
    AtomicInteger streams = new AtomicInteger();
    Watch<String> watch =
        watch(
            number -> {
              streams.set(number);
              if (number == 1) {
                return List.of("message").iterator();
              }
              passSeconds(25);
              throw Status.UNAVAILABLE.withDescription("number " + number).asRuntimeException();
            });
    watch.next();
    passSeconds(600);
    var error = assertThrows(PassbookException.class, watch::next);
    // The first stream broke at 0 s, and the others at 25, 50 and 75 s.
    assertEquals("number 4", error.getMessage());
    assertTrue(streams.get() == 4, "there were " + streams.get() + " streams");
  }
}
