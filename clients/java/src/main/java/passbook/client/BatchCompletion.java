package passbook.client;

import com.google.protobuf.Message;
import com.google.rpc.Status;
import io.grpc.CallOptions;
import io.grpc.Deadline;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import java.util.function.Function;
import passbook.v1.AccountServiceGrpc;
import passbook.v1.BatchCreateAccountsRequest;
import passbook.v1.BatchCreateAccountsResponse;
import passbook.v1.BatchPostTransactionsRequest;
import passbook.v1.BatchPostTransactionsResponse;
import passbook.v1.CreateAccountResponse;
import passbook.v1.CreateAccountResult;
import passbook.v1.PostTransactionResponse;
import passbook.v1.PostTransactionResult;

/**
 * Repeats the requests of a batch that have no result, each by a call of its own. If an attempt of
 * the batch is in doubt, so is each of its requests.
 */
final class BatchCompletion {
  /** How many requests of a batch are repeated at the same time. */
  private static final int REPEATS_MAX = 64;

  private final Calls calls;
  private final CallOptions options;
  private final Metadata headers;
  private final Deadline deadline;
  private final boolean isInDoubt;

  BatchCompletion(
      Calls calls, CallOptions options, Metadata headers, Deadline deadline, boolean isInDoubt) {
    this.calls = calls;
    this.options = options;
    this.headers = headers;
    this.deadline = deadline;
    this.isInDoubt = isInDoubt;
  }

  /** Hands out the response with all results. The response to any other request is complete. */
  void complete(Message request, Message response, Consumer<Message> whenDone) {
    if (request instanceof BatchPostTransactionsRequest batch) {
      var results = ((BatchPostTransactionsResponse) response).getResultsList();
      completeAll(
          AccountServiceGrpc.getPostTransactionMethod(),
          batch.getRequestsList(),
          results,
          result -> result.hasError() ? result.getError() : null,
          BatchCompletion::posted,
          error -> PostTransactionResult.newBuilder().setError(error).build(),
          complete ->
              whenDone.accept(
                  BatchPostTransactionsResponse.newBuilder().addAllResults(complete).build()));
    } else if (request instanceof BatchCreateAccountsRequest batch) {
      var results = ((BatchCreateAccountsResponse) response).getResultsList();
      completeAll(
          AccountServiceGrpc.getCreateAccountMethod(),
          batch.getRequestsList(),
          results,
          result -> result.hasError() ? result.getError() : null,
          BatchCompletion::opened,
          error -> CreateAccountResult.newBuilder().setError(error).build(),
          complete ->
              whenDone.accept(
                  BatchCreateAccountsResponse.newBuilder().addAllResults(complete).build()));
    } else {
      whenDone.accept(response);
    }
  }

  private static PostTransactionResult posted(Message response) {
    var posted = (PostTransactionResponse) response;
    return PostTransactionResult.newBuilder()
        .setTransaction(posted.getTransaction())
        .setReplayed(posted.getReplayed())
        .build();
  }

  private static CreateAccountResult opened(Message response) {
    var opened = (CreateAccountResponse) response;
    return CreateAccountResult.newBuilder().setAccount(opened.getAccount()).build();
  }

  private <R> void completeAll(
      MethodDescriptor<?, ?> method,
      List<? extends Message> requests,
      List<R> results,
      Function<R, Status> errorOf,
      Function<Message, R> ofResponse,
      Function<Status, R> ofError,
      Consumer<List<R>> whenDone) {
    List<R> complete = new ArrayList<>(results);
    Queue<Consumer<Runnable>> repeats = new ConcurrentLinkedQueue<>();
    for (int i = 0; i < results.size(); i++) {
      int index = i;
      Status first = errorOf.apply(results.get(i));
      if (first != null) {
        repeats.add(
            oneDone ->
                repeat(
                    method,
                    requests.get(index),
                    first,
                    (response, error) -> {
                      complete.set(
                          index,
                          error == null
                              ? ofResponse.apply(response)
                              : ofError.apply(error.status()));
                      oneDone.run();
                    }));
      }
    }
    AtomicInteger left = new AtomicInteger(REPEATS_MAX);
    for (int i = 0; i < REPEATS_MAX; i++) {
      work(
          repeats,
          () -> {
            if (left.decrementAndGet() == 0) {
              whenDone.accept(complete);
            }
          });
    }
  }

  /** Makes one repeat after another, until there are none left. */
  private void work(Queue<Consumer<Runnable>> repeats, Runnable whenDone) {
    Consumer<Runnable> next = repeats.poll();
    if (next == null) {
      whenDone.run();
    } else {
      next.accept(() -> calls.executor().execute(() -> work(repeats, whenDone)));
    }
  }

  @SuppressWarnings("unchecked")
  private void repeat(
      MethodDescriptor<?, ?> method,
      Message request,
      Status first,
      RepeatedRequest.Callback whenDone) {
    RepeatedRequest repeated =
        new RepeatedRequest(
            calls,
            (MethodDescriptor<Message, Message>) method,
            options,
            headers,
            request,
            deadline,
            whenDone);
    repeated.startAfter(PassbookException.of(first, Requests.requestId(request)), isInDoubt);
  }
}
