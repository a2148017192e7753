package passbook.client;

import io.grpc.ConnectivityState;
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
  private final AtomicLong lastConnect = new AtomicLong(System.nanoTime() - AVOID_TIME.toNanos());

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

  /** Whether there is a connection. If there is none, it is opened. */
  boolean isConnected() {
    ConnectivityState state = channel.getState(true);
    if (state == ConnectivityState.TRANSIENT_FAILURE) {
      connectAgain();
    }
    return state == ConnectivityState.READY;
  }

  /** Passes over a server that is not available. */
  void answered(PassbookException error) {
    if (error.code() == Status.Code.UNAVAILABLE && !isAvoided()) {
      avoidUntil.set(System.nanoTime() + AVOID_TIME.toNanos());
      connectAgain();
    }
  }

  /** Lets the connection try again. gRPC's own pause between attempts grows to two minutes. */
  private void connectAgain() {
    long now = System.nanoTime();
    long last = lastConnect.get();
    if (now - last > AVOID_TIME.toNanos() && lastConnect.compareAndSet(last, now)) {
      channel.resetConnectBackoff();
    }
  }

  void close() {
    stream.close();
    channel.shutdownNow();
  }
}
