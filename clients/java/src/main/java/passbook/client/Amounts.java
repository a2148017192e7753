package passbook.client;

import java.math.BigDecimal;
import passbook.v1.Money;

/** Exact amounts in the form of the contract and as decimals. Nothing is rounded. */
public final class Amounts {
  private Amounts() {}

  /** The amount in the form of the contract, without zeros at the end of its decimals. */
  public static Money money(BigDecimal amount, String currencyCode) {
    return Money.newBuilder()
        .setCurrencyCode(currencyCode)
        .setValue(amount.stripTrailingZeros().toPlainString())
        .build();
  }

  /**
   * The exact decimal of an amount that the server returned.
   *
   * @throws NumberFormatException the amount is not set
   */
  public static BigDecimal amount(Money money) {
    return new BigDecimal(money.getValue());
  }
}
