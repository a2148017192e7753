package passbook_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"passbook.example/passbook"
	"passbook.example/passbook/passbookv1"
)

// modes are the two ways in which a request reaches a server.
var modes = map[string][]passbook.Option{"stream": nil, "unary": {passbook.WithUnary()}}

func inEachMode(t *testing.T, test func(t *testing.T, options []passbook.Option)) {
	t.Helper()
	for name, options := range modes {
		t.Run(name, func(t *testing.T) { test(t, options) })
	}
}

func TestAllAttemptsHaveOneID(t *testing.T) {
	inEachMode(t, func(t *testing.T, options []passbook.Option) {
		server := &fake{deposit: func(attempt int, _ *passbookv1.DepositRequest) error {
			if attempt < 3 {
				return failure(codes.Unavailable, "DATABASE_UNAVAILABLE", "unknown")
			}
			return nil
		}}
		client := connect(t, start(t, server), options...)
		request := &passbookv1.DepositRequest{AccountId: "joint"}
		response, err := client.Deposit(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		id := response.GetTransaction().GetRequestId()
		if id == "" || request.GetRequestId() != "" {
			t.Errorf("made the id %q, and left %q in the caller's request", id, request.GetRequestId())
		}
		for _, deposit := range server.deposits {
			if deposit.GetRequestId() != id {
				t.Errorf("an attempt has the id %q, the result %q", deposit.GetRequestId(), id)
			}
		}
		if len(server.deposits) != 3 {
			t.Errorf("%d attempts", len(server.deposits))
		}
		if usesStream := server.streams > 0; usesStream != (len(options) == 0) {
			t.Errorf("%d streams", server.streams)
		}
	})
}

func TestAResultIsNotRepeated(t *testing.T) {
	inEachMode(t, func(t *testing.T, options []passbook.Option) {
		server := &fake{deposit: func(int, *passbookv1.DepositRequest) error {
			return failure(codes.FailedPrecondition, "ACCOUNT_CLOSED", "")
		}}
		client := connect(t, start(t, server), options...)
		_, err := client.Deposit(t.Context(), &passbookv1.DepositRequest{RequestId: "one"})
		var rejection *passbook.Error
		if !errors.As(err, &rejection) {
			t.Fatalf("%v is no *Error", err)
		}
		isRight := rejection.Code == codes.FailedPrecondition &&
			rejection.Reason == passbookv1.ErrorReason_ERROR_REASON_ACCOUNT_CLOSED &&
			rejection.Outcome == passbook.NoOutcome && rejection.RequestID == "one"
		if !isRight || len(server.deposits) != 1 || status.Code(err) != codes.FailedPrecondition {
			t.Errorf("%+v after %d attempts", rejection, len(server.deposits))
		}
	})
}

// An attempt with an unknown outcome makes that of the call unknown, whatever the last attempt says.
func TestTheOutcomeIsThatOfAllAttempts(t *testing.T) {
	tooLong := &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Hour)}
	for _, test := range []struct {
		first, last error
		want        passbook.Outcome
	}{
		{nil, failure(codes.Aborted, "LOCK_TIMEOUT", "not_applied", tooLong), passbook.NotApplied},
		{nil, failure(codes.Unavailable, "DATABASE_UNAVAILABLE", "unknown", tooLong), passbook.Unknown},
		{
			failure(codes.Unavailable, "DATABASE_UNAVAILABLE", "unknown"),
			failure(codes.Aborted, "LOCK_TIMEOUT", "not_applied", tooLong), passbook.Unknown,
		},
		{
			status.Error(codes.Unavailable, "connection lost"),
			failure(codes.Unauthenticated, "UNAUTHENTICATED", ""), passbook.Unknown,
		},
		{
			status.Error(codes.Unavailable, "connection lost"),
			failure(codes.NotFound, "ACCOUNT_NOT_FOUND", ""), passbook.NoOutcome,
		},
		// What is invalid to one server may have been applied by another one, with other settings.
		{nil, failure(codes.InvalidArgument, "INVALID_CURRENCY_CODE", ""), passbook.NoOutcome},
		{
			failure(codes.Aborted, "LOCK_TIMEOUT", "not_applied"),
			failure(codes.InvalidArgument, "INVALID_CURRENCY_CODE", ""), passbook.NoOutcome,
		},
		{
			status.Error(codes.Unavailable, "connection lost"),
			failure(codes.InvalidArgument, "INVALID_CURRENCY_CODE", ""), passbook.Unknown,
		},
		{
			status.Error(codes.Unavailable, "connection lost"),
			failure(codes.InvalidArgument, "REQUEST_ID_REUSED", ""), passbook.NoOutcome,
		},
		{nil, tooMuch, passbook.NoOutcome},
		{status.Error(codes.Unavailable, "connection lost"), tooMuch, passbook.Unknown},
		{
			status.Error(codes.Unavailable, "connection lost"),
			// The outcome is that of the last attempt. The error does not say that the server has looked.
			failureWith(codes.OutOfRange, "BALANCE_OUT_OF_RANGE", map[string]string{
				"field": "amount", "outcome": "not_applied",
			}), passbook.Unknown,
		},
		{status.Error(codes.Unavailable, "connection lost"), tooRich, passbook.NoOutcome},
		// Without ErrorInfo, as from a proxy.
		{
			status.Error(codes.Unavailable, "connection lost"),
			status.Error(codes.Unauthenticated, "no token"), passbook.Unknown,
		},
	} {
		inEachMode(t, func(t *testing.T, options []passbook.Option) {
			server := &fake{deposit: func(attempt int, _ *passbookv1.DepositRequest) error {
				if attempt == 1 && test.first != nil {
					return test.first
				}
				return test.last
			}}
			client := connect(t, start(t, server), options...)
			_, err := client.Deposit(t.Context(), &passbookv1.DepositRequest{})
			var failed *passbook.Error
			if !errors.As(err, &failed) || failed.Outcome != test.want || failed.RequestID == "" {
				t.Errorf("%v, then %v: the outcome is %v, want %v", test.first, test.last, failed, test.want)
			}
			if again := passbook.ErrorOf(failed.GRPCStatus().Proto(), ""); again.Outcome != test.want {
				t.Errorf("the status says %v, want %v", again.Outcome, test.want)
			}
		})
	}
}

func TestTheDeadlineAndTheCancellationAreThoseOfEachCall(t *testing.T) {
	inEachMode(t, func(t *testing.T, options []passbook.Option) {
		release := make(chan struct{})
		arrived := make(chan struct{}, 2)
		server := &fake{deposit: func(_ int, request *passbookv1.DepositRequest) error {
			if request.GetRequestId() == "quick" {
				return nil
			}
			arrived <- struct{}{}
			<-release
			return nil
		}}
		client := connect(t, start(t, server), options...)
		defer close(release)

		canceled, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() {
			_, err := client.Deposit(canceled, &passbookv1.DepositRequest{RequestId: "canceled"})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("canceled: %v", err)
			}
		})
		<-arrived
		short, end := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer end()
		_, err := client.Deposit(short, &passbookv1.DepositRequest{RequestId: "late"})
		var failed *passbook.Error
		if !errors.As(err, &failed) || failed.Outcome != passbook.Unknown ||
			!errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("deadline: %v", err)
		}
		if _, err := client.Deposit(t.Context(), &passbookv1.DepositRequest{RequestId: "quick"}); err != nil {
			t.Errorf("beside two that wait: %v", err)
		}
		cancel()
		group.Wait()
	})
}

// The late result of the first call must not pass for that of the repeat.
func TestARepeatBeforeTheFirstResultGoesAlone(t *testing.T) {
	release := make(chan struct{})
	server := &fake{deposit: func(attempt int, _ *passbookv1.DepositRequest) error {
		if attempt == 1 {
			<-release
			return failure(codes.DeadlineExceeded, "DEADLINE_EXCEEDED", "not_applied")
		}
		return nil
	}}
	client := connect(t, start(t, server))
	defer close(release)
	request := &passbookv1.DepositRequest{RequestId: "late"}
	short, end := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer end()
	if _, err := client.Deposit(short, request); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the first call: %v", err)
	}
	if _, err := client.Deposit(t.Context(), request); err != nil {
		t.Errorf("the repeat: %v", err)
	}
	if fmt.Sprint(server.streamed) != "[late]" {
		t.Errorf("the stream had %v", server.streamed)
	}
}

func TestConcurrentCallsShareAStream(t *testing.T) {
	server := &fake{}
	client := connect(t, start(t, server))
	var group sync.WaitGroup
	for i := range 300 {
		group.Go(func() {
			id := fmt.Sprintf("id-%d", i)
			response, err := client.Deposit(t.Context(), &passbookv1.DepositRequest{RequestId: id})
			if got := response.GetTransaction().GetRequestId(); err != nil || got != id {
				t.Errorf("%s got the result of %q: %v", id, got, err)
			}
		})
	}
	group.Wait()
	if server.streams != 1 {
		t.Errorf("%d streams", server.streams)
	}
}

func TestAServerWithoutTheStreamGetsCalls(t *testing.T) {
	server := &fake{hasNoStream: true}
	client := connect(t, start(t, server))
	for range 2 {
		if _, err := client.Deposit(t.Context(), &passbookv1.DepositRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if server.streams != 1 || len(server.deposits) != 2 {
		t.Errorf("%d streams, %d deposits", server.streams, len(server.deposits))
	}
}

func TestAChangeWithoutAnIDIsNotRepeatedAfterUnknown(t *testing.T) {
	server := &fake{}
	client := connect(t, start(t, server))
	_, err := client.FreezeAccount(t.Context(), &passbookv1.FreezeAccountRequest{AccountId: "joint"})
	var failed *passbook.Error
	if !errors.As(err, &failed) || failed.Outcome != passbook.Unknown || server.freezes != 1 {
		t.Errorf("%v after %d attempts", err, server.freezes)
	}
}

// The two ids of the batch are those of the caller and of the client. The second account is shed once.
func TestAnOpeningOfABatchWithoutAResultIsRepeatedAlone(t *testing.T) {
	server := &fake{}
	client := connect(t, start(t, server))
	batch := &passbookv1.BatchCreateAccountsRequest{Requests: []*passbookv1.CreateAccountRequest{
		{AccountId: "joint", CurrencyCode: "USD"}, {CurrencyCode: "USD"},
	}}
	response, err := client.BatchCreateAccounts(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	first, second := response.GetResults()[0].GetAccount(), response.GetResults()[1].GetAccount()
	if first.GetAccountId() != "joint" || second.GetAccountId() == "" {
		t.Errorf("opened %v and %v", first, second)
	}
	if fmt.Sprint(server.openings) != fmt.Sprintf("[joint %s %s]", second.GetAccountId(), second.GetAccountId()) {
		t.Errorf("the server was asked for %v", server.openings)
	}
}

// The kernel accepts connections to the other server, which never says a word.
func TestCallsGoToTheServersToWhichThereIsAConnection(t *testing.T) {
	hung, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hung.Close()
	client, err := passbook.New([]string{start(t, &fake{}), hung.Addr().String()},
		passbook.WithUnary(), passbook.WithTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	// The first call may go to the other server, and opens both connections.
	_, _ = client.Deposit(t.Context(), &passbookv1.DepositRequest{})
	for range 6 {
		if _, err := client.Deposit(t.Context(), &passbookv1.DepositRequest{}); err != nil {
			t.Error(err)
		}
	}
}

func TestAWatchResumesWhereItWasCut(t *testing.T) {
	server := &fake{}
	client := connect(t, start(t, server))
	want := int64(0)
	for entry, err := range client.Watch(t.Context(), "joint", 0) {
		if err != nil {
			t.Fatal(err)
		}
		if want++; entry.GetSequence() != want {
			t.Fatalf("got the entry %d, want %d", entry.GetSequence(), want)
		}
		if want == 3 {
			break
		}
	}
	if fmt.Sprint(server.watches) != "[0 2]" {
		t.Errorf("watched after %v", server.watches)
	}
}

func TestACloseEndsWatchesAndCalls(t *testing.T) {
	inEachMode(t, func(t *testing.T, options []passbook.Option) {
		server := &fake{
			deposit: func(int, *passbookv1.DepositRequest) error {
				return failure(codes.Aborted, "CONTENTION", "not_applied")
			},
			watch: func(_ int, stream passbookv1.AccountService_WatchEntriesServer) error {
				_ = stream.Send(&passbookv1.WatchEntriesResponse{Entries: []*passbookv1.Entry{{}}})
				<-stream.Context().Done()
				return nil
			},
		}
		client := connect(t, start(t, server), options...)
		called := make(chan error)
		go func() {
			_, err := client.Deposit(t.Context(), &passbookv1.DepositRequest{RequestId: "pay"})
			called <- err
		}()
		var ended []error
		for _, err := range client.Watch(t.Context(), "joint", 0) {
			if err == nil {
				time.Sleep(200 * time.Millisecond)
				_ = client.Close()
			} else {
				ended = append(ended, err)
			}
		}
		ended = append(ended, <-called)
		_, err := client.Deposit(t.Context(), &passbookv1.DepositRequest{RequestId: "late"})
		for _, err := range append(ended, err) {
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		// Nothing was sent.
		var late *passbook.Error
		if !errors.As(err, &late) || late.Outcome != passbook.NotApplied {
			t.Error(err)
		}
	})
}

func TestEventsResumeAfterTheLastToken(t *testing.T) {
	server := &fake{}
	client := connect(t, start(t, server))
	request := &passbookv1.WatchEventsRequest{
		CurrencyCode: "USD", Start: &passbookv1.WatchEventsRequest_FromBeginning{},
	}
	var tokens []string
	for message, err := range client.Events(t.Context(), request) {
		if err != nil {
			t.Fatal(err)
		}
		if tokens = append(tokens, message.GetToken()); len(tokens) == 3 {
			break
		}
	}
	if fmt.Sprint(tokens) != "[+ ++ +++]" || fmt.Sprint(server.starts) != "[USD: USD:+ USD:++]" {
		t.Errorf("got the tokens %v, asked %v", tokens, server.starts)
	}
	if request.GetAfterToken() != "" {
		t.Errorf("the caller's request has changed: %v", request)
	}
}

func TestAmountsKeepEveryDecimal(t *testing.T) {
	for _, text := range []string{"12345678901234567890123.45", "-0.01", "100", "0.1"} {
		money := passbook.Money(decimal.RequireFromString(text), "USD")
		amount, err := passbook.Amount(money)
		if err != nil || money.GetValue() != text || amount.String() != text {
			t.Errorf("%s: sent as %q, read as %v (%v)", text, money.GetValue(), amount, err)
		}
	}
	for text, sent := range map[string]string{"100.000": "100", "-0.50": "-0.5", "0.00": "0", "1e3": "1000"} {
		if value := passbook.Money(decimal.RequireFromString(text), "USD").GetValue(); value != sent {
			t.Errorf("%s is sent as %s", text, value)
		}
	}
	sum := decimal.Zero
	for range 10 {
		sum = sum.Add(decimal.RequireFromString("0.1"))
	}
	if value := passbook.Money(sum, "USD").GetValue(); value != "1" {
		t.Errorf("ten times 0.1 is %s", value)
	}
	if _, err := passbook.Amount(nil); err == nil {
		t.Error("no amount is an amount")
	}
}

func TestATokenNeedsTLSOnTheWayToAnotherMachine(t *testing.T) {
	_, err := passbook.New([]string{"203.0.113.1:50051"}, passbook.WithToken("secret"))
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
}

func TestTheVersionIsThatOfTheServer(t *testing.T) {
	manifest, err := os.ReadFile("../../Cargo.toml")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("\nversion = %q\n", passbook.Version); !strings.Contains(string(manifest), want) {
		t.Errorf("Cargo.toml has no line %s", want)
	}
}
