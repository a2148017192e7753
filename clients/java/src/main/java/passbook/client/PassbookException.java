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

  private final transient com.google.rpc.Status status;
  private final ErrorReason reason;
  private final Outcome outcome;
  private final Map<String, String> metadata;
  private final String requestId;
  private final Duration retryDelay;
  private final boolean hasInfo;

  private PassbookException(com.google.rpc.Status status, String requestId, Throwable cause) {
    super(status.getMessage(), cause, false, false);
    ErrorInfo info = infoOf(status);
    this.status = status;
    this.requestId = requestId;
    this.hasInfo = info != null;
    this.reason = info == null ? ErrorReason.ERROR_REASON_UNSPECIFIED : reasonOf(info.getReason());
    this.metadata = info == null ? Map.of() : Map.copyOf(info.getMetadataMap());
    this.outcome = Outcome.of(metadata.getOrDefault(Outcome.KEY, ""));
    this.retryDelay = retryDelayOf(status);
  }

  private PassbookException(PassbookException original, Outcome outcome) {
    super(original.getMessage(), original.getCause(), false, false);
    this.status = withOutcome(original.status, outcome);
    this.requestId = original.requestId;
    this.hasInfo = original.hasInfo;
    this.reason = original.reason;
    this.metadata = hasInfo ? Map.copyOf(infoOf(status).getMetadataMap()) : Map.of();
    this.outcome = outcome;
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
   * GetRequestOutcome and FenceRequest.
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

  /** The status of the last attempt with all details. */
  public com.google.rpc.Status status() {
    return status;
  }

  @Override
  public String toString() {
    String name = reason.name().substring(REASON_PREFIX.length());
    String text = "PassbookException: " + code() + " " + name + ": " + getMessage();
    return outcome == Outcome.NONE
        ? text
        : text + " (request " + requestId + ", outcome " + outcome + ")";
  }

  Duration retryDelay() {
    return retryDelay;
  }

  PassbookException with(Outcome changed) {
    return changed == outcome ? this : new PassbookException(this, changed);
  }

  /** Whether the error is what became of the request: invalid, or rejected by state. */
  boolean isResult() {
    return switch (code()) {
      case INVALID_ARGUMENT, OUT_OF_RANGE, NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION -> true;
      default -> reason == ErrorReason.ERROR_REASON_VERSION_MISMATCH;
    };
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
      if (detail.is(ErrorInfo.class)) {
        ErrorInfo info = unpack(detail, ErrorInfo.class);
        if (info.getDomain().equals(DOMAIN)) {
          return info;
        }
      }
    }
    return null;
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

  private static com.google.rpc.Status withOutcome(com.google.rpc.Status status, Outcome outcome) {
    ErrorInfo info = infoOf(status);
    if (info == null) {
      return status;
    }
    Map<String, String> metadata = new HashMap<>(info.getMetadataMap());
    metadata.remove(Outcome.KEY);
    if (outcome != Outcome.NONE) {
      metadata.put(Outcome.KEY, outcome.toString());
    }
    com.google.rpc.Status.Builder changed = status.toBuilder();
    for (int i = 0; i < changed.getDetailsCount(); i++) {
      if (changed.getDetails(i).is(ErrorInfo.class)) {
        changed.setDetails(
            i, Any.pack(info.toBuilder().clearMetadata().putAllMetadata(metadata).build()));
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
