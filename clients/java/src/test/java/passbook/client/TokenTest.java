package passbook.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static passbook.client.FakeServer.failure;

import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.util.List;
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
}
