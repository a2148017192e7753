package passbook.client;

import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static passbook.client.FakeServer.failure;

import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.time.Duration;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Supplier;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import passbook.v1.DepositRequest;
import passbook.v1.Entry;
import passbook.v1.WatchEntriesResponse;

/** Tokens that expire, and tokens that there are not. */
@Timeout(30)
class TokenTest {
  private static final StatusRuntimeException EXPIRED =
      failure(Code.UNAUTHENTICATED, "UNAUTHENTICATED", "");

  private static Supplier<String> numbered() {
    AtomicInteger count = new AtomicInteger();
    return () -> String.valueOf(count.incrementAndGet());
  }

  /** The token of each stream expires after one entry. That of the third has expired before. */
  @Test
  void aWatchSurvivesItsToken() throws IOException {
    try (FakeServer server = new FakeServer((attempt, request) -> {});
        PassbookClient client = PassbookClient.builder(server.address()).token(numbered()).build();
        EntryWatch watch = client.watch("joint", 0)) {
      server.watch =
          (number, observer) -> {
            if (number < 3) {
              var entry = Entry.newBuilder().setSequence(number);
              observer.onNext(WatchEntriesResponse.newBuilder().addEntries(entry).build());
            }
            observer.onError(EXPIRED);
          };
      assertEquals(1, watch.next().getSequence());
      assertEquals(2, watch.next().getSequence());
      var error = assertThrows(PassbookException.class, watch::next);
      assertEquals(Code.UNAUTHENTICATED, error.code());
      assertEquals(List.of("Bearer 1", "Bearer 2", "Bearer 3"), server.tokens);
    }
  }

  /** The token of the first stream expires under a request. */
  @Test
  void aSharedStreamSurvivesItsToken() throws IOException {
    try (FakeServer server = new FakeServer((attempt, request) -> {});
        PassbookClient client =
            PassbookClient.builder(server.address()).token(numbered()).build()) {
      server.cut = request -> request.getRequestId().equals("expired") ? EXPIRED : null;
      for (String id : List.of("first", "expired", "last")) {
        client.blocking().deposit(DepositRequest.newBuilder().setRequestId(id).build());
      }
      assertEquals(2, server.streams.get());
      assertEquals(List.of("first", "expired", "last"), server.streamed);
    }
  }

  /** Nothing was sent, so the error says so at once, and the next call asks for a token again. */
  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void aCallWithoutATokenFailsAlone(boolean isUnary) throws IOException {
    for (Throwable reason :
        List.of(
            new IllegalStateException("no token"),
            new LinkageError("no token"),
            // The status of another service is not that of the server.
            Code.UNAVAILABLE.toStatus().asRuntimeException())) {
      AtomicReference<Throwable> failing = new AtomicReference<>(reason);
      Supplier<String> token =
          () -> {
            if (failing.get() instanceof Error error) {
              throw error;
            }
            if (failing.get() instanceof RuntimeException error) {
              throw error;
            }
            return "token";
          };
      try (FakeServer server = new FakeServer((attempt, request) -> {})) {
        var builder = PassbookClient.builder(server.address()).token(token);
        try (PassbookClient client = isUnary ? builder.unary().build() : builder.build()) {
          var request = DepositRequest.getDefaultInstance();
          var thrown =
              assertThrows(StatusRuntimeException.class, () -> client.blocking().deposit(request));
          PassbookException error = PassbookException.of(thrown);
          assertEquals(Code.UNAUTHENTICATED, error.code());
          assertEquals(Outcome.NONE, error.outcome());
          assertTrue(server.deposits.isEmpty());
          failing.set(null);
          client.blocking().deposit(request);
        }
      }
    }
  }

  /** The next call asks again, although the function has not returned from the first ones. */
  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void aCallDoesNotWaitForItsTokenLongerThanItMay(boolean isUnary) throws IOException {
    AtomicBoolean takesLong = new AtomicBoolean(true);
    CountDownLatch mayReturn = new CountDownLatch(1);
    Supplier<String> token =
        () -> {
          if (takesLong.get()) {
            assertDoesNotThrow(() -> mayReturn.await(10, TimeUnit.SECONDS));
          }
          return "token";
        };
    Duration timeout = Duration.ofMillis(400);
    try (FakeServer server = new FakeServer((attempt, request) -> {})) {
      var builder = PassbookClient.builder(server.address()).token(token).timeout(timeout);
      try (PassbookClient client = isUnary ? builder.unary().build() : builder.build();
          EntryWatch watch = client.watch("joint", 0)) {
        long begin = System.nanoTime();
        var request = DepositRequest.getDefaultInstance();
        var shortly = client.blocking().withDeadlineAfter(200, TimeUnit.MILLISECONDS);
        var thrown = assertThrows(StatusRuntimeException.class, () -> shortly.deposit(request));
        PassbookException late = PassbookException.of(thrown);
        assertEquals(Code.DEADLINE_EXCEEDED, late.code());
        assertEquals(Outcome.NOT_APPLIED, late.outcome());
        // This has no deadline.
        var error = assertThrows(PassbookException.class, watch::next);
        assertEquals(Code.UNAUTHENTICATED, error.code());
        takesLong.set(false);
        client.blocking().withDeadlineAfter(10, TimeUnit.SECONDS).deposit(request);
        Duration took = Duration.ofNanos(System.nanoTime() - begin);
        assertTrue(took.toSeconds() < 5, took.toString());
        assertEquals(1, server.deposits.size());
      } finally {
        mayReturn.countDown();
      }
    }
  }

  /** Each call that goes alone ends by itself, also while the others have not begun. */
  @Test
  void allCallsOfAStreamWithoutATokenFail() throws Exception {
    Supplier<String> token =
        () -> {
          throw new IllegalStateException("no token");
        };
    ExecutorService callers = Executors.newFixedThreadPool(16);
    try (FakeServer server = new FakeServer((attempt, request) -> {});
        PassbookClient client = PassbookClient.builder(server.address()).token(token).build()) {
      Callable<Code> call =
          () -> {
            var stub = client.blocking().withDeadlineAfter(5, TimeUnit.SECONDS);
            var request = DepositRequest.getDefaultInstance();
            var thrown = assertThrows(StatusRuntimeException.class, () -> stub.deposit(request));
            return thrown.getStatus().getCode();
          };
      for (Future<Code> code : callers.invokeAll(Collections.nCopies(200, call))) {
        assertEquals(Code.UNAUTHENTICATED, code.get());
      }
    } finally {
      callers.shutdown();
    }
  }
}
