package passbook.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static passbook.client.FakeServer.failure;

import com.google.protobuf.Duration;
import com.google.rpc.RetryInfo;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.io.IOException;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;
import passbook.v1.BatchCreateAccountsRequest;
import passbook.v1.BatchPostTransactionsRequest;
import passbook.v1.BatchPostTransactionsResponse;
import passbook.v1.CreateAccountRequest;
import passbook.v1.DepositRequest;
import passbook.v1.GetAccountRequest;
import passbook.v1.PostTransactionRequest;

/** What an error says of a request that an earlier attempt may have applied. */
@Timeout(30)
class DoubtTest {
  private static final StatusRuntimeException LOST =
      Code.UNAVAILABLE.toStatus().asRuntimeException();
  private static final StatusRuntimeException NO_TOKEN =
      Code.UNAUTHENTICATED.toStatus().asRuntimeException();
  private static final StatusRuntimeException SHED =
      failure(Code.RESOURCE_EXHAUSTED, "OVERLOADED", "not_applied");
  private static final StatusRuntimeException DENIED =
      failure(Code.PERMISSION_DENIED, "PERMISSION_DENIED", "");
  private static final RetryInfo TOO_LATE =
      RetryInfo.newBuilder().setRetryDelay(Duration.newBuilder().setSeconds(3600)).build();
  // Ends a call: the next attempt would come after its deadline.
  private static final StatusRuntimeException SHED_FOR_LONG =
      failure(Code.RESOURCE_EXHAUSTED, "OVERLOADED", "not_applied", TOO_LATE);

  private static DepositRequest deposit(String id) {
    return DepositRequest.newBuilder().setRequestId(id).build();
  }

  private static StatusRuntimeException tooMuch(Map<String, String> metadata) {
    return failure(Code.OUT_OF_RANGE, "BALANCE_OUT_OF_RANGE", metadata);
  }

  /** The errors of the first attempt of a batch, of its element, and of the element's own call. */
  record Batch(
      StatusRuntimeException batch,
      StatusRuntimeException element,
      StatusRuntimeException alone,
      Outcome outcome) {}

  static Stream<Batch> batches() {
    var invalid = failure(Code.INVALID_ARGUMENT, "INVALID_CURRENCY_CODE", "");
    var unknown = failure(Code.UNAVAILABLE, "DATABASE_UNAVAILABLE", "unknown");
    var rejected = failure(Code.NOT_FOUND, "ACCOUNT_NOT_FOUND", "");
    return Stream.of(
        new Batch(LOST, SHED, SHED_FOR_LONG, Outcome.UNKNOWN),
        new Batch(LOST, SHED, NO_TOKEN, Outcome.UNKNOWN),
        new Batch(LOST, DENIED, null, Outcome.UNKNOWN),
        new Batch(LOST, invalid, null, Outcome.UNKNOWN),
        new Batch(LOST, tooMuch(Map.of("field", "amount")), null, Outcome.UNKNOWN),
        new Batch(LOST, tooMuch(Map.of("balance", "1.00")), null, Outcome.NONE),
        new Batch(LOST, rejected, null, Outcome.NONE),
        new Batch(SHED, unknown, SHED_FOR_LONG, Outcome.UNKNOWN),
        new Batch(SHED, DENIED, null, Outcome.NONE),
        new Batch(SHED, SHED, SHED_FOR_LONG, Outcome.NOT_APPLIED));
  }

  /** A lost attempt may have applied each request, whatever the later attempts say of one. */
  @ParameterizedTest
  @MethodSource("batches")
  void aRequestOfABatchInDoubtStaysInDoubt(Batch errors) throws IOException {
    try (FakeServer server = new FakeServer((attempt, request) -> {});
        PassbookClient client = PassbookClient.builder(server.address()).unary().build()) {
      server.postError = errors.alone;
      server.postBatch =
          attempt -> {
            if (attempt == 1) {
              throw errors.batch;
            }
            var response = BatchPostTransactionsResponse.newBuilder();
            response.addResultsBuilder().setError(StatusProto.fromThrowable(errors.element));
            return response.build();
          };
      var batch = BatchPostTransactionsRequest.newBuilder();
      batch.addRequests(PostTransactionRequest.newBuilder().setRequestId("pay"));
      var result = client.blocking().batchPostTransactions(batch.build()).getResults(0);
      assertEquals(errors.outcome, PassbookException.of(result.getError(), "pay").outcome());
    }
  }

  /** A server that has shed a batch would shed a crowd of its requests again. */
  @Test
  void requestsOfABatchAreRepeatedAfterThePauseAndNotAllAtOnce() throws IOException {
    var pause = Duration.newBuilder().setNanos(300_000_000).build();
    var shed =
        failure(
            Code.RESOURCE_EXHAUSTED,
            "OVERLOADED",
            "not_applied",
            RetryInfo.newBuilder().setRetryDelay(pause).build());
    AtomicLong batched = new AtomicLong();
    AtomicLong first = new AtomicLong();
    AtomicInteger underWay = new AtomicInteger();
    AtomicInteger most = new AtomicInteger();
    var batch = BatchPostTransactionsRequest.newBuilder();
    IntStream.range(0, 200).forEach(it -> batch.addRequestsBuilder());
    try (FakeServer server = new FakeServer((attempt, request) -> {});
        PassbookClient client = PassbookClient.builder(server.address()).unary().build()) {
      server.postBatch =
          attempt -> {
            var response = BatchPostTransactionsResponse.newBuilder();
            var error = StatusProto.fromThrowable(shed);
            IntStream.range(0, 200).forEach(it -> response.addResultsBuilder().setError(error));
            batched.set(System.nanoTime());
            return response.build();
          };
      server.onPost =
          () -> {
            first.compareAndSet(0, System.nanoTime());
            most.accumulateAndGet(underWay.incrementAndGet(), Math::max);
            LockSupport.parkNanos(50_000_000);
            underWay.decrementAndGet();
          };
      var stub = client.blocking();
      var response = stub.batchPostTransactions(batch.build());
      assertTrue(response.getResultsList().stream().noneMatch(it -> it.hasError()));
      long took = first.get() - batched.get();
      assertTrue(took >= pause.getNanos(), "the first repeat came after " + took + " ns");
      assertTrue(most.get() > 16 && most.get() <= 64, most + " at a time");
      // The pause would end after the deadline.
      var hasty = stub.withDeadlineAfter(150, TimeUnit.MILLISECONDS);
      var last = hasty.batchPostTransactions(batch.build()).getResults(199);
      assertEquals(Outcome.NOT_APPLIED, PassbookException.of(last.getError(), "").outcome());
    }
  }

  /** Its caller has to name the elements, so as to find out what became of each. */
  @ParameterizedTest
  @ValueSource(ints = {2, 12})
  void theErrorOfALostBatchHasTheIdsOfItsElements(int count) throws IOException {
    var lost = failure(Code.UNAVAILABLE, "DATABASE_UNAVAILABLE", "unknown", TOO_LATE);
    List<String> ids = IntStream.range(0, count).mapToObj(it -> "id-" + it).toList();
    String end = count == 2 ? ": id-0, id-1)" : ", id-8, id-9 and 2 more)";
    var postings = BatchPostTransactionsRequest.newBuilder();
    var openings = BatchCreateAccountsRequest.newBuilder();
    ids.forEach(it -> postings.addRequestsBuilder().setRequestId(it));
    ids.forEach(it -> openings.addRequestsBuilder().setAccountId(it));
    try (FakeServer server = new FakeServer((attempt, request) -> {});
        PassbookClient client = PassbookClient.builder(server.address()).build()) {
      server.openBatchError = lost;
      server.postBatch =
          attempt -> {
            throw lost;
          };
      var stub = client.blocking();
      var posted = error(() -> stub.batchPostTransactions(postings.build()));
      assertEquals(Outcome.UNKNOWN, posted.outcome());
      assertEquals(ids, posted.requestIds());
      assertTrue(posted.toString().contains(count + " requests: id-0, id-1"), posted.toString());
      assertTrue(posted.toString().endsWith(end), posted.toString());
      var opened = error(() -> stub.batchCreateAccounts(openings.build()));
      assertEquals(Outcome.UNKNOWN, opened.outcome());
      assertEquals(ids, opened.accountIds());
      assertTrue(opened.toString().contains(count + " accounts: id-0, id-1"), opened.toString());
      assertTrue(opened.toString().endsWith(end), opened.toString());
    }
  }

  private static PassbookException error(Executable call) {
    return PassbookException.of(assertThrows(StatusRuntimeException.class, call));
  }

  /** A text with half of a surrogate pair would be sent as another text. */
  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void aTextThatCannotBeSentIsAnErrorOfItsCallerOnly(boolean isUnary) throws IOException {
    String half = "half of a pair: \ud83d";
    try (FakeServer server = new FakeServer((attempt, request) -> {})) {
      var builder = PassbookClient.builder(server.address());
      try (PassbookClient client = isUnary ? builder.unary().build() : builder.build()) {
        var stub = client.blocking();
        stub.deposit(deposit("first"));
        var batch = BatchPostTransactionsRequest.newBuilder();
        batch.addRequestsBuilder().setRequestId("good");
        batch.addRequestsBuilder().addLegsBuilder().setAccountId(half);
        List<Executable> calls =
            List.of(
                () -> stub.deposit(deposit("\ude00\ud83d")),
                () -> stub.deposit(deposit("bad").toBuilder().setDescription(half).build()),
                () -> stub.deposit(deposit("bad").toBuilder().putLabels("key", half).build()),
                () -> stub.deposit(deposit("bad").toBuilder().putLabels(half, "value").build()),
                () -> stub.getAccount(GetAccountRequest.newBuilder().setAccountId(half).build()),
                () -> stub.batchPostTransactions(batch.build()));
        for (Executable call : calls) {
          PassbookException error = error(call);
          assertEquals(Code.INVALID_ARGUMENT, error.code());
          assertEquals(Outcome.NONE, error.outcome());
        }
        try (EntryWatch watch = client.watch(half, 0)) {
          var error = assertThrows(PassbookException.class, watch::next);
          assertEquals(Code.INVALID_ARGUMENT, error.code());
        }
        // A whole pair is a text.
        stub.deposit(deposit("last").toBuilder().setDescription("\ud83d\ude00").build());
      }
      assertEquals(
          List.of("first", "last"),
          server.deposits.stream().map(DepositRequest::getRequestId).toList());
      assertEquals(isUnary ? 0 : 1, server.streams.get());
    }
  }

  /** The errors of the stream and of the request's own call. */
  record Cut(
      StatusRuntimeException cut, StatusRuntimeException alone, boolean isFirst, Outcome outcome) {}

  static Stream<Cut> cuts() {
    var invalid = failure(Code.INVALID_ARGUMENT, "INVALID_REQUESTS", "");
    var limitOfLibrary = Code.RESOURCE_EXHAUSTED.toStatus().asRuntimeException();
    var tooLarge = failure(Code.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE", "not_applied");
    return Stream.of(
        new Cut(invalid, SHED_FOR_LONG, true, Outcome.UNKNOWN),
        new Cut(invalid, DENIED, false, Outcome.UNKNOWN),
        new Cut(limitOfLibrary, SHED_FOR_LONG, true, Outcome.UNKNOWN),
        new Cut(DENIED, DENIED, false, Outcome.UNKNOWN),
        // Nothing was applied: the server has not looked at the requests, or says so.
        new Cut(DENIED, DENIED, true, Outcome.NONE),
        new Cut(tooLarge, SHED_FOR_LONG, true, Outcome.NOT_APPLIED));
  }

  /**
   * A stream that ends with a final error may have applied what was sent. That of the fake has
   * applied it.
   */
  @ParameterizedTest
  @MethodSource("cuts")
  void aRequestOfAStreamThatWasCutIsInDoubt(Cut errors) throws IOException {
    // The first attempt at the request that is cut is that of the stream.
    int own = errors.isFirst ? 2 : 3;
    FakeServer.Behavior fails =
        (attempt, request) -> {
          if (attempt == own) {
            throw errors.alone;
          }
        };
    try (FakeServer server = new FakeServer(fails);
        PassbookClient client = PassbookClient.builder(server.address()).build()) {
      server.cut = request -> request.getRequestId().equals("cut") ? errors.cut : null;
      if (!errors.isFirst) {
        client.blocking().deposit(deposit("first"));
      }
      var thrown =
          assertThrows(
              StatusRuntimeException.class, () -> client.blocking().deposit(deposit("cut")));
      assertEquals(errors.outcome, PassbookException.of(thrown).outcome());
    }
  }

  /** Their results do not name them, so their callers would wait in vain. */
  @ParameterizedTest
  @ValueSource(
      strings = {
        "iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii",
        "\ud800",
        "\u00e9"
      })
  void aRequestWhoseIdIsNotAllowedGoesAlone(String id) throws IOException {
    String allowed = "i".repeat(64);
    FakeServer.Behavior rejects =
        (attempt, request) -> {
          if (!request.getRequestId().equals(allowed)) {
            throw failure(Code.INVALID_ARGUMENT, "INVALID_REQUEST_ID", "");
          }
        };
    try (FakeServer server = new FakeServer(rejects);
        PassbookClient client = PassbookClient.builder(server.address()).build()) {
      var stub = client.blocking().withDeadlineAfter(5, TimeUnit.SECONDS);
      stub.deposit(deposit(allowed));
      var thrown = assertThrows(StatusRuntimeException.class, () -> stub.deposit(deposit(id)));
      assertEquals(Code.INVALID_ARGUMENT, thrown.getStatus().getCode());
      assertEquals(List.of(allowed), server.streamed);
    }
  }

  /** After UNKNOWN, the caller has to name the account, so as not to open a second one. */
  @Test
  void theErrorOfAnOpeningHasTheAccountId() throws IOException {
    var unknown = failure(Code.UNAVAILABLE, "DATABASE_UNAVAILABLE", "unknown", TOO_LATE);
    for (StatusRuntimeException last : List.of(unknown, NO_TOKEN)) {
      try (FakeServer server = new FakeServer((attempt, request) -> {});
          PassbookClient client = PassbookClient.builder(server.address()).build()) {
        server.openError = last;
        var request = CreateAccountRequest.newBuilder().setCurrencyCode("USD").build();
        var thrown =
            assertThrows(
                StatusRuntimeException.class, () -> client.blocking().createAccount(request));
        PassbookException single = PassbookException.of(thrown);
        assertFalse(single.accountId().isEmpty());
        assertEquals(server.openings, List.of(single.accountId()));
        if (last == unknown) {
          assertTrue(single.toString().contains(single.accountId()), single.toString());
        }
        var batch = BatchCreateAccountsRequest.newBuilder().addRequests(request).build();
        var result = client.blocking().batchCreateAccounts(batch).getResults(0);
        PassbookException element = PassbookException.of(result.getError(), "");
        assertEquals(server.openings.get(1), element.accountId());
        assertEquals(single.outcome(), element.outcome());
      }
    }
  }
}
