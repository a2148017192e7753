package passbook.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static passbook.client.FakeServer.failure;

import com.google.common.util.concurrent.ListenableFuture;
import com.google.protobuf.Duration;
import com.google.rpc.RetryInfo;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.math.BigDecimal;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;
import passbook.v1.DepositRequest;
import passbook.v1.DepositResponse;
import passbook.v1.ErrorReason;
import passbook.v1.FreezeAccountRequest;
import passbook.v1.Money;

@Timeout(30)
class ClientTest {
  private static final DepositRequest DEPOSIT =
      DepositRequest.newBuilder().setAccountId("joint").build();

  private static PassbookClient connect(FakeServer server, boolean isUnary) {
    PassbookClient.Builder builder = PassbookClient.builder(server.address());
    return isUnary ? builder.unary().build() : builder.build();
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void allAttemptsHaveOneId(boolean isUnary) throws IOException {
    FakeServer.Behavior fails =
        (attempt, request) -> {
          if (attempt < 3) {
            throw failure(Code.UNAVAILABLE, "DATABASE_UNAVAILABLE", "unknown");
          }
        };
    try (FakeServer server = new FakeServer(fails);
        PassbookClient client = connect(server, isUnary)) {
      String id = client.blocking().deposit(DEPOSIT).getTransaction().getRequestId();
      assertFalse(id.isEmpty());
      assertEquals(
          List.of(id, id, id), server.deposits.stream().map(DepositRequest::getRequestId).toList());
      assertEquals(isUnary ? 0 : 1, server.streams.get());
      String other = client.blocking().deposit(DEPOSIT).getTransaction().getRequestId();
      assertNotEquals(id, other);
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void aResultIsNotRepeated(boolean isUnary) throws IOException {
    FakeServer.Behavior rejects =
        (attempt, request) -> {
          throw failure(Code.FAILED_PRECONDITION, "ACCOUNT_CLOSED", "");
        };
    try (FakeServer server = new FakeServer(rejects);
        PassbookClient client = connect(server, isUnary)) {
      DepositRequest request = DEPOSIT.toBuilder().setRequestId("one").build();
      var thrown =
          assertThrows(StatusRuntimeException.class, () -> client.blocking().deposit(request));
      PassbookException error = PassbookException.of(thrown);
      assertEquals(Code.FAILED_PRECONDITION, error.code());
      assertEquals(ErrorReason.ERROR_REASON_ACCOUNT_CLOSED, error.reason());
      assertEquals(Outcome.NONE, error.outcome());
      assertEquals("one", error.requestId());
      assertEquals(1, server.deposits.size());
    }
  }

  record Attempts(RuntimeException first, RuntimeException last, Outcome outcome) {}

  static Stream<Attempts> attempts() {
    Duration hour = Duration.newBuilder().setSeconds(3600).build();
    RetryInfo tooLate = RetryInfo.newBuilder().setRetryDelay(hour).build();
    var unapplied = failure(Code.ABORTED, "LOCK_TIMEOUT", "not_applied", tooLate);
    var unknown = failure(Code.UNAVAILABLE, "DATABASE_UNAVAILABLE", "unknown");
    var lost = Code.UNAVAILABLE.toStatus().asRuntimeException();
    var invalid = failure(Code.INVALID_ARGUMENT, "INVALID_CURRENCY_CODE", "");
    return Stream.of(
        new Attempts(null, unapplied, Outcome.NOT_APPLIED),
        new Attempts(
            null,
            failure(Code.UNAVAILABLE, "DATABASE_UNAVAILABLE", "unknown", tooLate),
            Outcome.UNKNOWN),
        new Attempts(unknown, unapplied, Outcome.UNKNOWN),
        new Attempts(lost, failure(Code.UNAUTHENTICATED, "UNAUTHENTICATED", ""), Outcome.UNKNOWN),
        new Attempts(lost, failure(Code.NOT_FOUND, "ACCOUNT_NOT_FOUND", ""), Outcome.NONE),
        // What is invalid to one server may have been applied by another one, with other settings.
        new Attempts(null, invalid, Outcome.NONE),
        new Attempts(failure(Code.ABORTED, "LOCK_TIMEOUT", "not_applied"), invalid, Outcome.NONE),
        new Attempts(lost, invalid, Outcome.UNKNOWN),
        new Attempts(lost, failure(Code.INVALID_ARGUMENT, "REQUEST_ID_REUSED", ""), Outcome.NONE),
        // An amount can be beyond the limit by itself, or a balance.
        new Attempts(null, tooMuch(Map.of("field", "amount")), Outcome.NONE),
        new Attempts(lost, tooMuch(Map.of("field", "amount")), Outcome.UNKNOWN),
        new Attempts(lost, tooMuch(Map.of("balance", "1.00")), Outcome.NONE),
        // The outcome is that of the last attempt. The error does not say that the server has
        // looked.
        new Attempts(
            lost, tooMuch(Map.of("field", "amount", "outcome", "not_applied")), Outcome.UNKNOWN),
        // Without ErrorInfo, as from a proxy.
        new Attempts(lost, Code.UNAUTHENTICATED.toStatus().asRuntimeException(), Outcome.UNKNOWN));
  }

  private static StatusRuntimeException tooMuch(Map<String, String> metadata) {
    return failure(Code.OUT_OF_RANGE, "BALANCE_OUT_OF_RANGE", metadata);
  }

  /**
   * An attempt with an unknown outcome makes that of the call unknown, whatever the last attempt
   * says.
   */
  @ParameterizedTest
  @MethodSource("attempts")
  void theOutcomeIsThatOfAllAttempts(Attempts attempts) throws IOException {
    FakeServer.Behavior fails =
        (attempt, request) -> {
          throw attempt == 1 && attempts.first != null ? attempts.first : attempts.last;
        };
    for (boolean isUnary : new boolean[] {false, true}) {
      try (FakeServer server = new FakeServer(fails);
          PassbookClient client = connect(server, isUnary)) {
        var thrown =
            assertThrows(StatusRuntimeException.class, () -> client.blocking().deposit(DEPOSIT));
        PassbookException error = PassbookException.of(thrown);
        assertEquals(attempts.outcome, error.outcome(), error.toString());
        assertFalse(error.requestId().isEmpty());
        assertEquals(attempts.outcome, PassbookException.of(error.status(), "").outcome());
      }
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void theDeadlineAndTheCancellationAreThoseOfEachCall(boolean isUnary) throws Exception {
    CountDownLatch release = new CountDownLatch(1);
    FakeServer.Behavior waits =
        (attempt, request) -> {
          if (!request.getRequestId().equals("quick")) {
            awaitQuietly(release);
          }
        };
    try (FakeServer server = new FakeServer(waits);
        PassbookClient client = connect(server, isUnary)) {
      ListenableFuture<DepositResponse> canceled = client.future().deposit(DEPOSIT);
      var late = client.blocking().withDeadlineAfter(50, TimeUnit.MILLISECONDS);
      var thrown = assertThrows(StatusRuntimeException.class, () -> late.deposit(DEPOSIT));
      assertEquals(Code.DEADLINE_EXCEEDED, PassbookException.of(thrown).code());
      assertEquals(Outcome.UNKNOWN, PassbookException.of(thrown).outcome());
      client.blocking().deposit(DEPOSIT.toBuilder().setRequestId("quick").build());
      assertTrue(canceled.cancel(true));
      release.countDown();
    }
  }

  private static void awaitQuietly(CountDownLatch latch) {
    try {
      latch.await();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  @Test
  void concurrentCallsShareAStream() throws Exception {
    try (FakeServer server = new FakeServer((attempt, request) -> {});
        PassbookClient client = connect(server, false)) {
      List<ListenableFuture<DepositResponse>> calls = new ArrayList<>();
      for (int i = 0; i < 300; i++) {
        calls.add(client.future().deposit(DEPOSIT.toBuilder().setRequestId("id-" + i).build()));
      }
      for (int i = 0; i < calls.size(); i++) {
        assertEquals("id-" + i, calls.get(i).get().getTransaction().getRequestId());
      }
      assertEquals(1, server.streams.get());
    }
  }

  @Test
  void aServerWithoutTheStreamGetsCalls() throws IOException {
    try (FakeServer server = new FakeServer((attempt, request) -> {});
        PassbookClient client = connect(server, false)) {
      server.hasNoStream = true;
      client.blocking().deposit(DEPOSIT);
      client.blocking().deposit(DEPOSIT);
      assertEquals(1, server.streams.get());
      assertEquals(2, server.deposits.size());
    }
  }

  @Test
  void aChangeWithoutAnIdIsNotRepeatedAfterUnknown() throws IOException {
    try (FakeServer server = new FakeServer((attempt, request) -> {});
        PassbookClient client = connect(server, false)) {
      var request = FreezeAccountRequest.newBuilder().setAccountId("joint").build();
      var thrown =
          assertThrows(
              StatusRuntimeException.class, () -> client.blocking().freezeAccount(request));
      assertEquals(Outcome.UNKNOWN, PassbookException.of(thrown).outcome());
      assertEquals(1, server.freezes.get());
    }
  }

  /** The kernel accepts connections to the other server, which never says a word. */
  @Test
  void callsGoToTheServersToWhichThereIsAConnection() throws IOException {
    try (ServerSocket hung = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
        FakeServer server = new FakeServer((attempt, request) -> {});
        PassbookClient client =
            PassbookClient.builder(server.address(), "127.0.0.1:" + hung.getLocalPort())
                .timeout(java.time.Duration.ofSeconds(1))
                .unary()
                .build()) {
      for (int i = 0; i < 6; i++) {
        client.blocking().deposit(DEPOSIT);
      }
      // It was tried, so that it has calls as soon as it answers.
      hung.setSoTimeout(5000);
      hung.accept().close();
    }
  }

  @Test
  void aWatchResumesWhereItWasCut() throws IOException {
    try (FakeServer server = new FakeServer((attempt, request) -> {});
        PassbookClient client = connect(server, false);
        EntryWatch watch = client.watch("joint", 0)) {
      for (long sequence = 1; sequence <= 3; sequence++) {
        assertEquals(sequence, watch.next().getSequence());
      }
      assertEquals(List.of(0L, 2L), server.watches);
    }
  }

  @Test
  void amountsKeepEveryDecimal() {
    for (String text : List.of("12345678901234567890123.45", "-0.01", "100", "0.1")) {
      Money money = Amounts.money(new BigDecimal(text), "USD");
      assertEquals(text, money.getValue());
      assertEquals(new BigDecimal(text), Amounts.amount(money));
    }
    assertEquals("100", Amounts.money(new BigDecimal("100.000"), "USD").getValue());
    assertEquals("-0.5", Amounts.money(new BigDecimal("-0.50"), "USD").getValue());
    assertEquals("0", Amounts.money(new BigDecimal("0.00"), "USD").getValue());
    assertEquals("10000", Amounts.money(new BigDecimal("1e4"), "USD").getValue());
    assertThrows(NumberFormatException.class, () -> Amounts.amount(Money.getDefaultInstance()));
  }

  @Test
  void aTokenNeedsTlsOnTheWayToAnotherMachine() {
    PassbookClient.Builder remote = PassbookClient.builder("203.0.113.1:50051").token("secret");
    var error = assertThrows(IllegalStateException.class, remote::build);
    assertFalse(error.getMessage().contains("secret"));
    PassbookClient.builder("[::1]:50051", "localhost:50051", "127.0.0.1:50051")
        .token("secret")
        .build()
        .close();
  }

  @Test
  void theVersionIsThatOfTheServer() throws IOException {
    String line = "version = \"" + PassbookClient.VERSION + "\"";
    assertTrue(Files.readAllLines(Path.of("../../Cargo.toml")).contains(line), line);
    String tag = "<version>" + PassbookClient.VERSION + "</version>";
    assertTrue(
        Files.readString(Path.of("pom.xml")).contains("passbook-client</artifactId>\n  " + tag),
        tag);
  }
}
