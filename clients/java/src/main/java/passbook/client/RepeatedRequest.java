package passbook.client;

import com.google.protobuf.Message;
import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.Deadline;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.time.Duration;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import passbook.v1.StreamedResult;

/** One request with all of its attempts, until there is a result or time is up. */
final class RepeatedRequest {
  /**
   * The bound of the pause before the second attempt. Each further bound is twice the one before.
   */
  private static final Duration PAUSE_BASE = Duration.ofMillis(50);

  private static final Duration PAUSE_MAX = Duration.ofSeconds(2);

  /** Gets the response or the error, once. */
  interface Callback {
    void done(Message response, PassbookException error);
  }

  private final Calls calls;
  private final MethodDescriptor<Message, Message> method;
  private final CallOptions options;
  private final Metadata headers;
  private final Message request;
  private final Deadline deadline;
  private final Callback callback;

  private final Requests.Kind kind;
  private final String requestId;
  // Empty: the request opens no account.
  private final String accountId;
  private final AtomicBoolean isDone = new AtomicBoolean();
  private volatile Runnable cancelAttempt = () -> {};
  // Attempts follow one another, so these need no lock.
  private int attempts;
  // When the first of them failed.
  private long outageStart;
  private boolean isMaybeApplied;

  /**
   * A request that has all of its ids.
   *
   * @param deadline null: there is none, each attempt has the server's default, and the request
   *     ends if no attempt has a result for {@link Calls#OUTAGE_MAX}
   */
  RepeatedRequest(
      Calls calls,
      MethodDescriptor<Message, Message> method,
      CallOptions options,
      Metadata headers,
      Message request,
      Deadline deadline,
      Callback callback) {
    this.calls = calls;
    this.method = method;
    this.options = deadline == null ? options : options.withDeadline(deadline);
    this.headers = headers;
    this.request = request;
    this.deadline = deadline;
    this.callback = callback;
    this.kind = Requests.kindOf(method);
    this.requestId = Requests.requestId(request);
    this.accountId = Requests.openedAccountId(request);
  }

  /** Begins the first attempt. */
  void start() {
    Status error = Requests.textError(request);
    if (error == null) {
      attempt();
    } else {
      finish(null, PassbookException.of(error, new Metadata(), requestId));
    }
  }

  /**
   * Continues after an attempt that was part of a batch.
   *
   * @param isInDoubt whether an earlier attempt of the batch may have applied the request
   */
  void startAfter(PassbookException error, boolean isInDoubt) {
    isMaybeApplied = isInDoubt;
    attempts = 1;
    // Unlike a call, a batch can have another deadline.
    repeatAfter(error, false);
  }

  /** Ends the call. An attempt that is under way may still be applied. */
  void cancel(String message, Throwable cause) {
    Status status = Status.CANCELLED.withDescription(message).withCause(cause);
    finish(null, judge(PassbookException.of(status, new Metadata(), requestId)));
    cancelAttempt.run();
  }

  /** Whether an attempt has ended without a word on what became of it. */
  boolean isMaybeApplied() {
    return isMaybeApplied;
  }

  private void attempt() {
    if (isDone.get()) {
      return;
    }
    attempts++;
    if (calls.isClosed()) {
      Status status = Status.CANCELLED.withDescription("nothing was sent");
      PassbookException error = PassbookException.of(status, new Metadata(), requestId);
      repeatAfter(error.with(Outcome.NOT_APPLIED), false);
      return;
    }
    Server server = calls.pick();
    boolean isStreamed =
        !calls.isUnary()
            && Requests.isStreamed(method)
            && server.stream().send(new StreamAttempt(server));
    if (!isStreamed) {
      attemptAlone(server);
    }
    if (isDone.get()) {
      cancelAttempt.run();
    }
  }

  private void attemptAlone(Server server) {
    AtomicBoolean hasToken = new AtomicBoolean(!calls.addsToken(options));
    ClientCall<Message, Message> call =
        calls.newAttempt(server, method, options.withOption(BearerToken.IS_THERE, hasToken));
    Metadata own = new Metadata();
    own.merge(headers);
    call.start(new AloneAttempt(server, hasToken), own);
    call.request(2); // gRPC's own stubs ask for two, to notice a second response.
    call.sendMessage(request);
    call.halfClose();
    // Not before: a call that was canceled takes no message. A stub also cancels a call that has
    // failed.
    cancelAttempt = () -> call.cancel("the caller has canceled the call", null);
    if (isDone.get()) {
      cancelAttempt.run();
    }
  }

  private void failed(Server server, PassbookException error) {
    server.answered(error);
    repeatAfter(error, deadline != null && error.code() == Status.Code.DEADLINE_EXCEEDED);
  }

  private void repeatAfter(PassbookException error, boolean isTimeUp) {
    PassbookException judged = judge(error);
    if (calls.isClosed() && !judged.isFinal()) {
      finish(null, Calls.closedError(judged));
      return;
    }
    long pause = pauseAfter(attempts) + error.retryDelay().toNanos();
    boolean isInTime = deadline == null || deadline.timeRemaining(TimeUnit.NANOSECONDS) > pause;
    if (attempts == 1) {
      outageStart = calls.now();
    }
    boolean isOutage = deadline == null && calls.now() - outageStart > Calls.OUTAGE_MAX.toNanos();
    if (!mayRepeat(judged) || isTimeUp || isOutage || !isInTime) {
      finish(null, judged);
      return;
    }
    try {
      calls
          .timer()
          .schedule(() -> calls.executor().execute(this::attempt), pause, TimeUnit.NANOSECONDS);
    } catch (RejectedExecutionException e) {
      finish(null, judged); // The client is closed.
    }
  }

  private void finish(Message response, PassbookException error) {
    if (isDone.compareAndSet(false, true)) {
      callback.done(response, error == null ? null : named(error));
    }
  }

  /** The error with the ids that a repeat needs. */
  private PassbookException named(PassbookException error) {
    PassbookException named = accountId.isEmpty() ? error : error.withAccountId(accountId);
    return named.withElements(Requests.requestIds(request), Requests.accountIds(request));
  }

  /** Sets the outcome of an error to that of all attempts so far. */
  private PassbookException judge(PassbookException error) {
    // A server that finds a request invalid does not look for its record. An attempt in doubt may
    // have been made by a server with other settings, to which the request was valid.
    boolean isResult = error.isResult() && !(isMaybeApplied && error.isInvalid());
    if (kind == Requests.Kind.READ || isResult) {
      return error.with(Outcome.NONE);
    }
    boolean isUnapplied = error.isDenied() || error.outcome() == Outcome.NOT_APPLIED;
    isMaybeApplied = isMaybeApplied || !isUnapplied;
    return isMaybeApplied ? error.with(Outcome.UNKNOWN) : error;
  }

  private boolean mayRepeat(PassbookException judged) {
    boolean isHarmless =
        kind != Requests.Kind.ATTRIBUTES || judged.outcome() == Outcome.NOT_APPLIED;
    return !judged.isFinal() && isHarmless;
  }

  /** In nanoseconds. Random, so that callers that failed together do not come back together. */
  static long pauseAfter(int attempts) {
    long doubled = PAUSE_BASE.toNanos() << Math.min(attempts - 1, 10);
    return ThreadLocalRandom.current().nextLong(Math.min(doubled, PAUSE_MAX.toNanos()));
  }

  /** An attempt as a call of gRPC. */
  private final class AloneAttempt extends ClientCall.Listener<Message> {
    private final Server server;
    private final AtomicBoolean hasToken;
    private Message response;

    AloneAttempt(Server server, AtomicBoolean hasToken) {
      this.server = server;
      this.hasToken = hasToken;
    }

    @Override
    public void onMessage(Message message) {
      response = message;
    }

    @Override
    public void onClose(Status status, Metadata trailers) {
      if (status.isOk() && response != null) {
        finish(response, null);
      } else {
        Status failure =
            status.isOk() ? Status.INTERNAL.withDescription("there is no response") : status;
        PassbookException error = PassbookException.of(failure, trailers, requestId);
        // Nothing is sent without the token.
        boolean isUnapplied = !hasToken.get() && error.code() == Status.Code.DEADLINE_EXCEEDED;
        failed(server, isUnapplied ? error.with(Outcome.NOT_APPLIED) : error);
      }
    }
  }

  /** An attempt as an element of the server's stream. */
  final class StreamAttempt {
    private final Server server;

    StreamAttempt(Server server) {
      this.server = server;
    }

    Message request() {
      return request;
    }

    String requestId() {
      return requestId;
    }

    /** Null: none. */
    Deadline deadline() {
      return deadline;
    }

    void onCancel(Runnable cancel) {
      cancelAttempt = cancel;
    }

    void complete(StreamedResult result) {
      if (result.hasError()) {
        failed(server, PassbookException.of(result.getError(), requestId));
      } else {
        finish(Requests.response(method, result), null);
      }
    }

    void fail(PassbookException error) {
      failed(server, error);
    }

    /**
     * Goes alone after all.
     *
     * @param isInDoubt whether the stream may have applied the request
     */
    void sendAlone(boolean isInDoubt) {
      isMaybeApplied = isMaybeApplied || isInDoubt;
      if (!isDone.get()) {
        attemptAlone(server);
      }
    }
  }
}
