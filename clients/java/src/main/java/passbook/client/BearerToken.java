package passbook.client;

import io.grpc.CallCredentials;
import io.grpc.CallOptions;
import io.grpc.Deadline;
import io.grpc.Metadata;
import io.grpc.Status;
import java.time.Duration;
import java.util.concurrent.Executor;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Supplier;

/** Adds the token to each call. */
final class BearerToken extends CallCredentials {
  /** Set once the token of an attempt is there. Before, the attempt has sent nothing. */
  static final CallOptions.Key<AtomicBoolean> IS_THERE = CallOptions.Key.create("passbook-token");

  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private final Supplier<String> token;
  private final Duration timeout;
  private final ScheduledExecutorService timer;

  /**
   * The token that a function returns.
   *
   * @param timeout for calls without a deadline: all callers of a shared stream wait for its token
   */
  BearerToken(Supplier<String> token, Duration timeout, ScheduledExecutorService timer) {
    this.token = token;
    this.timeout = timeout;
    this.timer = timer;
  }

  @Override
  public void applyRequestMetadata(RequestInfo info, Executor executor, MetadataApplier applier) {
    CallOptions options = info.getCallOptions();
    AtomicBoolean isAnswered = new AtomicBoolean();
    Future<?> expiry =
        timer.schedule(
            () -> {
              if (isAnswered.compareAndSet(false, true)) {
                applier.fail(late(options).withDescription("the token function takes too long"));
              }
            },
            left(options),
            TimeUnit.NANOSECONDS);
    executor.execute(
        () -> {
          Metadata headers = new Metadata();
          Status failure = null;
          try {
            headers.put(AUTHORIZATION, "Bearer " + token.get());
          } catch (Throwable e) { // Also an Error, or else the call would wait for the token.
            failure = Status.UNAUTHENTICATED.withDescription("there is no token").withCause(e);
          }
          expiry.cancel(false);
          if (!isAnswered.compareAndSet(false, true)) {
            return;
          }
          if (failure == null) {
            setThere(options);
            applier.apply(headers);
          } else {
            applier.fail(failure);
          }
        });
  }

  private long left(CallOptions options) {
    Deadline deadline = options.getDeadline();
    return deadline == null ? timeout.toNanos() : deadline.timeRemaining(TimeUnit.NANOSECONDS);
  }

  /** For a call without a deadline, a function that takes too long is one that fails. */
  private static Status late(CallOptions options) {
    return options.getDeadline() == null ? Status.UNAUTHENTICATED : Status.DEADLINE_EXCEEDED;
  }

  private static void setThere(CallOptions options) {
    AtomicBoolean isThere = options.getOption(IS_THERE);
    if (isThere != null) {
      isThere.set(true);
    }
  }
}
