package passbook.client;

import com.google.protobuf.Message;
import io.grpc.CallCredentials;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executor;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.LongSupplier;

/**
 * The channel of the client's stubs: goes round the servers, and repeats unary calls. The calls of
 * other kinds are those of gRPC.
 */
final class Calls extends Channel {
  /**
   * The longest time without an answer of any server, from the first attempt that failed, for a
   * watch and for a call without a deadline. The time that the program takes for a message does not
   * count.
   */
  static final Duration OUTAGE_MAX = Duration.ofSeconds(60);

  private final List<Server> servers;
  private final AtomicInteger next = new AtomicInteger();
  private final CallCredentials credentials;
  private final Duration timeout;
  private final boolean isUnary;
  private final ScheduledExecutorService timer;
  private final Executor executor;
  private final LongSupplier clock;
  private final CountDownLatch closed = new CountDownLatch(1);

  /**
   * Makes the calls of a client.
   *
   * @param clock a monotonic clock, in nanoseconds
   */
  Calls(
      List<Server> servers,
      CallCredentials credentials,
      Duration timeout,
      boolean isUnary,
      ScheduledExecutorService timer,
      Executor executor,
      LongSupplier clock) {
    this.servers = List.copyOf(servers);
    this.credentials = credentials;
    this.timeout = timeout;
    this.isUnary = isUnary;
    this.timer = timer;
    this.executor = executor;
    this.clock = clock;
  }

  @Override
  @SuppressWarnings("unchecked")
  public <Q, R> ClientCall<Q, R> newCall(MethodDescriptor<Q, R> method, CallOptions options) {
    if (method.getType() != MethodDescriptor.MethodType.UNARY) {
      return newAttempt(pick(), method, options);
    }
    // All methods of the contract carry messages of protobuf.
    var typed = (MethodDescriptor<Message, Message>) method;
    return (ClientCall<Q, R>) new RepeatedCall(this, typed, options);
  }

  @Override
  public String authority() {
    return servers.get(0).channel().authority();
  }

  /** A call of gRPC, with the client's credentials unless the options have others. */
  <Q, R> ClientCall<Q, R> newAttempt(
      Server server, MethodDescriptor<Q, R> method, CallOptions options) {
    return server
        .channel()
        .newCall(method, addsToken(options) ? options.withCallCredentials(credentials) : options);
  }

  /** Whether a call with these options waits for the client's token. */
  boolean addsToken(CallOptions options) {
    return credentials != null && options.getCredentials() == null;
  }

  /**
   * The next server that has not answered UNAVAILABLE just now, or else the next one. One with a
   * connection comes before one without: a call to a server that hangs would wait for the
   * connection until its time is up.
   */
  Server pick() {
    int first = next.getAndIncrement();
    Server unconnected = null;
    for (int i = 0; i < servers.size(); i++) {
      Server server = servers.get(Math.floorMod(first + i, servers.size()));
      if (server.isAvoided()) {
        continue;
      }
      if (server.isConnected()) {
        return server;
      }
      unconnected = unconnected == null ? server : unconnected;
    }
    return unconnected == null ? servers.get(Math.floorMod(first, servers.size())) : unconnected;
  }

  /** Null: there are none. */
  CallCredentials credentials() {
    return credentials;
  }

  Duration timeout() {
    return timeout;
  }

  boolean isUnary() {
    return isUnary;
  }

  ScheduledExecutorService timer() {
    return timer;
  }

  /** Nothing is sent any more. */
  void close() {
    closed.countDown();
    servers.forEach(Server::close);
  }

  boolean isClosed() {
    return closed.getCount() == 0;
  }

  /** Waits, at most until the client is closed. */
  void pause(long nanos) throws InterruptedException {
    closed.await(nanos, TimeUnit.NANOSECONDS);
  }

  /** The error of what ends with this error, after the client was closed. */
  static PassbookException closedError(PassbookException error) {
    Status status = Status.CANCELLED.withDescription("the client is closed: " + error.getMessage());
    return PassbookException.of(status, new Metadata(), error.requestId()).with(error.outcome());
  }

  /** A monotonic clock, in nanoseconds. */
  long now() {
    return clock.getAsLong();
  }

  /** Where callbacks run whose caller has named no executor. */
  Executor executor() {
    return executor;
  }
}
