package passbook.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import passbook.v1.ErrorReason;

/**
 * The error of a call, as a typed value. The stubs throw gRPC's {@link StatusRuntimeException}:
 * {@link #of(Throwable)} returns the error behind it.
 */
public final class PassbookException extends RuntimeException {
  private static final long serialVersionUID = 1;
  private static final String DOMAIN = "passbook";
  private static final String REASON_PREFIX = "ERROR_REASON_";
  private static final String ACCOUNT_ID = "account_id";

  /** The key of the metadata that is there if a field is invalid by itself. */
  private static final String FIELD = "field";

  /** How many ids of a batch the text of its error has. */
  private static final int IDS_IN_TEXT_MAX = 10;

  private final transient com.google.rpc.Status status;
  private final ErrorReason reason;
  private final Outcome outcome;
  private final Map<String, String> metadata;
  private final String requestId;
  private final List<String> requestIds;
  private final List<String> accountIds;
  private final Duration retryDelay;
  private final boolean hasInfo;

  private PassbookException(com.google.rpc.Status status, String requestId, Throwable cause) {
    super(status.getMessage(), cause, false, false);
    ErrorInfo info = infoOf(status);
    this.status = status;
    this.requestId = requestId;
    this.requestIds = List.of();
    this.accountIds = List.of();
    this.hasInfo = info != null;
    this.reason = info == null ? ErrorReason.ERROR_REASON_UNSPECIFIED : reasonOf(info.getReason());
    this.metadata = info == null ? Map.of() : Map.copyOf(info.getMetadataMap());
    this.outcome = Outcome.of(metadata.getOrDefault(Outcome.KEY, ""));
    this.retryDelay = retryDelayOf(status);
  }

  private PassbookException(
      PassbookException original,
      Map<String, String> metadata,
      List<String> requestIds,
      List<String> accountIds) {
    super(original.getMessage(), original.getCause(), false, false);
    boolean isSame = metadata.equals(original.metadata);
    this.status = isSame ? original.status : withMetadata(original.status, metadata);
    this.requestId = original.requestId;
    this.requestIds = List.copyOf(requestIds);
    this.accountIds = List.copyOf(accountIds);
    this.hasInfo = original.hasInfo;
    this.reason = original.reason;
    this.metadata = Map.copyOf(metadata);
    this.outcome = Outcome.of(metadata.getOrDefault(Outcome.KEY, ""));
    this.retryDelay = original.retryDelay;
  }

  /**
   * The error behind what a stub has thrown.
   *
   * @throws IllegalArgumentException there is no error of gRPC in the chain of causes
   */
  public static PassbookException of(Throwable thrown) {
    for (Throwable cause = thrown; cause != null; cause = cause.getCause()) {
      if (cause instanceof PassbookException error) {
        return error;
      }
    }
    for (Throwable cause = thrown; cause != null; cause = cause.getCause()) {
      if (cause instanceof StatusRuntimeException error) {
        return of(error.getStatus(), error.getTrailers(), "");
      }
      if (cause instanceof StatusException error) {
        return of(error.getStatus(), error.getTrailers(), "");
      }
    }
    throw new IllegalArgumentException("not an error of a call", thrown);
  }

  /**
   * The error in a result of BatchPostTransactions or BatchCreateAccounts, or in a response of
   * GetRequestOutcome and FenceRequest. The result of an opening has no request id, but an {@link
   * #accountId}.
   */
  public static PassbookException of(com.google.rpc.Status error, String requestId) {
    PassbookException exception = new PassbookException(error, requestId, null);
    boolean isSilent =
        exception.outcome == Outcome.NONE && !exception.isResult() && !exception.isDenied();
    return isSilent ? exception.with(Outcome.UNKNOWN) : exception;
  }

  static PassbookException of(Status status, Metadata trailers, String requestId) {
    return new PassbookException(
        StatusProto.fromStatusAndTrailers(status, trailers), requestId, status.getCause());
  }

  /** The gRPC code. */
  public Status.Code code() {
    return Status.fromCodeValue(status.getCode()).getCode();
  }

  /**
   * The reason, from the list of the contract. Unspecified: gRPC's own error, or one newer than
   * this client.
   */
  public ErrorReason reason() {
    return reason;
  }

  /** What became of the request in all attempts of the call. */
  public Outcome outcome() {
    return outcome;
  }

  /** What belongs to the reason: the available amount of INSUFFICIENT_FUNDS, for example. */
  public Map<String, String> metadata() {
    return metadata;
  }

  /** The id of the request, also if the client made it. Empty: the call has none. */
  public String requestId() {
    return requestId;
  }

  /**
   * The id of the account that CreateAccount was to open, also if the client made it. In other
   * errors it is the account in the metadata. Empty: there is none.
   */
  public String accountId() {
    return metadata.getOrDefault(ACCOUNT_ID, "");
  }

  /** The ids in a BatchPostTransactions that has failed as a whole. Each has this outcome. */
  public List<String> requestIds() {
    return requestIds;
  }

  /** The ids in a BatchCreateAccounts that has failed as a whole. Each has this outcome. */
  public List<String> accountIds() {
    return accountIds;
  }

  /** The status of the last attempt with all details. */
  public com.google.rpc.Status status() {
    return status;
  }

  @Override
  public String toString() {
    String name = reason.name().substring(REASON_PREFIX.length());
    String text = "PassbookException: " + code() + " " + name + ": " + getMessage();
    if (outcome == Outcome.NONE) {
      return text;
    }
    if (!requestIds.isEmpty() || !accountIds.isEmpty()) {
      String elements =
          accountIds.isEmpty() ? listOf("requests", requestIds) : listOf("accounts", accountIds);
      return text + " (outcome " + outcome + ", " + elements + ")";
    }
    boolean isOpening = requestId.isEmpty() && !accountId().isEmpty();
    String subject = isOpening ? "account " + accountId() : "request " + requestId;
    return text + " (" + subject + ", outcome " + outcome + ")";
  }

  /** The number of the ids, the first ones, and how many more there are. */
  private static String listOf(String name, List<String> ids) {
    int count = Math.min(ids.size(), IDS_IN_TEXT_MAX);
    String text = ids.size() + " " + name + ": " + String.join(", ", ids.subList(0, count));
    return count < ids.size() ? text + " and " + (ids.size() - count) + " more" : text;
  }

  Duration retryDelay() {
    return retryDelay;
  }

  PassbookException with(Outcome changed) {
    if (changed == outcome) {
      return this;
    }
    Map<String, String> other = new HashMap<>(metadata);
    if (changed == Outcome.NONE) {
      other.remove(Outcome.KEY);
    } else {
      other.put(Outcome.KEY, changed.toString());
    }
    return new PassbookException(this, other, requestIds, accountIds);
  }

  /** The same error, but of requests that were not sent. */
  PassbookException ofNoRequest() {
    return of(code().toStatus().withDescription(getMessage()), new Metadata(), "");
  }

  PassbookException withAccountId(String accountId) {
    Map<String, String> other = new HashMap<>(metadata);
    other.put(ACCOUNT_ID, accountId);
    return new PassbookException(this, other, requestIds, accountIds);
  }

  PassbookException withElements(List<String> requestIds, List<String> accountIds) {
    return new PassbookException(this, metadata, requestIds, accountIds);
  }

  /** Whether the error is what became of the request: invalid, or rejected by state. */
  boolean isResult() {
    return switch (code()) {
      case INVALID_ARGUMENT, OUT_OF_RANGE, NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION -> true;
      default -> reason == ErrorReason.ERROR_REASON_VERSION_MISMATCH;
    };
  }

  /**
   * Whether the server did not look for the record of the request: what is valid depends on its
   * settings, such as its currencies. An amount and a time can be out of range by themselves: then
   * the error names their field. Whatever outcome the error has is that of the last attempt.
   */
  boolean isInvalid() {
    if (code() == Status.Code.OUT_OF_RANGE) {
      return metadata.containsKey(FIELD);
    }
    return code() == Status.Code.INVALID_ARGUMENT
        && reason != ErrorReason.ERROR_REASON_REQUEST_ID_REUSED;
  }

  /** Whether the server did not look at the request. */
  boolean isDenied() {
    return switch (code()) {
      case UNAUTHENTICATED, PERMISSION_DENIED, UNIMPLEMENTED -> true;
      default -> false;
    };
  }

  /** Whether another attempt would end in the same way. */
  boolean isFinal() {
    boolean isTooLarge =
        reason == ErrorReason.ERROR_REASON_REQUEST_TOO_LARGE
            || reason == ErrorReason.ERROR_REASON_RESPONSE_TOO_LARGE;
    boolean isLimitOfLibrary = code() == Status.Code.RESOURCE_EXHAUSTED && !hasInfo;
    return isResult() || isDenied() || isTooLarge || isLimitOfLibrary;
  }

  private static ErrorReason reasonOf(String name) {
    try {
      return ErrorReason.valueOf(REASON_PREFIX + name);
    } catch (IllegalArgumentException e) {
      return ErrorReason.ERROR_REASON_UNSPECIFIED;
    }
  }

  private static ErrorInfo infoOf(com.google.rpc.Status status) {
    for (Any detail : status.getDetailsList()) {
      if (isInfo(detail)) {
        return unpack(detail, ErrorInfo.class);
      }
    }
    return null;
  }

  private static boolean isInfo(Any detail) {
    return detail.is(ErrorInfo.class) && unpack(detail, ErrorInfo.class).getDomain().equals(DOMAIN);
  }

  private static Duration retryDelayOf(com.google.rpc.Status status) {
    for (Any detail : status.getDetailsList()) {
      if (detail.is(RetryInfo.class)) {
        var delay = unpack(detail, RetryInfo.class).getRetryDelay();
        return Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
      }
    }
    return Duration.ZERO;
  }

  /**
   * An error without ErrorInfo, such as one of gRPC itself, gets one, because the results of a
   * batch have nothing but their status.
   */
  private static com.google.rpc.Status withMetadata(
      com.google.rpc.Status status, Map<String, String> metadata) {
    ErrorInfo info = infoOf(status);
    com.google.rpc.Status.Builder changed = status.toBuilder();
    if (info == null) {
      String name = ErrorReason.ERROR_REASON_UNSPECIFIED.name().substring(REASON_PREFIX.length());
      info = ErrorInfo.newBuilder().setDomain(DOMAIN).setReason(name).build();
      changed.addDetails(Any.pack(info));
    }
    Any other = Any.pack(info.toBuilder().clearMetadata().putAllMetadata(metadata).build());
    for (int i = 0; i < changed.getDetailsCount(); i++) {
      if (isInfo(changed.getDetails(i))) {
        changed.setDetails(i, other);
      }
    }
    return changed.build();
  }

  private static <M extends com.google.protobuf.Message> M unpack(Any detail, Class<M> type) {
    try {
      return detail.unpack(type);
    } catch (InvalidProtocolBufferException e) {
      throw new IllegalArgumentException("the details of an error are malformed", e);
    }
  }
}
