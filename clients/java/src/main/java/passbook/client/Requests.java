package passbook.client;

import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.Descriptors.FieldDescriptor.JavaType;
import com.google.protobuf.Message;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.util.List;
import java.util.UUID;
import passbook.v1.BatchCreateAccountsRequest;
import passbook.v1.BatchPostTransactionsRequest;
import passbook.v1.CaptureHoldRequest;
import passbook.v1.CaptureHoldResponse;
import passbook.v1.CreateAccountRequest;
import passbook.v1.DepositRequest;
import passbook.v1.DepositResponse;
import passbook.v1.PlaceHoldRequest;
import passbook.v1.PlaceHoldResponse;
import passbook.v1.PostTransactionRequest;
import passbook.v1.PostTransactionResponse;
import passbook.v1.ReleaseHoldRequest;
import passbook.v1.ReleaseHoldResponse;
import passbook.v1.ReverseTransactionRequest;
import passbook.v1.ReverseTransactionResponse;
import passbook.v1.StreamedRequest;
import passbook.v1.StreamedResult;
import passbook.v1.TransferRequest;
import passbook.v1.TransferResponse;
import passbook.v1.UpdateHoldRequest;
import passbook.v1.UpdateHoldResponse;
import passbook.v1.WithdrawRequest;
import passbook.v1.WithdrawResponse;

/** What the client has to know about each method of the contract. */
final class Requests {
  private static final String REQUEST_ID = "request_id";
  private static final String ACCOUNT_ID = "account_id";

  /** When a request may be repeated. */
  enum Kind {
    /** It changes nothing: at any time. */
    READ,
    /** It has an id, and a repeat has no second effect: at any time. */
    IDEMPOTENT,
    /**
     * It changes attributes of an account. A late repeat could undo another change: if it was not
     * applied.
     */
    ATTRIBUTES
  }

  private Requests() {}

  static Kind kindOf(MethodDescriptor<?, ?> method) {
    return switch (String.valueOf(method.getBareMethodName())) {
      case "CreateAccount", "BatchCreateAccounts", "BatchPostTransactions", "FenceRequest" ->
          Kind.IDEMPOTENT;
      case "UpdateAccount", "FreezeAccount", "UnfreezeAccount", "CloseAccount" -> Kind.ATTRIBUTES;
      default -> isStreamed(method) ? Kind.IDEMPOTENT : Kind.READ;
    };
  }

  /** Whether the requests of a method can go by a stream. */
  static boolean isStreamed(MethodDescriptor<?, ?> method) {
    return switch (String.valueOf(method.getBareMethodName())) {
      case "Deposit", "Withdraw", "Transfer", "PostTransaction", "ReverseTransaction" -> true;
      case "PlaceHold", "UpdateHold", "CaptureHold", "ReleaseHold" -> true;
      default -> false;
    };
  }

  static StreamedRequest.Builder streamed(Message request) {
    StreamedRequest.Builder element = StreamedRequest.newBuilder();
    if (request instanceof DepositRequest deposit) {
      return element.setDeposit(deposit);
    } else if (request instanceof WithdrawRequest withdraw) {
      return element.setWithdraw(withdraw);
    } else if (request instanceof TransferRequest transfer) {
      return element.setTransfer(transfer);
    } else if (request instanceof PostTransactionRequest posting) {
      return element.setPostTransaction(posting);
    } else if (request instanceof ReverseTransactionRequest reversal) {
      return element.setReverseTransaction(reversal);
    } else if (request instanceof PlaceHoldRequest hold) {
      return element.setPlaceHold(hold);
    } else if (request instanceof UpdateHoldRequest update) {
      return element.setUpdateHold(update);
    } else if (request instanceof CaptureHoldRequest capture) {
      return element.setCaptureHold(capture);
    } else if (request instanceof ReleaseHoldRequest release) {
      return element.setReleaseHold(release);
    }
    throw new IllegalArgumentException("no request of a stream: " + request.getClass());
  }

  /** The response of a call, from its result in a stream. */
  static Message response(MethodDescriptor<?, ?> method, StreamedResult result) {
    var transaction = result.getTransaction();
    var hold = result.getHold();
    boolean isReplayed = result.getReplayed();
    return switch (String.valueOf(method.getBareMethodName())) {
      case "Deposit" ->
          DepositResponse.newBuilder().setTransaction(transaction).setReplayed(isReplayed).build();
      case "Withdraw" ->
          WithdrawResponse.newBuilder().setTransaction(transaction).setReplayed(isReplayed).build();
      case "Transfer" ->
          TransferResponse.newBuilder().setTransaction(transaction).setReplayed(isReplayed).build();
      case "PostTransaction" ->
          PostTransactionResponse.newBuilder()
              .setTransaction(transaction)
              .setReplayed(isReplayed)
              .build();
      case "ReverseTransaction" ->
          ReverseTransactionResponse.newBuilder()
              .setTransaction(transaction)
              .setReplayed(isReplayed)
              .build();
      case "PlaceHold" ->
          PlaceHoldResponse.newBuilder().setHold(hold).setReplayed(isReplayed).build();
      case "UpdateHold" ->
          UpdateHoldResponse.newBuilder().setHold(hold).setReplayed(isReplayed).build();
      case "CaptureHold" ->
          CaptureHoldResponse.newBuilder()
              .setTransaction(transaction)
              .setHold(hold)
              .setReplayed(isReplayed)
              .build();
      case "ReleaseHold" ->
          ReleaseHoldResponse.newBuilder().setHold(hold).setReplayed(isReplayed).build();
      default ->
          throw new IllegalArgumentException(
              "no request of a stream: " + method.getFullMethodName());
    };
  }

  /** The request with the ids that it lacks. */
  static Message withIds(MethodDescriptor<?, ?> method, Message request) {
    if (request instanceof CreateAccountRequest) {
      return withId(request, ACCOUNT_ID);
    }
    if (request instanceof BatchCreateAccountsRequest batch) {
      var complete = BatchCreateAccountsRequest.newBuilder();
      for (CreateAccountRequest element : batch.getRequestsList()) {
        complete.addRequests((CreateAccountRequest) withId(element, ACCOUNT_ID));
      }
      return complete.build();
    }
    if (request instanceof BatchPostTransactionsRequest batch) {
      var complete = BatchPostTransactionsRequest.newBuilder();
      for (PostTransactionRequest element : batch.getRequestsList()) {
        complete.addRequests((PostTransactionRequest) withId(element, REQUEST_ID));
      }
      return complete.build();
    }
    return isStreamed(method) ? withId(request, REQUEST_ID) : request;
  }

  private static Message withId(Message request, String name) {
    FieldDescriptor field = request.getDescriptorForType().findFieldByName(name);
    if (!request.getField(field).equals("")) {
      return request;
    }
    return request.toBuilder().setField(field, UUID.randomUUID().toString()).build();
  }

  /**
   * The status of a request that cannot be sent, because a text in it has half of a surrogate pair:
   * gRPC would send a question mark in its place, so that two ids could become one. Null: it can be
   * sent.
   */
  static Status textError(Message request) {
    return hasHalfPair(request)
        ? Status.INVALID_ARGUMENT.withDescription("a text has half of a surrogate pair")
        : null;
  }

  private static boolean hasHalfPair(Object part) {
    if (part instanceof String text) {
      return hasHalfPair(text);
    }
    if (!(part instanceof Message message)) {
      return false;
    }
    for (FieldDescriptor field : message.getDescriptorForType().getFields()) {
      JavaType type = field.getJavaType();
      if (type != JavaType.STRING && type != JavaType.MESSAGE) {
        continue;
      }
      if (field.isRepeated()) {
        for (int i = 0; i < message.getRepeatedFieldCount(field); i++) {
          if (hasHalfPair(message.getRepeatedField(field, i))) {
            return true;
          }
        }
      } else if (message.hasField(field) && hasHalfPair(message.getField(field))) {
        return true;
      }
    }
    return false;
  }

  private static boolean hasHalfPair(String text) {
    for (int i = 0; i < text.length(); i++) {
      if (Character.isSurrogate(text.charAt(i))) {
        if (!Character.isSupplementaryCodePoint(text.codePointAt(i))) {
          return true;
        }
        i++; // The other half.
      }
    }
    return false;
  }

  /** The request, if it can be sent. */
  static <M extends Message> M checked(M request) {
    Status error = textError(request);
    if (error != null) {
      throw error.asRuntimeException();
    }
    return request;
  }

  /** The ids in a batch of postings. Empty: the request is none. */
  static List<String> requestIds(Message request) {
    return request instanceof BatchPostTransactionsRequest batch
        ? batch.getRequestsList().stream().map(PostTransactionRequest::getRequestId).toList()
        : List.of();
  }

  /** The ids in a batch of openings. Empty: the request is none. */
  static List<String> accountIds(Message request) {
    return request instanceof BatchCreateAccountsRequest batch
        ? batch.getRequestsList().stream().map(CreateAccountRequest::getAccountId).toList()
        : List.of();
  }

  /** The id of the account that a request opens. Empty: it opens none. */
  static String openedAccountId(Message request) {
    return request instanceof CreateAccountRequest opening ? opening.getAccountId() : "";
  }

  /** The id of a request. Empty: it has none. */
  static String requestId(Message request) {
    FieldDescriptor field = request.getDescriptorForType().findFieldByName(REQUEST_ID);
    return field == null ? "" : (String) request.getField(field);
  }
}
