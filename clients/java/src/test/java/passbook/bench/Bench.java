package passbook.bench;

import com.google.common.util.concurrent.FutureCallback;
import com.google.common.util.concurrent.Futures;
import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.atomic.LongAdder;
import passbook.client.Amounts;
import passbook.client.PassbookClient;
import passbook.v1.CreateAccountRequest;
import passbook.v1.DepositRequest;
import passbook.v1.DepositResponse;
import passbook.v1.Money;

/**
 * Compares the two ways in which a client sends the concurrent calls of one program: in one stream,
 * and as unary calls. Both take turns on the same server, on accounts that it opens. Each of the
 * callers waits for a result by a callback, and then makes the next call.
 */
public final class Bench {
  private static final Money CENT = Amounts.money(new BigDecimal("0.01"), "USD");

  private final String address;
  private final int callers;
  private final List<String> accounts;

  private Bench(String address, int callers, List<String> accounts) {
    this.address = address;
    this.callers = callers;
    this.accounts = accounts;
  }

  /** Arguments: ADDRESS CALLERS ACCOUNTS SECONDS ROUNDS. */
  public static void main(String[] arguments) throws Exception {
    if (arguments.length != 5) {
      System.err.println("usage: Bench ADDRESS CALLERS ACCOUNTS SECONDS ROUNDS");
      System.exit(2);
    }
    String address = arguments[0];
    List<String> accounts = open(address, Integer.parseInt(arguments[2]));
    Bench bench = new Bench(address, Integer.parseInt(arguments[1]), accounts);
    double seconds = Double.parseDouble(arguments[3]);
    List<Double> stream = new ArrayList<>();
    List<Double> unary = new ArrayList<>();
    for (int round = 0; round < Integer.parseInt(arguments[4]); round++) {
      stream.add(bench.measure("stream", PassbookClient.builder(address), seconds));
      unary.add(bench.measure("unary", PassbookClient.builder(address).unary(), seconds));
    }
    System.out.printf(
        "median: stream %.0f/s, unary %.0f/s, ratio %.2f%n",
        median(stream), median(unary), median(stream) / median(unary));
  }

  private static List<String> open(String address, int count) {
    List<String> accounts = new ArrayList<>();
    String run = UUID.randomUUID().toString().substring(0, 8);
    try (PassbookClient client = PassbookClient.builder(address).build()) {
      for (int i = 0; i < count; i++) {
        String account = "bench-" + run + "-" + i;
        client
            .blocking()
            .createAccount(
                CreateAccountRequest.newBuilder()
                    .setAccountId(account)
                    .setCurrencyCode("USD")
                    .build());
        accounts.add(account);
      }
    }
    return accounts;
  }

  private static double median(List<Double> rates) {
    Collections.sort(rates);
    return rates.get(rates.size() / 2);
  }

  /** Deposits per second of all callers together. The first fifth of the time does not count. */
  private double measure(String name, PassbookClient.Builder builder, double seconds)
      throws InterruptedException {
    try (PassbookClient client = builder.build()) {
      Round round = new Round(client);
      for (int i = 0; i < callers; i++) {
        round.call();
      }
      Thread.sleep((long) (seconds * 200));
      long begun = System.nanoTime();
      long before = round.deposits.sum();
      Thread.sleep((long) (seconds * 800));
      double rate = (round.deposits.sum() - before) / ((System.nanoTime() - begun) / 1e9);
      round.isOver = true;
      round.ended.await();
      if (round.failure.get() != null) {
        throw new IllegalStateException(round.failure.get());
      }
      System.out.printf("%-6s %8.0f deposits/s%n", name, rate);
      return rate;
    }
  }

  private final class Round implements FutureCallback<DepositResponse> {
    private final PassbookClient client;
    private final LongAdder deposits = new LongAdder();
    private final CountDownLatch ended = new CountDownLatch(callers);
    private final AtomicReference<Throwable> failure = new AtomicReference<>();
    private volatile boolean isOver;

    Round(PassbookClient client) {
      this.client = client;
    }

    void call() {
      String account = accounts.get(ThreadLocalRandom.current().nextInt(accounts.size()));
      DepositRequest request =
          DepositRequest.newBuilder().setAccountId(account).setAmount(CENT).build();
      Futures.addCallback(client.future().deposit(request), this, Runnable::run);
    }

    @Override
    public void onSuccess(DepositResponse response) {
      deposits.increment();
      if (isOver) {
        ended.countDown();
      } else {
        call();
      }
    }

    @Override
    public void onFailure(Throwable error) {
      failure.compareAndSet(null, error);
      ended.countDown();
    }
  }
}
