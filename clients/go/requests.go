package passbook

import (
	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"passbook.example/passbook/passbookv1"
)

// streamed is the request as an element of a stream. Nil: it has no place in a stream.
func streamed(request proto.Message) *passbookv1.StreamedRequest {
	switch request := request.(type) {
	case *passbookv1.DepositRequest:
		return &passbookv1.StreamedRequest{Request: &passbookv1.StreamedRequest_Deposit{Deposit: request}}
	case *passbookv1.WithdrawRequest:
		return &passbookv1.StreamedRequest{Request: &passbookv1.StreamedRequest_Withdraw{Withdraw: request}}
	case *passbookv1.TransferRequest:
		return &passbookv1.StreamedRequest{Request: &passbookv1.StreamedRequest_Transfer{Transfer: request}}
	case *passbookv1.PostTransactionRequest:
		return &passbookv1.StreamedRequest{
			Request: &passbookv1.StreamedRequest_PostTransaction{PostTransaction: request},
		}
	case *passbookv1.ReverseTransactionRequest:
		return &passbookv1.StreamedRequest{
			Request: &passbookv1.StreamedRequest_ReverseTransaction{ReverseTransaction: request},
		}
	case *passbookv1.PlaceHoldRequest:
		return &passbookv1.StreamedRequest{Request: &passbookv1.StreamedRequest_PlaceHold{PlaceHold: request}}
	case *passbookv1.UpdateHoldRequest:
		return &passbookv1.StreamedRequest{Request: &passbookv1.StreamedRequest_UpdateHold{UpdateHold: request}}
	case *passbookv1.CaptureHoldRequest:
		return &passbookv1.StreamedRequest{Request: &passbookv1.StreamedRequest_CaptureHold{CaptureHold: request}}
	case *passbookv1.ReleaseHoldRequest:
		return &passbookv1.StreamedRequest{Request: &passbookv1.StreamedRequest_ReleaseHold{ReleaseHold: request}}
	default:
		return nil
	}
}

// setResult makes the response of a call from its result in a stream.
func setResult(response any, result *passbookv1.StreamedResult) {
	switch response := response.(type) {
	case *passbookv1.DepositResponse:
		response.Transaction, response.Replayed = result.GetTransaction(), result.GetReplayed()
	case *passbookv1.WithdrawResponse:
		response.Transaction, response.Replayed = result.GetTransaction(), result.GetReplayed()
	case *passbookv1.TransferResponse:
		response.Transaction, response.Replayed = result.GetTransaction(), result.GetReplayed()
	case *passbookv1.PostTransactionResponse:
		response.Transaction, response.Replayed = result.GetTransaction(), result.GetReplayed()
	case *passbookv1.ReverseTransactionResponse:
		response.Transaction, response.Replayed = result.GetTransaction(), result.GetReplayed()
	case *passbookv1.PlaceHoldResponse:
		response.Hold, response.Replayed = result.GetHold(), result.GetReplayed()
	case *passbookv1.UpdateHoldResponse:
		response.Hold, response.Replayed = result.GetHold(), result.GetReplayed()
	case *passbookv1.CaptureHoldResponse:
		response.Transaction, response.Hold, response.Replayed =
			result.GetTransaction(), result.GetHold(), result.GetReplayed()
	case *passbookv1.ReleaseHoldResponse:
		response.Hold, response.Replayed = result.GetHold(), result.GetReplayed()
	}
}

// kind says when a request may be repeated, and what its errors say.
type kind int

const (
	// read changes nothing. A repeat is harmless.
	read kind = iota
	// idempotent has an id, and a repeat has no second effect.
	idempotent
	// attributes of an account change without an id. A late repeat could undo what another caller has changed.
	attributes
)

func kindOf(request proto.Message) kind {
	switch request.(type) {
	case *passbookv1.CreateAccountRequest, *passbookv1.BatchCreateAccountsRequest,
		*passbookv1.BatchPostTransactionsRequest, *passbookv1.FenceRequestRequest:
		return idempotent
	case *passbookv1.UpdateAccountRequest, *passbookv1.FreezeAccountRequest, *passbookv1.UnfreezeAccountRequest,
		*passbookv1.CloseAccountRequest:
		return attributes
	}
	if streamed(request) != nil {
		return idempotent
	}
	return read
}

// withIDs is the request with the ids that it lacks. The caller's message stays as it is, so that it can serve
// as the template of another request.
func withIDs(request proto.Message) (proto.Message, error) {
	switch typed := request.(type) {
	case *passbookv1.CreateAccountRequest:
		return withID(request, "account_id")
	case *passbookv1.BatchCreateAccountsRequest:
		complete, err := allWithIDs(typed.GetRequests())
		return &passbookv1.BatchCreateAccountsRequest{Requests: complete}, err
	case *passbookv1.BatchPostTransactionsRequest:
		complete, err := allWithIDs(typed.GetRequests())
		return &passbookv1.BatchPostTransactionsRequest{Requests: complete}, err
	}
	if streamed(request) != nil {
		return withID(request, "request_id")
	}
	return request, nil
}

func allWithIDs[R proto.Message](requests []R) ([]R, error) {
	complete := make([]R, len(requests))
	for i, request := range requests {
		request, err := withIDs(request)
		if err != nil {
			return nil, err
		}
		complete[i] = request.(R)
	}
	return complete, nil
}

func withID(request proto.Message, name protoreflect.Name) (proto.Message, error) {
	field := request.ProtoReflect().Descriptor().Fields().ByName(name)
	if request.ProtoReflect().Has(field) {
		return request, nil
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	complete := proto.Clone(request)
	complete.ProtoReflect().Set(field, protoreflect.ValueOfString(id.String()))
	return complete, nil
}

// checkText is the status of a request that cannot be sent, because a text in it is not valid UTF-8. In a message with
// other requests it would end the stream for all of them. Nil: the request can be sent.
func checkText(request proto.Message) *status.Status {
	if _, err := proto.Marshal(request); err != nil {
		return status.Newf(codes.InvalidArgument, "the request cannot be written: %v", err)
	}
	return nil
}

// idsOf are the ids of the elements of a batch.
func idsOf[R proto.Message](requests []R, idOf func(R) string) []string {
	ids := make([]string, len(requests))
	for i, request := range requests {
		ids[i] = idOf(request)
	}
	return ids
}

// requestID is the id of a request. Empty: it has none.
func requestID(request proto.Message) string {
	if request, has := request.(interface{ GetRequestId() string }); has {
		return request.GetRequestId()
	}
	return ""
}
