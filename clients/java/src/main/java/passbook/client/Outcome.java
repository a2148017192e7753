package passbook.client;

/** What became of a request that has no result. */
public enum Outcome {
  /** The error is the result, or nothing was applied, or the call was a read. */
  NONE(""),
  /** The request was not applied, and no attempt of the call ever will be. */
  NOT_APPLIED("not_applied"),
  /** The request was applied or it was not. Repeat the call under the same id to find out. */
  UNKNOWN("unknown");

  /** The key of the outcome in the metadata of an error. */
  static final String KEY = "outcome";

  private final String name;

  Outcome(String name) {
    this.name = name;
  }

  /** The outcome as the contract writes it. */
  static Outcome of(String name) {
    for (Outcome outcome : values()) {
      if (outcome.name.equals(name)) {
        return outcome;
      }
    }
    return NONE;
  }

  @Override
  public String toString() {
    return name;
  }
}
