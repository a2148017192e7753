package passbook.client;

import com.google.protobuf.Any;
import com.google.protobuf.Message;
import com.google.rpc.ErrorInfo;
import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import java.util.function.IntFunction;
import passbook.v1.AccountServiceGrpc;
import passbook.v1.BatchCreateAccountsRequest;
import passbook.v1.BatchCreateAccountsResponse;
import passbook.v1.BatchPostTransactionsRequest;
import passbook.v1.BatchPostTransactionsResponse;
import passbook.v1.CreateAccountRequest;
import passbook.v1.CreateAccountResponse;
import passbook.v1.DepositRequest;
import passbook.v1.DepositResponse;
import passbook.v1.Entry;
import passbook.v1.FreezeAccountRequest;
import passbook.v1.FreezeAccountResponse;
import passbook.v1.PostTransactionRequest;
import passbook.v1.PostTransactionResponse;
import passbook.v1.PostTransactionResult;
import passbook.v1.StreamTransactionsRequest;
import passbook.v1.StreamTransactionsResponse;
import passbook.v1.StreamedRequest;
import passbook.v1.StreamedResult;
import passbook.v1.Transaction;
import passbook.v1.WatchEntriesRequest;
import passbook.v1.WatchEntriesResponse;

/**
 * A server that answers deposits with what the test says. It takes them by calls and by streams.
 */
final class FakeServer extends AccountServiceGrpc.AccountServiceImplBase implements AutoCloseable {
  /** Gets the number of the attempt, from 1. Throws an error, or returns for success. */
  interface Behavior {
    void deposit(int attempt, DepositRequest request);
  }

  /** Answers a watch of entries. Gets the number of the stream, from 1. */
  interface WatchBehavior {
    void watch(int number, StreamObserver<WatchEntriesResponse> observer);
  }

  final List<DepositRequest> deposits = new CopyOnWriteArrayList<>();
  final List<String> streamed = new CopyOnWriteArrayList<>();
  final List<String> openings = new CopyOnWriteArrayList<>();
  final List<Long> watches = new CopyOnWriteArrayList<>();
  // The header of each call.
  final List<String> tokens = new CopyOnWriteArrayList<>();
  final AtomicInteger streams = new AtomicInteger();
  final AtomicInteger freezes = new AtomicInteger();

  /** Whether it is a server that does not know {@code requests}. */
  volatile boolean hasNoStream;

  /** With what the stream ends after it has applied this deposit. Null: it goes on. */
  volatile Function<DepositRequest, StatusRuntimeException> cut = request -> null;

  /** With what a posting fails that is no part of a batch. Null: it succeeds. */
  volatile StatusRuntimeException postError;

  /** What happens before the answer to such a posting. */
  volatile Runnable onPost = () -> {};

  /** The response to a batch of postings, or its error. Gets the number of the attempt, from 1. */
  volatile IntFunction<BatchPostTransactionsResponse> postBatch;

  /** With what an opening fails that is no part of a batch. */
  volatile StatusRuntimeException openError;

  /** With what a batch of openings fails. Null: each opening fails for a reason that passes. */
  volatile StatusRuntimeException openBatchError;

  volatile WatchBehavior watch;

  private final AtomicInteger attempts = new AtomicInteger();
  private final AtomicInteger batches = new AtomicInteger();
  private final Behavior behavior;
  private final Server server;

  FakeServer(Behavior behavior) throws IOException {
    this.behavior = behavior;
    server =
        Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
            .addService(this)
            .intercept(new TokenInterceptor())
            .build()
            .start();
  }

  String address() {
    return "127.0.0.1:" + server.getPort();
  }

  /** An error as a server makes it. */
  static StatusRuntimeException failure(
      Status.Code code, String reason, String outcome, Message... details) {
    return failure(
        code, reason, outcome.isEmpty() ? Map.of() : Map.of("outcome", outcome), details);
  }

  static StatusRuntimeException failure(
      Status.Code code, String reason, Map<String, String> metadata, Message... details) {
    ErrorInfo.Builder info = ErrorInfo.newBuilder().setDomain("passbook").setReason(reason);
    info.putAllMetadata(metadata);
    var status = com.google.rpc.Status.newBuilder().setCode(code.value()).setMessage("a test");
    status.addDetails(Any.pack(info.build()));
    for (Message detail : details) {
      status.addDetails(Any.pack(detail));
    }
    return StatusProto.toStatusRuntimeException(status.build());
  }

  @Override
  public void close() {
    server.shutdownNow();
  }

  @Override
  public void deposit(DepositRequest request, StreamObserver<DepositResponse> observer) {
    try {
      observer.onNext(DepositResponse.newBuilder().setTransaction(apply(request)).build());
      observer.onCompleted();
    } catch (StatusRuntimeException e) {
      observer.onError(e);
    }
  }

  @Override
  public StreamObserver<StreamTransactionsRequest> streamTransactions(
      StreamObserver<StreamTransactionsResponse> observer) {
    streams.incrementAndGet();
    // Without a handler, a result for a caller who has left is an error.
    ((ServerCallStreamObserver<?>) observer).setOnCancelHandler(() -> {});
    return new StreamObserver<>() {
      @Override
      public void onNext(StreamTransactionsRequest message) {
        if (hasNoStream) {
          var result = PostTransactionResult.getDefaultInstance();
          observer.onNext(StreamTransactionsResponse.newBuilder().setResult(result).build());
          return;
        }
        for (StreamedRequest element : message.getRequestsList()) {
          streamed.add(element.getDeposit().getRequestId());
          StatusRuntimeException end = cut.apply(element.getDeposit());
          if (end != null) {
            apply(element.getDeposit());
            observer.onError(end);
            return;
          }
          new Thread(() -> answer(element.getDeposit(), observer)).start();
        }
      }

      @Override
      public void onError(Throwable error) {}

      @Override
      public void onCompleted() {}
    };
  }

  private void answer(DepositRequest request, StreamObserver<StreamTransactionsResponse> observer) {
    // As a server does.
    String id = request.getRequestId().length() > 64 ? "" : request.getRequestId();
    StreamedResult.Builder result = StreamedResult.newBuilder().setRequestId(id);
    try {
      result.setTransaction(apply(request));
    } catch (StatusRuntimeException e) {
      result.setError(StatusProto.fromThrowable(e));
    }
    synchronized (observer) {
      observer.onNext(StreamTransactionsResponse.newBuilder().addResults(result).build());
    }
  }

  private Transaction apply(DepositRequest request) {
    deposits.add(request);
    behavior.deposit(attempts.incrementAndGet(), request);
    return Transaction.newBuilder().setRequestId(request.getRequestId()).build();
  }

  @Override
  public void freezeAccount(
      FreezeAccountRequest request, StreamObserver<FreezeAccountResponse> observer) {
    freezes.incrementAndGet();
    observer.onError(failure(Status.Code.UNAVAILABLE, "DATABASE_UNAVAILABLE", "unknown"));
  }

  @Override
  public void postTransaction(
      PostTransactionRequest request, StreamObserver<PostTransactionResponse> observer) {
    onPost.run();
    if (postError != null) {
      observer.onError(postError);
      return;
    }
    observer.onNext(PostTransactionResponse.getDefaultInstance());
    observer.onCompleted();
  }

  @Override
  public void batchPostTransactions(
      BatchPostTransactionsRequest request,
      StreamObserver<BatchPostTransactionsResponse> observer) {
    try {
      observer.onNext(postBatch.apply(batches.incrementAndGet()));
      observer.onCompleted();
    } catch (StatusRuntimeException e) {
      observer.onError(e);
    }
  }

  @Override
  public void createAccount(
      CreateAccountRequest request, StreamObserver<CreateAccountResponse> observer) {
    openings.add(request.getAccountId());
    observer.onError(openError);
  }

  @Override
  public void batchCreateAccounts(
      BatchCreateAccountsRequest request, StreamObserver<BatchCreateAccountsResponse> observer) {
    if (openBatchError != null) {
      observer.onError(openBatchError);
      return;
    }
    var error =
        StatusProto.fromThrowable(failure(Status.Code.ABORTED, "LOCK_TIMEOUT", "not_applied"));
    var response = BatchCreateAccountsResponse.newBuilder();
    request.getRequestsList().forEach(one -> response.addResultsBuilder().setError(error));
    observer.onNext(response.build());
    observer.onCompleted();
  }

  /** Sends two entries and breaks off, unless the test says otherwise. */
  @Override
  public void watchEntries(
      WatchEntriesRequest request, StreamObserver<WatchEntriesResponse> observer) {
    long after = request.getAfterSequence();
    watches.add(after);
    if (watch != null) {
      watch.watch(watches.size(), observer);
      return;
    }
    var message = WatchEntriesResponse.newBuilder();
    message.addEntries(Entry.newBuilder().setSequence(after + 1));
    message.addEntries(Entry.newBuilder().setSequence(after + 2));
    observer.onNext(message.build());
    observer.onError(failure(Status.Code.UNAVAILABLE, "SHUTTING_DOWN", ""));
  }

  /** Keeps the token of each call. */
  private final class TokenInterceptor implements ServerInterceptor {
    private static final Metadata.Key<String> AUTHORIZATION =
        Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

    @Override
    public <Q, R> ServerCall.Listener<Q> interceptCall(
        ServerCall<Q, R> call, Metadata headers, ServerCallHandler<Q, R> next) {
      if (headers.containsKey(AUTHORIZATION)) {
        tokens.add(headers.get(AUTHORIZATION));
      }
      return next.startCall(call, headers);
    }
  }
}
