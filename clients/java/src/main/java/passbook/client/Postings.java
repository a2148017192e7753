package passbook.client;

import com.google.protobuf.Message;
import io.grpc.CallOptions;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.Executor;
import passbook.v1.AccountServiceGrpc;
import passbook.v1.PostTransactionRequest;
import passbook.v1.PostTransactionResponse;

/**
 * The results of {@link PassbookClient#postAll}, in the order of the requests. For one thread.
 * {@link #close} ends the sending; requests that are under way may still be applied.
 */
public final class Postings implements Iterator<Posted>, AutoCloseable {
  /** How many requests are taken ahead of the results that were read. */
  private static final int AHEAD_MAX = 1024;

  /** Marks the end of the requests. */
  private static final CompletableFuture<Posted> END = CompletableFuture.completedFuture(null);

  private final Calls calls;
  private final BlockingQueue<CompletableFuture<Posted>> results =
      new ArrayBlockingQueue<>(AHEAD_MAX);
  private volatile Thread sender;
  private volatile boolean isClosed;
  // With what a request has ended that has no result, because no server answers or the client is
  // closed. Then no more are taken.
  private volatile PassbookException end;
  private CompletableFuture<Posted> head;

  Postings(Calls calls, Iterator<PostTransactionRequest> requests, Executor executor) {
    this.calls = calls;
    executor.execute(() -> send(requests));
  }

  /** Waits for the next request or the end of the requests. */
  @Override
  public boolean hasNext() {
    if (head == null) {
      try {
        head = results.take();
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new IllegalStateException("interrupted while waiting for a result", e);
      }
    }
    return head != END;
  }

  /**
   * Waits for the next result.
   *
   * @throws RuntimeException what the iterator of the requests has thrown, or a {@link
   *     PassbookException} if no more requests are taken, because no server has answered for 60
   *     seconds
   */
  @Override
  public Posted next() {
    if (!hasNext()) {
      throw new NoSuchElementException();
    }
    CompletableFuture<Posted> result = head;
    head = null;
    try {
      return result.join();
    } catch (CompletionException e) {
      throw e.getCause() instanceof RuntimeException cause ? cause : e;
    }
  }

  @Override
  public void close() {
    isClosed = true;
    Thread current = sender;
    if (current != null) {
      current.interrupt();
    }
  }

  private void send(Iterator<PostTransactionRequest> requests) {
    sender = Thread.currentThread();
    try {
      while (!isClosed && requests.hasNext()) {
        PassbookException last = end;
        if (last != null) {
          throw last;
        }
        results.put(post(requests.next()));
      }
      results.put(END);
    } catch (InterruptedException e) {
      // Nobody reads results any longer.
    } catch (RuntimeException e) {
      failWith(e);
    } finally {
      sender = null;
      Thread.interrupted();
    }
  }

  private void failWith(RuntimeException error) {
    try {
      results.put(CompletableFuture.failedFuture(error));
      results.put(END);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /** Makes a call without a timeout. */
  @SuppressWarnings("unchecked")
  private CompletableFuture<Posted> post(PostTransactionRequest request) {
    MethodDescriptor<?, ?> method = AccountServiceGrpc.getPostTransactionMethod();
    Message complete = Requests.withIds(method, request);
    CompletableFuture<Posted> result = new CompletableFuture<>();
    RepeatedRequest repeated =
        new RepeatedRequest(
            calls,
            (MethodDescriptor<Message, Message>) method,
            CallOptions.DEFAULT,
            new Metadata(),
            complete,
            null,
            (response, error) -> {
              if (error != null && !error.isFinal()) {
                end = error.ofNoRequest();
              }
              result.complete(
                  new Posted(
                      Requests.requestId(complete), (PostTransactionResponse) response, error));
            });
    repeated.start();
    return result;
  }
}
