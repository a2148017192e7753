package passbook.client;

import io.grpc.CallCredentials;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.Deadline;
import io.grpc.Metadata;
import io.grpc.Status;
import java.time.Duration;
import java.util.concurrent.Executor;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import passbook.v1.AccountServiceGrpc;
import passbook.v1.StreamedRequest;
import passbook.v1.StreamedResult;

/**
 * Carries the concurrent requests of a client to one server, by one gRPC stream at a time. While a
 * message is on its way, the next one gathers the requests that wait.
 */
final class SharedStream {
  /** A larger request goes alone. */
  private static final int STREAMED_BYTES_MAX = 64 << 10;

  /**
   * The contract's limit of characters in a request id, all of them ASCII. The result of a request
   * with another id may not name it, so such a request goes alone.
   */
  private static final int STREAMED_ID_MAX = 64;

  /** How long requests go alone after a server did not take the stream. */
  private static final Duration UNARY_TIME = Duration.ofMinutes(1);

  private final Channel channel;
  private final CallCredentials credentials;
  private final ScheduledExecutorService timer;
  private final Executor executor;

  // Guarded by this.
  private StreamSession session;
  private long unaryUntil = System.nanoTime();
  private boolean isClosed;

  SharedStream(
      Channel channel,
      CallCredentials credentials,
      ScheduledExecutorService timer,
      Executor executor) {
    this.channel = channel;
    this.credentials = credentials;
    this.timer = timer;
    this.executor = executor;
  }

  /** Sends a request. Returns false if it has to go alone. */
  boolean send(RepeatedRequest.StreamAttempt attempt) {
    StreamedRequest.Builder element = Requests.streamed(attempt.request());
    int bytes = attempt.request().getSerializedSize();
    if (bytes > STREAMED_BYTES_MAX || !isAllowed(attempt.requestId())) {
      return false;
    }
    Pending pending = new Pending(attempt, element, bytes);
    StreamSession current = session();
    if (current == null) {
      return false;
    }
    attempt.onCancel(
        () -> {
          pending.end();
          current.forget(pending);
        });
    if (!current.enqueue(pending)) {
      return false;
    }
    pending.startExpiry(current, timer);
    return true;
  }

  private static boolean isAllowed(String requestId) {
    return requestId.length() <= STREAMED_ID_MAX && requestId.chars().allMatch(it -> it < 128);
  }

  /** The stream that is open, a new one, or null if there cannot be one now. */
  private synchronized StreamSession session() {
    if (isClosed || System.nanoTime() - unaryUntil < 0) {
      return null;
    }
    if (session == null) {
      AtomicBoolean hasToken = new AtomicBoolean(credentials == null);
      CallOptions options =
          CallOptions.DEFAULT
              .withCallCredentials(credentials)
              .withOption(BearerToken.IS_THERE, hasToken);
      session = new StreamSession(this, hasToken, timer, executor);
      session.start(channel.newCall(AccountServiceGrpc.getStreamTransactionsMethod(), options));
    }
    return session;
  }

  /**
   * Forgets a stream. If the server does not take it, requests go alone for a while. A credential
   * that has expired is no reason: the next stream has a new one.
   */
  synchronized void ended(StreamSession ended, PassbookException error) {
    if (session == ended) {
      session = null;
    }
    if (error.isFinal() && error.code() != Status.Code.UNAUTHENTICATED) {
      unaryUntil = System.nanoTime() + UNARY_TIME.toNanos();
    }
  }

  synchronized void close() {
    isClosed = true;
  }

  /** A request with the caller that waits for it. Ends once. */
  static final class Pending {
    private final RepeatedRequest.StreamAttempt attempt;
    private final StreamedRequest.Builder element;
    private final int bytes;
    private final AtomicBoolean isEnded = new AtomicBoolean();
    private volatile Future<?> expiry;
    // Guarded by the session.
    private boolean isSent;

    Pending(RepeatedRequest.StreamAttempt attempt, StreamedRequest.Builder element, int bytes) {
      this.attempt = attempt;
      this.element = element;
      this.bytes = bytes;
    }

    private void startExpiry(StreamSession session, ScheduledExecutorService timer) {
      if (attempt.deadline() != null) {
        long left = attempt.deadline().timeRemaining(TimeUnit.NANOSECONDS);
        expiry = timer.schedule(() -> expire(session), left, TimeUnit.NANOSECONDS);
        if (isEnded.get()) {
          expiry.cancel(false);
        }
      }
    }

    private void expire(StreamSession session) {
      boolean isUnapplied = session.forget(this);
      Status status = Status.DEADLINE_EXCEEDED.withDescription("no result came in time");
      PassbookException error = PassbookException.of(status, new Metadata(), requestId());
      fail(isUnapplied ? error.with(Outcome.NOT_APPLIED) : error);
    }

    String requestId() {
      return attempt.requestId();
    }

    int bytes() {
      return bytes;
    }

    boolean isSent() {
      return isSent;
    }

    void setSent() {
      isSent = true;
    }

    /** The element of a message that is sent now. */
    StreamedRequest element() {
      Deadline deadline = attempt.deadline();
      if (deadline != null) {
        long left = Math.max(0, deadline.timeRemaining(TimeUnit.NANOSECONDS));
        element
            .getTimeoutBuilder()
            .setSeconds(TimeUnit.NANOSECONDS.toSeconds(left))
            .setNanos((int) (left % TimeUnit.SECONDS.toNanos(1)));
      }
      return element.build();
    }

    void complete(StreamedResult result) {
      if (end()) {
        attempt.complete(result);
      }
    }

    void fail(PassbookException error) {
      if (end()) {
        attempt.fail(error);
      }
    }

    void sendAlone(boolean isInDoubt) {
      if (end()) {
        attempt.sendAlone(isInDoubt);
      }
    }

    /** Returns false if the request has ended before. */
    boolean end() {
      Future<?> timer = expiry;
      if (timer != null) {
        timer.cancel(false);
      }
      return isEnded.compareAndSet(false, true);
    }
  }
}
