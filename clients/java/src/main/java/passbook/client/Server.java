package passbook.client;

import io.grpc.ManagedChannel;
import io.grpc.Status;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicLong;

/** One server, with its connection and its stream. */
final class Server {
  /** How long a server that has answered UNAVAILABLE is passed over. */
  private static final Duration AVOID_TIME = Duration.ofSeconds(1);

  private final ManagedChannel channel;
  private final SharedStream stream;
  private final AtomicLong avoidUntil = new AtomicLong(System.nanoTime());

  Server(ManagedChannel channel, SharedStream stream) {
    this.channel = channel;
    this.stream = stream;
  }

  ManagedChannel channel() {
    return channel;
  }

  SharedStream stream() {
    return stream;
  }

  boolean isAvoided() {
    return System.nanoTime() - avoidUntil.get() < 0;
  }

  /** Passes over a server that is not available, and lets its connection try again at once. */
  void answered(PassbookException error) {
    if (error.code() == Status.Code.UNAVAILABLE && !isAvoided()) {
      avoidUntil.set(System.nanoTime() + AVOID_TIME.toNanos());
      // gRPC's own pause between attempts to connect grows to two minutes.
      channel.resetConnectBackoff();
    }
  }

  void close() {
    stream.close();
    channel.shutdownNow();
  }
}
