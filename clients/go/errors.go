package passbook

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"passbook.example/passbook/passbookv1"
)

// errorDomain is the domain of the ErrorInfo in Passbook's errors.
const errorDomain = "passbook"

// The keys of the metadata that matter for all reasons.
const (
	outcomeKey   = "outcome"
	accountIDKey = "account_id"
	// fieldKey is there if a field is invalid by itself.
	fieldKey = "field"
)

// idsInTextMax bounds the ids of a batch in the text of its error.
const idsInTextMax = 10

// Outcome says what became of a request that has no result.
type Outcome int

const (
	// NoOutcome: the error is final, and nothing was applied; or the call was a read.
	NoOutcome Outcome = iota
	// NotApplied: the request was not applied, and no attempt of the call ever will be.
	NotApplied
	// Unknown: the request was applied or it was not. Repeat the call under the same id to find out.
	Unknown
)

// String is the outcome as the contract writes it.
func (o Outcome) String() string {
	switch o {
	case NotApplied:
		return "not_applied"
	case Unknown:
		return "unknown"
	default:
		return "none"
	}
}

// Error is the error of a call. Use [errors.As] to get it. errors.Is(err, context.DeadlineExceeded) and
// errors.Is(err, context.Canceled) hold as well.
type Error struct {
	// Code is the gRPC code.
	Code codes.Code
	// Reason is from the list of the contract. Unspecified: the error is gRPC's own, or newer than this client.
	Reason passbookv1.ErrorReason
	// Outcome is that of all attempts of the call.
	Outcome Outcome
	// Metadata belongs to the reason: the available amount of INSUFFICIENT_FUNDS, for example.
	Metadata map[string]string
	// Message is for developers.
	Message string
	// RequestID is the id of the request, also if the client made it. Empty: the call has none.
	RequestID string
	// AccountID is the id of the account that CreateAccount was to open, also if the client made it. In other errors
	// it is the account in the metadata, if there is one.
	AccountID string
	// RequestIDs are the ids in a BatchPostTransactions that has failed as a whole. Each has this outcome.
	RequestIDs []string
	// AccountIDs are the ids in a BatchCreateAccounts that has failed as a whole. Each has this outcome.
	AccountIDs []string

	// hasInfo: the error is one of Passbook, not gRPC's own.
	hasInfo bool
	// retryDelay is how long the server asks to wait before the next attempt.
	retryDelay time.Duration
	status     *status.Status
}

// ErrorOf is the error in a result of BatchPostTransactions or BatchCreateAccounts, or in a response of
// GetRequestOutcome and FenceRequest. The result of an opening has no request id, but an AccountID. Of nil it is nil.
func ErrorOf(result *statuspb.Status, requestID string) *Error {
	if result == nil {
		return nil
	}
	failure := newError(status.FromProto(result), requestID)
	if failure.Outcome == NoOutcome && !failure.isResult() && !failure.isDenied() {
		failure.Outcome = Unknown
	}
	return failure
}

// Error has the code, the reason, the message, and what became of the request.
func (e *Error) Error() string {
	text := "passbook: " + e.Code.String()
	if e.Reason != passbookv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		text += " " + reasonName(e.Reason)
	}
	text += ": " + e.Message
	switch {
	case e.Outcome == NoOutcome:
		return text
	case len(e.RequestIDs) > 0:
		return text + fmt.Sprintf(" (outcome %s, %s)", e.Outcome, listOf("requests", e.RequestIDs))
	case len(e.AccountIDs) > 0:
		return text + fmt.Sprintf(" (outcome %s, %s)", e.Outcome, listOf("accounts", e.AccountIDs))
	case e.RequestID == "" && e.AccountID != "":
		return text + fmt.Sprintf(" (account %s, outcome %s)", e.AccountID, e.Outcome)
	default:
		return text + fmt.Sprintf(" (request %s, outcome %s)", e.RequestID, e.Outcome)
	}
}

// listOf is the number of the ids, the first ones, and how many more there are.
func listOf(name string, ids []string) string {
	first := ids[:min(len(ids), idsInTextMax)]
	text := fmt.Sprintf("%d %s: %s", len(ids), name, strings.Join(first, ", "))
	if more := len(ids) - len(first); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// GRPCStatus is the status of the last attempt, with all details. The functions of the package status use it.
func (e *Error) GRPCStatus() *status.Status {
	return e.status
}

// Is makes an error of a call whose time was up equal to that of its context.
func (e *Error) Is(target error) bool {
	switch target {
	case context.DeadlineExceeded:
		return e.Code == codes.DeadlineExceeded
	case context.Canceled:
		return e.Code == codes.Canceled
	default:
		return false
	}
}

const reasonPrefix = "ERROR_REASON_"

func reasonName(reason passbookv1.ErrorReason) string {
	return reason.String()[len(reasonPrefix):]
}

func newError(from *status.Status, requestID string) *Error {
	failure := &Error{Code: from.Code(), Message: from.Message(), RequestID: requestID, status: from}
	for _, detail := range from.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() != errorDomain {
				continue
			}
			failure.hasInfo = true
			number := passbookv1.ErrorReason_value[reasonPrefix+detail.GetReason()]
			failure.Reason = passbookv1.ErrorReason(number)
			failure.Metadata = detail.GetMetadata()
		case *errdetails.RetryInfo:
			failure.retryDelay = detail.GetRetryDelay().AsDuration()
		}
	}
	failure.AccountID = failure.Metadata[accountIDKey]
	switch failure.Metadata[outcomeKey] {
	case NotApplied.String():
		failure.Outcome = NotApplied
	case Unknown.String():
		failure.Outcome = Unknown
	}
	return failure
}

// unapplied is the error of an attempt that has sent nothing.
func unapplied(from *status.Status) error {
	failure := newError(from, "")
	failure.setOutcome(NotApplied)
	return failure.status.Err()
}

// isResult says that the error is what became of the request: invalid, or rejected by state.
func (e *Error) isResult() bool {
	switch e.Code {
	case codes.InvalidArgument, codes.OutOfRange, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition:
		return true
	}
	return e.Reason == passbookv1.ErrorReason_ERROR_REASON_VERSION_MISMATCH
}

// isInvalid says that the server did not look for the record of the request: what is valid depends on its settings,
// such as its currencies. An amount and a time can be out of range by themselves: then the error names their field.
// Whatever outcome the error has is that of the last attempt.
func (e *Error) isInvalid() bool {
	if e.Code == codes.OutOfRange {
		_, isOfField := e.Metadata[fieldKey]
		return isOfField
	}
	return e.Code == codes.InvalidArgument && e.Reason != passbookv1.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED
}

// isDenied says that the server did not look at the request.
func (e *Error) isDenied() bool {
	switch e.Code {
	case codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented:
		return true
	}
	return false
}

// isFinal says that another attempt would end in the same way.
func (e *Error) isFinal() bool {
	switch e.Reason {
	case passbookv1.ErrorReason_ERROR_REASON_REQUEST_TOO_LARGE,
		passbookv1.ErrorReason_ERROR_REASON_RESPONSE_TOO_LARGE:
		return true
	}
	isLimitOfLibrary := e.Code == codes.ResourceExhausted && !e.hasInfo
	return e.isResult() || e.isDenied() || isLimitOfLibrary
}

// setOutcome changes the outcome, also in the status.
func (e *Error) setOutcome(outcome Outcome) {
	if e.Outcome != outcome {
		e.Outcome = outcome
		e.setMetadata(outcomeKey, outcome.String())
	}
}

// setMetadata changes an element of the metadata, also in the status. An error without ErrorInfo, such as one of gRPC
// itself, gets one, because the results of a batch have nothing but their status.
func (e *Error) setMetadata(key, value string) {
	info := &errdetails.ErrorInfo{Domain: errorDomain, Reason: reasonName(e.Reason)}
	detail := &anypb.Any{}
	changed := e.status.Proto()
	for _, candidate := range changed.GetDetails() {
		found := &errdetails.ErrorInfo{}
		if candidate.UnmarshalTo(found) == nil && found.GetDomain() == errorDomain {
			info, detail = found, candidate
		}
	}
	if detail.GetTypeUrl() == "" {
		changed.Details = append(changed.Details, detail)
	}
	metadata := map[string]string{}
	maps.Copy(metadata, info.GetMetadata())
	metadata[key] = value
	info.Metadata = metadata
	_ = detail.MarshalFrom(info) // A message that was just read can be written.
	e.Metadata, e.status = metadata, status.FromProto(changed)
	e.AccountID = metadata[accountIDKey]
}
