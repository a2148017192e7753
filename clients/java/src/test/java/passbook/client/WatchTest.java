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
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.IntFunction;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

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
    Calls calls = new Calls(List.of(server), null, Duration.ofSeconds(10), false, null, null);
    AtomicInteger number = new AtomicInteger();
    return new Watch<>(calls, stub -> stream.apply(number.incrementAndGet()), clock::get);
  }

  private void passSeconds(long seconds) {
    clock.addAndGet(Duration.ofSeconds(seconds).toNanos());
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
