package passbook.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static passbook.client.FakeServer.failure;

import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import passbook.v1.DepositRequest;
import passbook.v1.Entry;
import passbook.v1.GetAccountRequest;
import passbook.v1.WatchEntriesResponse;

/** What is under way when a client is closed. */
@Timeout(30)
class CloseTest {
  private static final DepositRequest PAY = DepositRequest.newBuilder().setRequestId("pay").build();

  private static PassbookClient connect(FakeServer server, boolean isUnary) {
    PassbookClient.Builder builder = PassbookClient.builder(server.address());
    return isUnary ? builder.unary().build() : builder.build();
  }

  @ParameterizedTest
  @CsvSource({"true, UNKNOWN", "true, NOT_APPLIED", "false, UNKNOWN", "false, NOT_APPLIED"})
  void aChangeBetweenTwoAttemptsEndsWithItsOutcome(boolean isUnary, Outcome outcome)
      throws Exception {
    CountDownLatch attempts = new CountDownLatch(3);
    FakeServer.Behavior fails =
        (attempt, request) -> {
          attempts.countDown();
          throw failure(Code.ABORTED, "CONTENTION", outcome.toString());
        };
    try (FakeServer server = new FakeServer(fails)) {
      PassbookClient client = connect(server, isUnary);
      var call = client.future().withDeadlineAfter(20, TimeUnit.SECONDS).deposit(PAY);
      assertTrue(attempts.await(10, TimeUnit.SECONDS));
      client.close();
      var thrown = assertThrows(ExecutionException.class, () -> call.get(5, TimeUnit.SECONDS));
      PassbookException error = PassbookException.of(thrown);
      assertEquals(Code.CANCELLED, error.code());
      assertEquals("pay", error.requestId());
      // An attempt that is under way at that moment is in doubt.
      assertTrue(error.outcome() == outcome || error.outcome() == Outcome.UNKNOWN);
      int before = server.deposits.size();
      LockSupport.parkNanos(300_000_000);
      assertEquals(before, server.deposits.size());
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {true, false})
  void anAttemptThatIsUnderWayIsInDoubt(boolean isUnary) throws Exception {
    CountDownLatch isThere = new CountDownLatch(1);
    FakeServer.Behavior waits =
        (attempt, request) -> {
          isThere.countDown();
          LockSupport.parkNanos(1_000_000_000);
        };
    try (FakeServer server = new FakeServer(waits)) {
      PassbookClient client = connect(server, isUnary);
      var call = client.future().deposit(PAY);
      assertTrue(isThere.await(10, TimeUnit.SECONDS));
      client.close();
      var thrown = assertThrows(ExecutionException.class, () -> call.get(5, TimeUnit.SECONDS));
      PassbookException error = PassbookException.of(thrown);
      assertEquals(Code.CANCELLED, error.code());
      assertEquals(Outcome.UNKNOWN, error.outcome());
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {true, false})
  void aClosedClientSendsNothing(boolean isUnary) throws Exception {
    try (FakeServer server = new FakeServer((attempt, request) -> {})) {
      PassbookClient client = connect(server, isUnary);
      client.close();
      var stub = client.blocking();
      var error =
          PassbookException.of(assertThrows(StatusRuntimeException.class, () -> stub.deposit(PAY)));
      assertEquals(Code.CANCELLED, error.code());
      assertEquals(Outcome.NOT_APPLIED, error.outcome());
      var read = GetAccountRequest.getDefaultInstance();
      error =
          PassbookException.of(
              assertThrows(StatusRuntimeException.class, () -> stub.getAccount(read)));
      assertEquals(Code.CANCELLED, error.code());
      assertEquals(Outcome.NONE, error.outcome());
      assertEquals(0, server.deposits.size());
    }
  }

  @Test
  @Timeout(value = 20, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
  void aWatchEnds() throws Exception {
    try (FakeServer server = new FakeServer((attempt, request) -> {})) {
      PassbookClient client = connect(server, false);
      server.watch =
          (number, observer) ->
              observer.onNext(
                  WatchEntriesResponse.newBuilder().addEntries(Entry.newBuilder()).build());
      EntryWatch watch = client.watch("joint", 0);
      watch.next();
      Thread closing =
          new Thread(
              () -> {
                LockSupport.parkNanos(200_000_000);
                client.close();
              });
      closing.start();
      PassbookException error = assertThrows(PassbookException.class, watch::next);
      assertEquals(Code.CANCELLED, error.code());
      error = assertThrows(PassbookException.class, () -> client.watch("joint", 0).next());
      assertEquals(Code.CANCELLED, error.code());
    }
  }
}
