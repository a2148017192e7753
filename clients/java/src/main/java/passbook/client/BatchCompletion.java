package passbook.client;

import com.google.protobuf.Message;
import io.grpc.CallOptions;
import io.grpc.Deadline;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import java.util.Arrays;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import passbook.v1.AccountServiceGrpc;
import passbook.v1.BatchPostTransactionsRequest;
import passbook.v1.BatchPostTransactionsResponse;
import passbook.v1.PostTransactionRequest;
import passbook.v1.PostTransactionResponse;
import passbook.v1.PostTransactionResult;

/** Repeats the requests of a batch that have no result, each by a call of its own. */
final class BatchCompletion {
  private final Calls calls;
  private final CallOptions options;
  private final Metadata headers;
  private final Deadline deadline;

  BatchCompletion(Calls calls, CallOptions options, Metadata headers, Deadline deadline) {
    this.calls = calls;
    this.options = options;
    this.headers = headers;
    this.deadline = deadline;
  }

  void complete(
      BatchPostTransactionsRequest batch,
      BatchPostTransactionsResponse response,
      Consumer<Message> whenDone) {
    PostTransactionResult[] results =
        response.getResultsList().toArray(new PostTransactionResult[0]);
    // One more than the requests under way, so that none of them is the last before all have begun.
    AtomicInteger left = new AtomicInteger(1);
    Runnable oneDone =
        () -> {
          if (left.decrementAndGet() == 0) {
            whenDone.accept(
                response.toBuilder().clearResults().addAllResults(Arrays.asList(results)).build());
          }
        };
    for (int i = 0; i < results.length; i++) {
      if (results[i].hasError()) {
        int index = i;
        left.incrementAndGet();
        repeat(
            batch.getRequests(i),
            results[i],
            result -> {
              results[index] = result;
              oneDone.run();
            });
      }
    }
    oneDone.run();
  }

  @SuppressWarnings("unchecked")
  private void repeat(
      PostTransactionRequest request,
      PostTransactionResult first,
      Consumer<PostTransactionResult> whenDone) {
    MethodDescriptor<?, ?> method = AccountServiceGrpc.getPostTransactionMethod();
    RepeatedRequest repeated =
        new RepeatedRequest(
            calls,
            (MethodDescriptor<Message, Message>) method,
            options,
            headers,
            request,
            deadline,
            (response, error) -> {
              PostTransactionResult.Builder result = PostTransactionResult.newBuilder();
              if (error != null) {
                result.setError(error.status());
              } else {
                var posted = (PostTransactionResponse) response;
                result.setTransaction(posted.getTransaction()).setReplayed(posted.getReplayed());
              }
              whenDone.accept(result.build());
            });
    repeated.startAfter(PassbookException.of(first.getError(), request.getRequestId()));
  }
}
