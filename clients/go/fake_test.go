package passbook_test

import (
	"context"
	"net"
	"sync"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"passbook.example/passbook"
	"passbook.example/passbook/passbookv1"
)

// fake is a server that answers a deposit with what the test says. It takes deposits by calls and by streams.
type fake struct {
	passbookv1.UnimplementedAccountServiceServer
	// deposit gets the number of the attempt, from 1.
	deposit func(attempt int, request *passbookv1.DepositRequest) error
	// cut ends the stream with an error after it has applied this deposit. Nil: it goes on.
	cut func(request *passbookv1.DepositRequest) error
	// hasNoStream makes it a server that does not know `requests`.
	hasNoStream bool
	// post and postBatch get the number of the attempt, from 1.
	post      func(attempt int) error
	postBatch func(attempt int) (*passbookv1.BatchPostTransactionsResponse, error)
	// open is the error of an opening that is no part of a batch, and openBatch that of a whole batch.
	open      error
	openBatch error
	// watch answers a watch of entries. It gets the number of the stream, from 1. Nil: see WatchEntries.
	watch func(number int, stream passbookv1.AccountService_WatchEntriesServer) error

	mutex    sync.Mutex
	deposits []*passbookv1.DepositRequest
	streamed []string
	streams  int
	freezes  int
	postings int
	batches  int
	watches  []int64
	openings []string
	starts   []string
}

func (f *fake) Deposit(
	_ context.Context, request *passbookv1.DepositRequest,
) (*passbookv1.DepositResponse, error) {
	f.mutex.Lock()
	f.deposits = append(f.deposits, request)
	attempt := len(f.deposits)
	f.mutex.Unlock()
	if f.deposit != nil {
		if err := f.deposit(attempt, request); err != nil {
			return nil, err
		}
	}
	return &passbookv1.DepositResponse{
		Transaction: &passbookv1.Transaction{RequestId: request.GetRequestId()},
	}, nil
}

func (f *fake) StreamTransactions(stream passbookv1.AccountService_StreamTransactionsServer) error {
	f.mutex.Lock()
	f.streams++
	f.mutex.Unlock()
	var sending sync.Mutex
	for {
		message, err := stream.Recv()
		if err != nil {
			return nil
		}
		if f.hasNoStream {
			_ = stream.Send(&passbookv1.StreamTransactionsResponse{Result: &passbookv1.PostTransactionResult{}})
			continue
		}
		for _, element := range message.GetRequests() {
			f.mutex.Lock()
			f.streamed = append(f.streamed, element.GetDeposit().GetRequestId()+element.GetPostTransaction().GetRequestId())
			f.mutex.Unlock()
			if posting := element.GetPostTransaction(); posting != nil {
				f.answer(stream, &sending, &passbookv1.StreamedResult{RequestId: posting.GetRequestId()})
				continue
			}
			if f.cut != nil {
				if err := f.cut(element.GetDeposit()); err != nil {
					_, _ = f.Deposit(stream.Context(), element.GetDeposit())
					return err
				}
			}
			go func() {
				response, err := f.Deposit(stream.Context(), element.GetDeposit())
				result := &passbookv1.StreamedResult{
					RequestId:   element.GetDeposit().GetRequestId(),
					Transaction: response.GetTransaction(),
				}
				if len(result.RequestId) > 64 {
					result.RequestId = "" // As a server does.
				}
				if err != nil {
					result.Error = status.Convert(err).Proto()
				}
				f.answer(stream, &sending, result)
			}()
		}
	}
}

func (f *fake) answer(
	stream passbookv1.AccountService_StreamTransactionsServer, sending *sync.Mutex, result *passbookv1.StreamedResult,
) {
	sending.Lock()
	defer sending.Unlock()
	_ = stream.Send(&passbookv1.StreamTransactionsResponse{Results: []*passbookv1.StreamedResult{result}})
}

func (f *fake) PostTransaction(
	context.Context, *passbookv1.PostTransactionRequest,
) (*passbookv1.PostTransactionResponse, error) {
	f.mutex.Lock()
	f.postings++
	number := f.postings
	f.mutex.Unlock()
	if err := f.post(number); err != nil {
		return nil, err
	}
	return &passbookv1.PostTransactionResponse{}, nil
}

func (f *fake) BatchPostTransactions(
	context.Context, *passbookv1.BatchPostTransactionsRequest,
) (*passbookv1.BatchPostTransactionsResponse, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.batches++
	return f.postBatch(f.batches)
}

func (f *fake) FreezeAccount(
	context.Context, *passbookv1.FreezeAccountRequest,
) (*passbookv1.FreezeAccountResponse, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.freezes++
	return nil, failure(codes.Unavailable, "DATABASE_UNAVAILABLE", "unknown")
}

// BatchCreateAccounts opens the first account and sheds the others.
func (f *fake) BatchCreateAccounts(
	_ context.Context, batch *passbookv1.BatchCreateAccountsRequest,
) (*passbookv1.BatchCreateAccountsResponse, error) {
	if f.openBatch != nil {
		return nil, f.openBatch
	}
	response := &passbookv1.BatchCreateAccountsResponse{}
	for i, request := range batch.GetRequests() {
		f.openings = append(f.openings, request.GetAccountId())
		result := &passbookv1.CreateAccountResult{}
		if i == 0 {
			account := &passbookv1.Account{AccountId: request.GetAccountId()}
			result.Result = &passbookv1.CreateAccountResult_Account{Account: account}
		} else {
			shed := status.Convert(failure(codes.ResourceExhausted, "OVERLOADED", "not_applied")).Proto()
			result.Result = &passbookv1.CreateAccountResult_Error{Error: shed}
		}
		response.Results = append(response.Results, result)
	}
	return response, nil
}

func (f *fake) CreateAccount(
	_ context.Context, request *passbookv1.CreateAccountRequest,
) (*passbookv1.CreateAccountResponse, error) {
	f.openings = append(f.openings, request.GetAccountId())
	if f.open != nil {
		return nil, f.open
	}
	account := &passbookv1.Account{AccountId: request.GetAccountId()}
	return &passbookv1.CreateAccountResponse{Account: account}, nil
}

// WatchEntries sends two entries and breaks off, unless the test says otherwise.
func (f *fake) WatchEntries(
	request *passbookv1.WatchEntriesRequest, stream passbookv1.AccountService_WatchEntriesServer,
) error {
	f.mutex.Lock()
	f.watches = append(f.watches, request.GetAfterSequence())
	number := len(f.watches)
	f.mutex.Unlock()
	if f.watch != nil {
		return f.watch(number, stream)
	}
	entries := []*passbookv1.Entry{
		{Sequence: request.GetAfterSequence() + 1}, {Sequence: request.GetAfterSequence() + 2},
	}
	if err := stream.Send(&passbookv1.WatchEntriesResponse{Entries: entries}); err != nil {
		return err
	}
	return failure(codes.Unavailable, "SHUTTING_DOWN", "")
}

// WatchEvents sends one message and breaks off. Its token has one sign more than that of the request.
func (f *fake) WatchEvents(
	request *passbookv1.WatchEventsRequest, stream passbookv1.AccountService_WatchEventsServer,
) error {
	f.mutex.Lock()
	f.starts = append(f.starts, request.GetCurrencyCode()+":"+request.GetAfterToken())
	f.mutex.Unlock()
	if err := stream.Send(&passbookv1.WatchEventsResponse{Token: request.GetAfterToken() + "+"}); err != nil {
		return err
	}
	return failure(codes.Unavailable, "SHUTTING_DOWN", "")
}

// failure is an error as a server makes it.
func failure(code codes.Code, reason, outcome string, details ...protoadapt.MessageV1) error {
	metadata := map[string]string{}
	if outcome != "" {
		metadata["outcome"] = outcome
	}
	return failureWith(code, reason, metadata, details...)
}

func failureWith(
	code codes.Code, reason string, metadata map[string]string, details ...protoadapt.MessageV1,
) error {
	info := &errdetails.ErrorInfo{Domain: "passbook", Reason: reason, Metadata: metadata}
	made, err := status.New(code, "a test").WithDetails(append(details, info)...)
	if err != nil {
		panic(err)
	}
	return made.Err()
}

// start runs the fake until the end of the test, and returns its address.
func start(t *testing.T, f *fake, options ...grpc.ServerOption) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	passbookv1.RegisterAccountServiceServer(server, f)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

// connect makes a client until the end of the test.
func connect(t *testing.T, address string, options ...passbook.Option) *passbook.Client {
	t.Helper()
	client, err := passbook.New([]string{address}, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}
