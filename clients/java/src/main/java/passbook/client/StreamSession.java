package passbook.client;

import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.Status;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.Executor;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import passbook.client.SharedStream.Pending;
import passbook.v1.ResultOrder;
import passbook.v1.StreamTransactionsRequest;
import passbook.v1.StreamTransactionsResponse;
import passbook.v1.StreamedResult;

/** One gRPC stream, from its beginning to its end. */
final class StreamSession extends ClientCall.Listener<StreamTransactionsResponse> {
  /** The contract's limit of requests in one message. */
  private static final int MESSAGE_REQUESTS_MAX = 1000;

  /** Far below a server's limit of 1 MiB, which an operator may have lowered. */
  private static final int MESSAGE_BYTES_MAX = 256 << 10;

  /**
   * How long a message waits for more requests while others are on their way, in nanoseconds.
   * Callers whose results came together send their next requests one after another.
   */
  private static final long GATHER_TIME = 1_000_000;

  private final SharedStream parent;
  private final AtomicBoolean hasToken;
  private final ScheduledExecutorService timer;
  private final Executor executor;
  // Its methods need a lock, because messages are sent and received by different threads.
  private ClientCall<StreamTransactionsRequest, StreamTransactionsResponse> call;

  // Guarded by this.
  private final Queue<Pending> queue = new ArrayDeque<>();
  private final Map<String, Pending> pending = new HashMap<>();
  // Requests that were sent and have no result yet.
  private int sent;
  private boolean isSending;
  private boolean hasAnswered;
  private boolean hasEnd;
  // Only the one sender uses it.
  private ResultOrder order = ResultOrder.RESULT_ORDER_AS_COMPLETED;

  StreamSession(
      SharedStream parent,
      AtomicBoolean hasToken,
      ScheduledExecutorService timer,
      Executor executor) {
    this.parent = parent;
    this.hasToken = hasToken;
    this.timer = timer;
    this.executor = executor;
  }

  void start(ClientCall<StreamTransactionsRequest, StreamTransactionsResponse> newCall) {
    call = newCall;
    call.start(this, new Metadata());
    call.request(1);
  }

  /**
   * Returns false if another call with this id is in flight, since results are matched by their
   * ids.
   */
  boolean enqueue(Pending request) {
    synchronized (this) {
      if (hasEnd || pending.putIfAbsent(request.requestId(), request) != null) {
        return false;
      }
      queue.add(request);
    }
    beginSending();
    return true;
  }

  /**
   * Drops a request that no caller waits for. If it was sent, its id stays in use until its result
   * comes: a repeat would get that result, which says nothing of the repeat. Returns whether the
   * stream still waits for its token, so that nothing was sent.
   */
  synchronized boolean forget(Pending request) {
    return !request.isSent() && pending.remove(request.requestId(), request) && !hasToken.get();
  }

  @Override
  public void onReady() {
    beginSending();
  }

  @Override
  public void onMessage(StreamTransactionsResponse message) {
    if (message.hasResult()) {
      call.cancel("the server does not take several requests in a message", null);
      end(
          Status.UNIMPLEMENTED.withDescription(
              "the server does not take several requests in a message"));
      return;
    }
    List<Pending> ended = new ArrayList<>(message.getResultsCount());
    synchronized (this) {
      hasAnswered = true;
      for (StreamedResult result : message.getResultsList()) {
        Pending request = pending.remove(result.getRequestId());
        ended.add(request);
        sent -= request == null ? 0 : 1;
      }
    }
    for (int i = 0; i < ended.size(); i++) {
      if (ended.get(i) != null) {
        ended.get(i).complete(message.getResults(i));
      }
    }
    synchronized (call) {
      call.request(1);
    }
  }

  @Override
  public void onClose(Status status, Metadata trailers) {
    end(
        status.isOk() ? Status.UNAVAILABLE.withDescription("the stream has ended") : status,
        trailers);
  }

  private void end(Status status) {
    end(status, new Metadata());
  }

  /**
   * Ends all requests that have no result. If the error is final, it is about the stream or about
   * one request in it: each request goes alone, and gets the result of its own.
   */
  private void end(Status status, Metadata trailers) {
    PassbookException end = PassbookException.of(status, trailers, "");
    parent.ended(this, end);
    List<Pending> left;
    boolean isUnapplied;
    synchronized (this) {
      hasEnd = true;
      left = new ArrayList<>(pending.values());
      pending.clear();
      queue.clear();
      // A server that denies a stream before its first answer has not looked at a request.
      isUnapplied = end.outcome() == Outcome.NOT_APPLIED || end.isDenied() && !hasAnswered;
    }
    for (Pending request : left) {
      if (end.isFinal()) {
        request.sendAlone(request.isSent() && !isUnapplied);
      } else {
        request.fail(PassbookException.of(status, trailers, request.requestId()));
      }
    }
  }

  /** One task at a time sends. Requests that come while it works wait for its next message. */
  private void beginSending() {
    boolean isBusy;
    synchronized (this) {
      if (isSending || queue.isEmpty()) {
        return;
      }
      isSending = true;
      isBusy = sent > 0;
    }
    if (isBusy && !timer.isShutdown()) {
      timer.schedule(() -> executor.execute(this::send), GATHER_TIME, TimeUnit.NANOSECONDS);
    } else {
      executor.execute(this::send);
    }
  }

  private void send() {
    for (StreamTransactionsRequest message = take(); message != null; message = take()) {
      synchronized (call) {
        call.sendMessage(message);
      }
    }
  }

  /**
   * The next message of the requests that wait. Null: there are none, or gRPC has enough to send
   * for now.
   */
  private StreamTransactionsRequest take() {
    List<Pending> taken = new ArrayList<>();
    synchronized (this) {
      int bytes = 0;
      while (call.isReady()
          && !queue.isEmpty()
          && taken.size() < MESSAGE_REQUESTS_MAX
          && bytes <= MESSAGE_BYTES_MAX) {
        Pending request = queue.remove();
        // Otherwise its caller has left.
        if (pending.get(request.requestId()) == request) {
          request.setSent();
          sent++;
          taken.add(request);
          bytes += request.bytes();
        }
      }
      if (taken.isEmpty()) {
        isSending = false;
        return null;
      }
    }
    StreamTransactionsRequest.Builder message =
        StreamTransactionsRequest.newBuilder().setResultOrder(order);
    order = ResultOrder.RESULT_ORDER_UNSPECIFIED;
    for (Pending request : taken) {
      message.addRequests(request.element());
    }
    return message.build();
  }
}
