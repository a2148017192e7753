package passbook.conformance;

import com.google.protobuf.Empty;
import com.google.protobuf.Timestamp;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.math.BigDecimal;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionService;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorCompletionService;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import passbook.client.Amounts;
import passbook.client.EntryWatch;
import passbook.client.EventWatch;
import passbook.client.Outcome;
import passbook.client.PassbookClient;
import passbook.client.PassbookException;
import passbook.client.Posted;
import passbook.client.Postings;
import passbook.v1.Account;
import passbook.v1.BatchCreateAccountsRequest;
import passbook.v1.CaptureHoldRequest;
import passbook.v1.CreateAccountRequest;
import passbook.v1.DepositRequest;
import passbook.v1.DepositResponse;
import passbook.v1.Entry;
import passbook.v1.ErrorReason;
import passbook.v1.Event;
import passbook.v1.EventKind;
import passbook.v1.FenceRequestRequest;
import passbook.v1.GetAccountRequest;
import passbook.v1.GetRequestOutcomeRequest;
import passbook.v1.HoldState;
import passbook.v1.Leg;
import passbook.v1.ListAccountsRequest;
import passbook.v1.ListEntriesRequest;
import passbook.v1.ListTransactionsRequest;
import passbook.v1.Money;
import passbook.v1.PlaceHoldRequest;
import passbook.v1.PostTransactionRequest;
import passbook.v1.ReleaseHoldRequest;
import passbook.v1.RequestOutcome;
import passbook.v1.ReverseTransactionRequest;
import passbook.v1.SumBalancesRequest;
import passbook.v1.Transaction;
import passbook.v1.TransferRequest;
import passbook.v1.UpdateHoldRequest;
import passbook.v1.VerifyAccountRequest;
import passbook.v1.WatchEventsRequest;
import passbook.v1.WatchEventsResponse;
import passbook.v1.WithdrawRequest;

/**
 * Plays the story of clients/CONFORMANCE.md once, against servers that it starts.
 *
 * <p>Environment: PASSBOOK_TEST_BIN, the absolute path of the program, and PASSBOOK_DATABASE_URL.
 */
public final class Conformance {
  private static final int STEP_SECONDS_MAX = 60;
  private static final int PAYMENTS = 1000;
  private static final int CALLERS = 16;
  private static final int POSTINGS = 500;
  private static final int ENTRIES = PAYMENTS + POSTINGS - 1;

  private final ServerProcess a;
  private final ServerProcess b;
  private final PassbookClient both;
  private final ExecutorService threads;
  // The request ids of all payments to `till`, from their results.
  private final Set<String> paid = ConcurrentHashMap.newKeySet();
  private final CompletableFuture<Void> watched = new CompletableFuture<>();
  private final CompletableFuture<Void> sawEvents = new CompletableFuture<>();
  // The balance of `joint` after step 7.
  private String joint;

  private Conformance(
      ServerProcess a, ServerProcess b, PassbookClient both, ExecutorService threads) {
    this.a = a;
    this.b = b;
    this.both = both;
    this.threads = threads;
  }

  /** Plays the story. Ends with exit code 1 if a promise is broken. */
  public static void main(String[] arguments) throws Exception {
    ExecutorService threads = Executors.newCachedThreadPool();
    try (ServerProcess a = new ServerProcess();
        ServerProcess b = new ServerProcess();
        PassbookClient both = PassbookClient.builder(a.address(), b.address()).build()) {
      new Conformance(a, b, both, threads).play();
    } catch (Exception e) {
      System.err.println("conformance: " + e.getMessage());
      e.printStackTrace();
      System.exit(1);
    } finally {
      threads.shutdownNow();
    }
  }

  private interface Step {
    void run() throws Exception;
  }

  private void play() throws Exception {
    step("1. the joint account", this::jointAccount);
    step("2. exact amounts", this::exactAmounts);
    step("3. a rejection", this::rejection);
    step("4. a replay", this::replay);
    step("5. a hold", this::hold);
    step("6. many accounts", this::manyAccounts);
    step("7. a deadline", this::deadline);
    step("8. a thousand payments", this::payments);
    step("9. a stream", this::stream);
    step("10. the watches", CompletableFuture.allOf(watched, sawEvents)::get);
    step("11. the end", this::end);
  }

  private void step(String name, Step step) throws Exception {
    long begun = System.nanoTime();
    Callable<Void> task =
        () -> {
          step.run();
          return null;
        };
    try {
      threads.submit(task).get(STEP_SECONDS_MAX, TimeUnit.SECONDS);
    } catch (Exception e) {
      throw new IllegalStateException("step " + name, e);
    }
    System.out.printf("%s: ok (%.1f s)%n", name, (System.nanoTime() - begun) / 1e9);
  }

  private static void expect(String what, Object got, Object want) {
    if (!want.equals(got)) {
      throw new IllegalStateException(what + " is " + got + ", want " + want);
    }
  }

  private static void expectAmount(String what, Money got, String want) {
    if (Amounts.amount(got).compareTo(new BigDecimal(want)) != 0) {
      throw new IllegalStateException(what + " is " + got.getValue() + ", want " + want);
    }
  }

  /** Checks the reason of an error without an outcome. */
  private static PassbookException expectError(ErrorReason reason, Runnable call) {
    PassbookException error = errorOf(call);
    expect("the reason of " + error, error.reason(), reason);
    expect("the outcome", error.outcome(), Outcome.NONE);
    return error;
  }

  private static PassbookException errorOf(Runnable call) {
    try {
      call.run();
    } catch (StatusRuntimeException e) {
      return PassbookException.of(e);
    }
    throw new IllegalStateException("there is no error");
  }

  private static Money usd(String amount) {
    return Amounts.money(new BigDecimal(amount), "USD");
  }

  private static Money eur(String amount) {
    return Amounts.money(new BigDecimal(amount), "EUR");
  }

  private void open(String account) {
    both.blocking()
        .createAccount(
            CreateAccountRequest.newBuilder().setAccountId(account).setCurrencyCode("USD").build());
  }

  private static DepositRequest deposit(String account, String amount, String requestId) {
    return DepositRequest.newBuilder()
        .setRequestId(requestId)
        .setAccountId(account)
        .setAmount(usd(amount))
        .build();
  }

  private DepositResponse pay(String account, String amount, String requestId) {
    return both.blocking().deposit(deposit(account, amount, requestId));
  }

  private Account account(String account) {
    return both.blocking()
        .getAccount(GetAccountRequest.newBuilder().setAccountId(account).build())
        .getAccount();
  }

  private void expectBalance(String account, String want) {
    expectAmount(account, account(account).getBalance(), want);
  }

  private void jointAccount() throws Exception {
    open("joint");
    pay("joint", "1000.00", "");
    try (PassbookClient ofA = PassbookClient.builder(a.address()).build();
        PassbookClient ofB = PassbookClient.builder(b.address()).build()) {
      List<Future<?>> calls = new ArrayList<>();
      for (int i = 0; i < 10; i++) {
        calls.add(ofA.future().deposit(deposit("joint", "100.00", "")));
        calls.add(
            ofB.future()
                .withdraw(
                    WithdrawRequest.newBuilder()
                        .setAccountId("joint")
                        .setAmount(usd("100.00"))
                        .build()));
      }
      for (Future<?> call : calls) {
        call.get();
      }
    }
    expectBalance("joint", "1000.00");
    expect("the sequence", account("joint").getSequence(), 21L);
  }

  private void exactAmounts() {
    open("vault");
    for (String amount : List.of("12345678901234567890123.45", "0.10", "0.20")) {
      pay("vault", amount, "");
    }
    expectBalance("vault", "12345678901234567890123.75");
  }

  private void rejection() {
    expectRentRejected();
    pay("joint", "50.00", "");
    expectRentRejected();
    both.blocking()
        .withdraw(
            WithdrawRequest.newBuilder().setAccountId("joint").setAmount(usd("50.00")).build());
  }

  private void expectRentRejected() {
    WithdrawRequest rent =
        WithdrawRequest.newBuilder()
            .setRequestId("rent")
            .setAccountId("joint")
            .setAmount(usd("1000.01"))
            .build();
    PassbookException error =
        expectError(
            ErrorReason.ERROR_REASON_INSUFFICIENT_FUNDS, () -> both.blocking().withdraw(rent));
    expect("the code", error.code(), Code.FAILED_PRECONDITION);
    expect("the request id", error.requestId(), "rent");
    expect("available", error.metadata().get("available"), "1000.00");
    expect("required", error.metadata().get("required"), "1000.01");
  }

  private void replay() {
    Instant dayAgo = Instant.now().minus(1, ChronoUnit.DAYS);
    Timestamp effective = Timestamp.newBuilder().setSeconds(dayAgo.getEpochSecond()).build();
    DepositRequest.Builder bonus =
        deposit("joint", "25.00", "bonus").toBuilder().setEffectiveTime(effective);
    DepositResponse first = both.blocking().deposit(bonus.build());
    DepositResponse second = both.blocking().deposit(bonus.build());
    expect(
        "its effective time", first.getTransaction().getEntries(0).getEffectiveTime(), effective);
    expect("replayed at first", first.getReplayed(), false);
    expect("replayed at last", second.getReplayed(), true);
    expect(
        "the transaction",
        second.getTransaction().getTransactionId(),
        first.getTransaction().getTransactionId());
    DepositRequest other = bonus.setAmount(usd("26.00")).build();
    expectError(ErrorReason.ERROR_REASON_REQUEST_ID_REUSED, () -> both.blocking().deposit(other));
    expectBalance("joint", "1025.00");
  }

  private void hold() {
    open("shop");
    both.blocking()
        .placeHold(
            PlaceHoldRequest.newBuilder()
                .setHoldId("trip")
                .setAccountId("joint")
                .setAmount(usd("100.00"))
                .build());
    both.blocking()
        .updateHold(
            UpdateHoldRequest.newBuilder().setHoldId("trip").setAmount(usd("200.00")).build());
    expectAmount("available", account("joint").getAvailable(), "825.00");
    var part = captureTrip("100.00").setKeepOpen(true);
    var open = both.blocking().captureHold(part.build()).getHold();
    expect("the hold before", open.getState(), HoldState.HOLD_STATE_OPEN);
    expectAmount("available", account("joint").getAvailable(), "825.00");
    var captured = both.blocking().captureHold(captureTrip("50.00").build()).getHold();
    expect("the hold", captured.getState(), HoldState.HOLD_STATE_CAPTURED);
    expectAmount("the captured amount", captured.getCapturedAmount(), "150.00");
    ReleaseHoldRequest release = ReleaseHoldRequest.newBuilder().setHoldId("trip").build();
    PassbookException error =
        expectError(
            ErrorReason.ERROR_REASON_HOLD_NOT_OPEN, () -> both.blocking().releaseHold(release));
    expect("the state", error.metadata().get("state"), "captured");
    expectBalance("joint", "875.00");
    expectAmount("available", account("joint").getAvailable(), "875.00");
    expectBalance("shop", "150.00");
  }

  private static CaptureHoldRequest.Builder captureTrip(String amount) {
    return CaptureHoldRequest.newBuilder()
        .setHoldId("trip")
        .setAmount(usd(amount))
        .setDestinationAccountId("shop");
  }

  private void manyAccounts() {
    List<String> accounts =
        Stream.concat(IntStream.rangeClosed(1, 100).mapToObj(i -> "pool-" + i), Stream.of("joint"))
            .toList();
    var batch = BatchCreateAccountsRequest.newBuilder();
    for (String account : accounts) {
      batch.addRequests(
          CreateAccountRequest.newBuilder().setAccountId(account).setCurrencyCode("EUR"));
    }
    var results = both.blocking().batchCreateAccounts(batch.build()).getResultsList();
    for (int i = 0; i < 100; i++) {
      expect("the account", results.get(i).getAccount().getAccountId(), accounts.get(i));
    }
    PassbookException exists = PassbookException.of(results.get(100).getError(), "");
    expect("the error", exists.reason(), ErrorReason.ERROR_REASON_ACCOUNT_EXISTS);
    both.blocking()
        .deposit(
            DepositRequest.newBuilder().setAccountId("pool-1").setAmount(eur("10.00")).build());
    Transaction forced =
        both.blocking()
            .withdraw(
                WithdrawRequest.newBuilder()
                    .setAccountId("pool-1")
                    .setAmount(eur("25.00"))
                    .setForce(true)
                    .build())
            .getTransaction();
    expect("forced", forced.getForced(), true);
    expectAmount("its balance", forced.getEntries(0).getBalanceAfter(), "-15.00");
    both.blocking()
        .reverseTransaction(
            ReverseTransactionRequest.newBuilder()
                .setTransactionId(forced.getTransactionId())
                .setAmount(eur("5.00"))
                .build());
    List<String> listed =
        both
            .blocking()
            .listAccounts(ListAccountsRequest.newBuilder().setAccountIdPrefix("pool-").build())
            .getAccountsList()
            .stream()
            .map(Account::getAccountId)
            .toList();
    expect("the list", listed, accounts.subList(0, 100).stream().sorted().toList());
    var sums =
        both.blocking()
            .sumBalances(SumBalancesRequest.newBuilder().setAccountIdPrefix("pool-").build())
            .getSumsList();
    expect("the number of sums", sums.size(), 1);
    expect("the currency", sums.get(0).getCurrencyCode(), "EUR");
    expect("the number of accounts", sums.get(0).getAccountCount(), 100L);
    expectAmount("the sum", sums.get(0).getBalance(), "-10.00");
  }

  private void deadline() throws IOException {
    a.pause();
    b.pause();
    PassbookException error;
    try {
      var impatient = both.blocking().withDeadlineAfter(300, TimeUnit.MILLISECONDS);
      error = errorOf(() -> impatient.deposit(deposit("joint", "10.00", "")));
    } finally {
      a.resume();
      b.resume();
    }
    expect("the code", error.code(), Code.DEADLINE_EXCEEDED);
    expect("the outcome", error.outcome(), Outcome.UNKNOWN);
    String id = error.requestId();
    expect("an empty request id", id.isEmpty(), false);
    var fence =
        both.blocking().fenceRequest(FenceRequestRequest.newBuilder().setRequestId(id).build());
    var outcome =
        both.blocking()
            .getRequestOutcome(GetRequestOutcomeRequest.newBuilder().setRequestId(id).build());
    expect("the outcome", outcome.getOutcome(), fence.getOutcome());
    expect("the fence", outcome.getFenced(), fence.getFenced());
    if (fence.getOutcome() == RequestOutcome.REQUEST_OUTCOME_APPLIED) {
      joint = "885.00";
      expect("replayed", pay("joint", "10.00", id).getReplayed(), true);
    } else {
      joint = "875.00";
      expectError(ErrorReason.ERROR_REASON_REQUEST_FENCED, () -> pay("joint", "10.00", id));
    }
    expectBalance("joint", joint);
  }

  private void payments() throws Exception {
    open("wallet");
    pay("wallet", "10000.00", "");
    open("till");
    threads.execute(this::watchTill);
    threads.execute(this::watchEvents);
    ExecutorService callers = Executors.newFixedThreadPool(CALLERS);
    try {
      CompletionService<String> results = new ExecutorCompletionService<>(callers);
      for (int number = 1; number <= PAYMENTS; number++) {
        int cents = number;
        results.submit(() -> payToTill(cents));
      }
      ServerProcess victim = a;
      for (int done = 1; done <= PAYMENTS; done++) {
        paid.add(results.take().get());
        if (done % 100 == 0 && done < PAYMENTS) {
          victim.restart();
          victim = victim == a ? b : a;
        }
      }
    } finally {
      callers.shutdownNow();
    }
  }

  /** Returns the request id of the payment, as the result has it. */
  private String payToTill(int cents) {
    TransferRequest.Builder request =
        TransferRequest.newBuilder()
            .setSourceAccountId("wallet")
            .setDestinationAccountId("till")
            .setAmount(Amounts.money(BigDecimal.valueOf(cents, 2), "USD"));
    if (cents % 2 == 0) {
      request.setRequestId("pay-" + cents);
    }
    if (cents % 50 == 0) {
      try {
        var impatient = both.blocking().withDeadlineAfter(10, TimeUnit.MILLISECONDS);
        return impatient.transfer(request.build()).getTransaction().getRequestId();
      } catch (StatusRuntimeException e) {
        PassbookException error = PassbookException.of(e);
        if (error.outcome() == Outcome.NONE) {
          throw error;
        }
        request.setRequestId(error.requestId());
      }
    }
    return both.blocking().transfer(request.build()).getTransaction().getRequestId();
  }

  private void watchTill() {
    try (EntryWatch watch = both.watch("till", 0)) {
      for (long sequence = 1; sequence <= ENTRIES; sequence++) {
        expect("the sequence", watch.next().getSequence(), sequence);
      }
      watched.complete(null);
    } catch (RuntimeException e) {
      watched.completeExceptionally(e);
    }
  }

  /** Reads the transactions of `till` to the last one, then what there is after the middle. */
  private void watchEvents() {
    try {
      var request =
          WatchEventsRequest.newBuilder()
              .addAccountIdPrefixes("till")
              .addKinds(EventKind.EVENT_KIND_TRANSACTION)
              .setFromBeginning(Empty.getDefaultInstance());
      long sequence = 0;
      long middle = 0;
      try (EventWatch watch = both.watchEvents(request.build())) {
        while (sequence < ENTRIES) {
          WatchEventsResponse message = watch.next();
          sequence = expectTill(message, sequence);
          if (middle == 0 && sequence >= PAYMENTS / 2) {
            middle = sequence;
            request.setAfterToken(message.getToken());
          }
        }
      }
      try (EventWatch watch = both.watchEvents(request.build())) {
        WatchEventsResponse message;
        do {
          message = watch.next();
          middle = expectTill(message, middle);
        } while (!message.getCaughtUp());
        expect("the last event that there is", middle, (long) ENTRIES);
      }
      sawEvents.complete(null);
    } catch (RuntimeException e) {
      sawEvents.completeExceptionally(e);
    }
  }

  /** Checks the entries of `till` after this sequence, and returns the sequence of the last one. */
  private static long expectTill(WatchEventsResponse message, long sequence) {
    for (Event event : message.getEventsList()) {
      sequence++;
      var entries = event.getTransaction().getEntriesList().stream();
      var sequences =
          entries.filter(it -> it.getAccountId().equals("till")).map(Entry::getSequence);
      expect("the sequences of an event", sequences.toList(), List.of(sequence));
    }
    return sequence;
  }

  private void stream() throws IOException {
    var requests = IntStream.rangeClosed(1, POSTINGS).mapToObj(Conformance::posting).iterator();
    int count = 0;
    try (PassbookClient ofA = PassbookClient.builder(a.address()).build();
        Postings results = ofA.postAll(requests)) {
      while (results.hasNext()) {
        Posted posted = results.next();
        count++;
        expect("the request id", posted.requestId(), "stream-" + count);
        if (count == POSTINGS / 2) {
          expect("the reason", posted.error().reason(), ErrorReason.ERROR_REASON_ACCOUNT_NOT_FOUND);
          expect("the outcome", posted.error().outcome(), Outcome.NONE);
        } else if (posted.error() != null) {
          throw posted.error();
        } else {
          paid.add(posted.response().getTransaction().getRequestId());
        }
        if (count == 200) {
          a.restart();
        }
      }
    }
    expect("the number of results", count, POSTINGS);
  }

  private static PostTransactionRequest posting(int number) {
    String destination = number == POSTINGS / 2 ? "nobody" : "till";
    return PostTransactionRequest.newBuilder()
        .setRequestId("stream-" + number)
        .addLegs(Leg.newBuilder().setAccountId("wallet").setAmount(usd("-0.01")))
        .addLegs(Leg.newBuilder().setAccountId(destination).setAmount(usd("0.01")))
        .build();
  }

  /** Nothing is lost, and nothing is doubled. */
  private void end() {
    expect("the number of entries", countEntries(), ENTRIES);
    Map<String, Integer> counts = new HashMap<>();
    for (Transaction transaction : transactions()) {
      counts.merge(transaction.getRequestId(), 1, Integer::sum);
    }
    expect("the ids of the transactions", counts.keySet(), paid);
    expect("the counts of the ids", new HashSet<>(counts.values()), Set.of(1));
    expect("the number of ids", paid.size(), ENTRIES);
    for (int number = 2; number <= PAYMENTS; number += 2) {
      expect("a payment of pay-" + number, paid.contains("pay-" + number), true);
    }
    expectBalance("joint", joint);
    expectBalance("vault", "12345678901234567890123.75");
    expectBalance("shop", "150.00");
    expectBalance("wallet", "4990.01");
    expectBalance("till", "5009.99");
    for (String account : List.of("joint", "vault", "shop", "wallet", "till")) {
      var request = VerifyAccountRequest.newBuilder().setAccountId(account).build();
      var response = both.blocking().verifyAccount(request);
      expect(account + " with the fault " + response.getFault(), response.getValid(), true);
    }
  }

  private int countEntries() {
    var request = ListEntriesRequest.newBuilder().setAccountId("till").setPageSize(1000);
    int count = 0;
    do {
      var page = both.blocking().listEntries(request.build());
      count += page.getEntriesCount();
      request.setPageToken(page.getNextPageToken());
    } while (!request.getPageToken().isEmpty());
    return count;
  }

  private List<Transaction> transactions() {
    var request = ListTransactionsRequest.newBuilder().setAccountId("till").setPageSize(1000);
    List<Transaction> all = new ArrayList<>();
    do {
      var page = both.blocking().listTransactions(request.build());
      all.addAll(page.getTransactionsList());
      request.setPageToken(page.getNextPageToken());
    } while (!request.getPageToken().isEmpty());
    return all;
  }
}
