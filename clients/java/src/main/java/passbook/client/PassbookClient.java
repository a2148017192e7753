package passbook.client;

import io.grpc.CallCredentials;
import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import java.net.InetAddress;
import java.net.URI;
import java.net.UnknownHostException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.Executor;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;
import passbook.v1.AccountServiceGrpc;
import passbook.v1.AccountServiceGrpc.AccountServiceBlockingStub;
import passbook.v1.AccountServiceGrpc.AccountServiceFutureStub;
import passbook.v1.AccountServiceGrpc.AccountServiceStub;
import passbook.v1.PostTransactionRequest;
import passbook.v1.WatchEventsRequest;

/**
 * Calls the servers of one ledger. Safe for use by many threads: make one client for the whole
 * program.
 *
 * <pre>{@code
 * try (PassbookClient client = PassbookClient.builder("127.0.0.1:50051").build()) {
 *   DepositResponse response = client.blocking().deposit(DepositRequest.newBuilder()
 *       .setRequestId("salary-2026-11")
 *       .setAccountId("joint")
 *       .setAmount(Amounts.money(new BigDecimal("1000.00"), "USD"))
 *       .build());
 * }
 * }</pre>
 *
 * <p>The stubs are those of the contract. Each of their unary calls has a request id (the client
 * makes one if the request has none), a timeout, and attempts until there is a result or time is
 * up. An error is a {@link io.grpc.StatusRuntimeException}, behind which {@link
 * PassbookException#of(Throwable)} finds the reason and the outcome.
 *
 * <p>Concurrent calls share one stream to each server, which makes each call far cheaper. Timeouts,
 * cancellation and errors are those of single calls.
 */
public final class PassbookClient implements AutoCloseable {
  /** The version of this client, and of the contract that it was made from. */
  public static final String VERSION = "0.1.0";

  private static final Duration TIMEOUT_DEFAULT = Duration.ofSeconds(10);
  // These two find a peer that is gone without a word.
  private static final Duration KEEPALIVE_INTERVAL = Duration.ofSeconds(10);
  private static final Duration KEEPALIVE_TIMEOUT = Duration.ofSeconds(5);

  private final Calls calls;
  private final ExecutorService executor;
  private final ScheduledThreadPoolExecutor timer;

  private PassbookClient(Builder builder) {
    executor = Executors.newCachedThreadPool(daemons("passbook-client"));
    timer = new ScheduledThreadPoolExecutor(1, daemons("passbook-timer"));
    timer.setRemoveOnCancelPolicy(true);
    CallCredentials credentials =
        builder.token == null ? null : new BearerToken(builder.token, builder.timeout, timer);
    List<Server> servers = new ArrayList<>();
    for (String address : builder.addresses) {
      ManagedChannel channel = connect(address, builder, executor);
      servers.add(new Server(channel, new SharedStream(channel, credentials, timer, executor)));
    }
    calls =
        new Calls(
            servers,
            credentials,
            builder.timeout,
            builder.isUnary,
            timer,
            executor,
            System::nanoTime);
  }

  /**
   * A client of the servers with these addresses (HOST:PORT), all of one ledger. Calls go round the
   * servers.
   *
   * @throws IllegalArgumentException there is no address
   */
  public static Builder builder(String... addresses) {
    return new Builder(List.of(addresses));
  }

  /** The stub whose calls wait for their result. */
  public AccountServiceBlockingStub blocking() {
    return AccountServiceGrpc.newBlockingStub(calls);
  }

  /** The stub whose calls return a future. */
  public AccountServiceFutureStub future() {
    return AccountServiceGrpc.newFutureStub(calls);
  }

  /** The stub for observers. Its streams are the bare ones of gRPC. */
  public AccountServiceStub async() {
    return AccountServiceGrpc.newStub(calls);
  }

  /** Watches the entries of an account after a sequence. Zero: from the first entry. */
  public EntryWatch watch(String accountId, long afterSequence) {
    return new EntryWatch(calls, accountId, afterSequence);
  }

  /** Watches everything that happens, from the start that the request names. */
  public EventWatch watchEvents(WatchEventsRequest request) {
    return new EventWatch(calls, request);
  }

  /**
   * Posts transactions for as long as there are requests, and returns a result for each, in the
   * order of the requests. Takes requests only as fast as their results are read, at most 1,024
   * ahead, in a thread of its own.
   *
   * <p>Each request is repeated until it has a result. They are usually applied in their order, but
   * this is not promised: if one depends on another, post it after the result of the other. If no
   * server answers for 60 seconds, each request that was taken ends with its own error, no more are
   * taken, and if requests are left, the last {@link Postings#next} throws that error.
   */
  public Postings postAll(Iterator<PostTransactionRequest> requests) {
    return new Postings(calls, requests, executor);
  }

  /** Ends the connections. What is under way ends with CANCELLED, a change with its outcome. */
  @Override
  public void close() {
    calls.close();
    timer.shutdown();
    // The executor stays, for the callbacks of the calls that end now. Its threads end when they
    // are idle.
  }

  private static ManagedChannel connect(String address, Builder builder, Executor executor) {
    ManagedChannelBuilder<?> channel =
        Grpc.newChannelBuilder(
                address, builder.tls == null ? InsecureChannelCredentials.create() : builder.tls)
            .userAgent("passbook-java/" + VERSION)
            .executor(executor)
            .disableRetry()
            .disableServiceConfigLookUp()
            .keepAliveTime(KEEPALIVE_INTERVAL.toMillis(), TimeUnit.MILLISECONDS)
            .keepAliveTimeout(KEEPALIVE_TIMEOUT.toMillis(), TimeUnit.MILLISECONDS);
    if (builder.serverName != null) {
      channel.overrideAuthority(builder.serverName);
    }
    return channel.build();
  }

  private static ThreadFactory daemons(String name) {
    AtomicInteger number = new AtomicInteger();
    return task -> {
      Thread thread = new Thread(task, name + "-" + number.incrementAndGet());
      thread.setDaemon(true);
      return thread;
    };
  }

  /** Changes the defaults of a client. */
  public static final class Builder {
    private final List<String> addresses;
    private Duration timeout = TIMEOUT_DEFAULT;
    private Supplier<String> token;
    private ChannelCredentials tls;
    private String serverName;
    private boolean isUnary;

    private Builder(List<String> addresses) {
      if (addresses.isEmpty()) {
        throw new IllegalArgumentException("there is no address");
      }
      this.addresses = addresses;
    }

    /**
     * The time of a call without a deadline of its own. Bounds all attempts and pauses together.
     * Default: 10 s.
     */
    public Builder timeout(Duration newTimeout) {
      timeout = Objects.requireNonNull(newTimeout);
      return this;
    }

    /** Sends a bearer token with each call. */
    public Builder token(String newToken) {
      Objects.requireNonNull(newToken);
      return token(() -> newToken);
    }

    /**
     * Sends the bearer token that the function returns, for tokens that expire. The function is
     * called for each attempt, so it should return the same token as long as that is valid. What it
     * throws ends the call with the code UNAUTHENTICATED: nothing was sent. A call waits for it
     * until its deadline, and a stream, which has none, as long as {@link #timeout(Duration)} says.
     */
    public Builder token(Supplier<String> newToken) {
      token = Objects.requireNonNull(newToken);
      return this;
    }

    /**
     * Encrypts the connections. {@link io.grpc.TlsChannelCredentials} has authorities and
     * certificates.
     */
    public Builder tls(ChannelCredentials newTls) {
      tls = Objects.requireNonNull(newTls);
      return this;
    }

    /** The name in the certificates of the servers. Default: the host of each address. */
    public Builder serverName(String newServerName) {
      serverName = Objects.requireNonNull(newServerName);
      return this;
    }

    /** Makes a gRPC call of each request, instead of sending concurrent requests in one stream. */
    public Builder unary() {
      isUnary = true;
      return this;
    }

    /**
     * The client. Does not wait for connections.
     *
     * @throws IllegalStateException a token would go to another machine without TLS
     */
    public PassbookClient build() {
      for (String address : addresses) {
        if (token != null && tls == null && !isLoopback(address)) {
          throw new IllegalStateException(
              "a token for " + address + " needs TLS: anyone on the way could read it");
        }
      }
      return new PassbookClient(this);
    }

    private static boolean isLoopback(String address) {
      String host = URI.create("//" + address).getHost();
      try {
        boolean isName =
            host == null || host.chars().anyMatch(Character::isLetter) && host.indexOf(':') < 0;
        return isName ? "localhost".equals(host) : InetAddress.getByName(host).isLoopbackAddress();
      } catch (UnknownHostException e) {
        return false;
      }
    }
  }
}
