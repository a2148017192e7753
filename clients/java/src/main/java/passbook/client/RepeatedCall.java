package passbook.client;

import com.google.protobuf.Message;
import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** A unary call as gRPC's stubs see it: a {@link RepeatedRequest} behind it does the work. */
final class RepeatedCall extends ClientCall<Message, Message> {
  private final Calls calls;
  private final MethodDescriptor<Message, Message> method;
  private final CallOptions options;
  private final Context context = Context.current();
  private final Context.CancellationListener onContextEnd = this::contextEnded;

  private Listener<Message> listener;
  private Metadata headers;
  private Message request;
  private volatile RepeatedRequest attempts;

  RepeatedCall(Calls calls, MethodDescriptor<Message, Message> method, CallOptions options) {
    this.calls = calls;
    this.method = method;
    this.options = options;
  }

  @Override
  public void start(Listener<Message> responseListener, Metadata callHeaders) {
    listener = responseListener;
    headers = callHeaders;
  }

  @Override
  public void request(int count) {
    // There is one response, and the stub always asks for it.
  }

  @Override
  public void sendMessage(Message message) {
    request = Requests.withIds(method, message);
  }

  @Override
  public void halfClose() {
    Deadline deadline = deadline();
    attempts =
        new RepeatedRequest(
            calls,
            method,
            options,
            headers,
            request,
            deadline,
            (response, error) -> done(response, error, deadline));
    context.addListener(onContextEnd, Runnable::run);
    attempts.start();
  }

  @Override
  public void cancel(String message, Throwable cause) {
    if (attempts != null) {
      attempts.cancel(message, cause);
    } else if (listener != null) {
      close(Status.CANCELLED.withDescription(message).withCause(cause), new Metadata());
    }
  }

  private void contextEnded(Context ended) {
    // The deadline of the context is one of the call.
    if (!(ended.cancellationCause() instanceof TimeoutException)) {
      cancel("the context has ended", ended.cancellationCause());
    }
  }

  /** The earliest of the caller's deadlines, or else the client's timeout. */
  private Deadline deadline() {
    Deadline own = options.getDeadline();
    Deadline outer = context.getDeadline();
    if (own == null && outer == null) {
      return Deadline.after(calls.timeout().toNanos(), TimeUnit.NANOSECONDS);
    }
    if (own == null || outer == null) {
      return own == null ? outer : own;
    }
    return own.minimum(outer);
  }

  private void done(Message response, PassbookException error, Deadline deadline) {
    context.removeListener(onContextEnd);
    if (error != null) {
      StatusRuntimeException thrown = StatusProto.toStatusRuntimeException(error.status());
      close(thrown.getStatus().withCause(error), thrown.getTrailers());
    } else {
      new BatchCompletion(calls, options, headers, deadline, attempts.isMaybeApplied())
          .complete(request, response, this::succeed);
    }
  }

  private void succeed(Message response) {
    executor()
        .execute(
            () -> {
              listener.onHeaders(new Metadata());
              listener.onMessage(response);
              listener.onClose(Status.OK, new Metadata());
            });
  }

  private void close(Status status, Metadata trailers) {
    executor().execute(() -> listener.onClose(status, trailers));
  }

  private Executor executor() {
    return options.getExecutor() == null ? calls.executor() : options.getExecutor();
  }
}
