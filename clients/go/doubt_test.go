package passbook_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"passbook.example/passbook"
	"passbook.example/passbook/passbookv1"
)

var (
	lost = status.Error(codes.Unavailable, "connection lost")
	shed = failure(codes.ResourceExhausted, "OVERLOADED", "not_applied")
	// shedForLong ends a call: the next attempt would come after its deadline.
	shedForLong = failure(codes.ResourceExhausted, "OVERLOADED", "not_applied",
		&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Hour)})
	// tooMuch is an amount that is beyond the limit by itself, tooRich a balance that would be.
	tooMuch = failureWith(codes.OutOfRange, "BALANCE_OUT_OF_RANGE", map[string]string{"field": "amount"})
	tooRich = failureWith(codes.OutOfRange, "BALANCE_OUT_OF_RANGE", map[string]string{"balance": "1.00"})
)

// A lost attempt of a batch may have applied each of its requests, whatever the later attempts say of one.
func TestARequestOfABatchInDoubtStaysInDoubt(t *testing.T) {
	for _, test := range []struct {
		batch, element, alone error
		want                  passbook.Outcome
	}{
		{lost, shed, shedForLong, passbook.Unknown},
		{lost, shed, status.Error(codes.Unauthenticated, "no token"), passbook.Unknown},
		{lost, failure(codes.PermissionDenied, "PERMISSION_DENIED", ""), nil, passbook.Unknown},
		{lost, failure(codes.InvalidArgument, "INVALID_CURRENCY_CODE", ""), nil, passbook.Unknown},
		{lost, tooMuch, nil, passbook.Unknown},
		{lost, tooRich, nil, passbook.NoOutcome},
		{lost, failure(codes.NotFound, "ACCOUNT_NOT_FOUND", ""), nil, passbook.NoOutcome},
		{shed, failure(codes.Unavailable, "DATABASE_UNAVAILABLE", "unknown"), shedForLong, passbook.Unknown},
		{shed, failure(codes.PermissionDenied, "PERMISSION_DENIED", ""), nil, passbook.NoOutcome},
		{shed, shed, shedForLong, passbook.NotApplied},
	} {
		server := &fake{
			post: func(int) error { return test.alone },
			postBatch: func(attempt int) (*passbookv1.BatchPostTransactionsResponse, error) {
				if attempt == 1 {
					return nil, test.batch
				}
				element := &passbookv1.PostTransactionResult_Error{Error: status.Convert(test.element).Proto()}
				return &passbookv1.BatchPostTransactionsResponse{
					Results: []*passbookv1.PostTransactionResult{{Result: element}},
				}, nil
			},
		}
		client := connect(t, start(t, server), passbook.WithUnary())
		response, err := client.BatchPostTransactions(t.Context(), &passbookv1.BatchPostTransactionsRequest{
			Requests: []*passbookv1.PostTransactionRequest{{RequestId: "pay"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		got := passbook.ErrorOf(response.GetResults()[0].GetError(), "pay")
		if got == nil || got.Outcome != test.want {
			t.Errorf("%v, then %v, then %v: got %v, want %v", test.batch, test.element, test.alone, got, test.want)
		}
	}
}

// A server that has shed a batch would shed a crowd of its requests again.
func TestRequestsOfABatchAreRepeatedAfterThePauseAndNotAllAtOnce(t *testing.T) {
	const pause = 300 * time.Millisecond
	element := &passbookv1.PostTransactionResult_Error{Error: status.Convert(
		failure(codes.ResourceExhausted, "OVERLOADED", "not_applied",
			&errdetails.RetryInfo{RetryDelay: durationpb.New(pause)})).Proto()}
	var mutex sync.Mutex
	var batched, first time.Time
	underWay, most := 0, 0
	server := &fake{
		postBatch: func(int) (*passbookv1.BatchPostTransactionsResponse, error) {
			response := &passbookv1.BatchPostTransactionsResponse{}
			for range 200 {
				response.Results = append(response.Results, &passbookv1.PostTransactionResult{Result: element})
			}
			batched = time.Now()
			return response, nil
		},
		post: func(number int) error {
			mutex.Lock()
			underWay++
			most = max(most, underWay)
			if number == 1 {
				first = time.Now()
			}
			mutex.Unlock()
			time.Sleep(50 * time.Millisecond)
			mutex.Lock()
			defer mutex.Unlock()
			underWay--
			return nil
		},
	}
	client := connect(t, start(t, server), passbook.WithUnary())
	batch := &passbookv1.BatchPostTransactionsRequest{}
	for range 200 {
		batch.Requests = append(batch.Requests, &passbookv1.PostTransactionRequest{})
	}
	response, err := client.BatchPostTransactions(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	for _, result := range response.GetResults() {
		if result.GetError() != nil {
			t.Error(result.GetError())
		}
	}
	if took := first.Sub(batched); took < pause || most <= 16 || most > 64 {
		t.Errorf("the first repeat came after %v, and there were %d at a time", took, most)
	}
	// The pause would end after the deadline.
	ctx, end := context.WithTimeout(t.Context(), pause/2)
	defer end()
	response, err = client.BatchPostTransactions(ctx, batch)
	if err != nil {
		t.Fatal(err)
	}
	failure := passbook.ErrorOf(response.GetResults()[199].GetError(), "")
	if failure == nil || failure.Outcome != passbook.NotApplied || ctx.Err() != nil {
		t.Errorf("%v, and the context has %v", failure, ctx.Err())
	}
}

// Its caller has to name the elements, so as to find out what became of each.
func TestTheErrorOfALostBatchHasTheIDsOfItsElements(t *testing.T) {
	lostForLong := failure(codes.Unavailable, "DATABASE_UNAVAILABLE", "unknown",
		&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Hour)})
	server := &fake{openBatch: lostForLong}
	server.postBatch = func(int) (*passbookv1.BatchPostTransactionsResponse, error) { return nil, lostForLong }
	client := connect(t, start(t, server))
	for count, end := range map[int]string{2: ": id-0, id-1)", 12: ", id-8, id-9 and 2 more)"} {
		var ids []string
		postings, openings := &passbookv1.BatchPostTransactionsRequest{}, &passbookv1.BatchCreateAccountsRequest{}
		for i := range count {
			id := fmt.Sprintf("id-%d", i)
			ids = append(ids, id)
			postings.Requests = append(postings.Requests, &passbookv1.PostTransactionRequest{RequestId: id})
			openings.Requests = append(openings.Requests, &passbookv1.CreateAccountRequest{AccountId: id})
		}
		var lost *passbook.Error
		_, err := client.BatchPostTransactions(t.Context(), postings)
		if !errors.As(err, &lost) || lost.Outcome != passbook.Unknown || !slices.Equal(lost.RequestIDs, ids) {
			t.Errorf("%d postings: %+v", count, lost)
		}
		if text := err.Error(); !strings.HasSuffix(text, end) ||
			!strings.Contains(text, fmt.Sprintf("%d requests: id-0, id-1", count)) {
			t.Error(text)
		}
		_, err = client.BatchCreateAccounts(t.Context(), openings)
		if !errors.As(err, &lost) || lost.Outcome != passbook.Unknown || !slices.Equal(lost.AccountIDs, ids) {
			t.Errorf("%d openings: %+v", count, lost)
		}
		if text := err.Error(); !strings.HasSuffix(text, end) ||
			!strings.Contains(text, fmt.Sprintf("%d accounts: id-0, id-1", count)) {
			t.Error(text)
		}
	}
}

// A text that is not valid UTF-8 cannot be written, and would end the stream for all of its callers.
func TestATextThatIsNotUTF8IsAnErrorOfItsCallerOnly(t *testing.T) {
	inEachMode(t, func(t *testing.T, options []passbook.Option) {
		server := &fake{}
		client := connect(t, start(t, server), options...)
		ctx, end := context.WithTimeout(t.Context(), 5*time.Second)
		defer end()
		waiting := make(chan struct{})
		server.deposit = func(_ int, request *passbookv1.DepositRequest) error {
			if request.GetRequestId() == "waits" {
				<-waiting
			}
			return nil
		}
		done := make(chan error)
		go func() {
			_, err := client.Deposit(ctx, &passbookv1.DepositRequest{RequestId: "waits"})
			done <- err
		}()
		bad := string([]byte{'b', 0xff})
		_, err1 := client.Deposit(ctx, &passbookv1.DepositRequest{RequestId: "bad", Description: bad})
		_, err2 := client.Deposit(ctx, &passbookv1.DepositRequest{RequestId: bad})
		_, err3 := client.Deposit(ctx, &passbookv1.DepositRequest{Labels: map[string]string{bad: ""}})
		_, err4 := client.CreateAccount(ctx, &passbookv1.CreateAccountRequest{AccountId: bad})
		_, err5 := client.GetAccount(ctx, &passbookv1.GetAccountRequest{AccountId: bad})
		_, err6 := client.BatchPostTransactions(ctx, &passbookv1.BatchPostTransactionsRequest{
			Requests: []*passbookv1.PostTransactionRequest{{RequestId: "good"}, {RequestId: bad}},
		})
		errs := []error{err1, err2, err3, err4, err5, err6}
		for _, err := range client.Watch(ctx, bad, 0) {
			errs = append(errs, err)
		}
		for i, err := range errs {
			var invalid *passbook.Error
			if !errors.As(err, &invalid) || invalid.Code != codes.InvalidArgument ||
				invalid.Outcome != passbook.NoOutcome {
				t.Errorf("%d: %v", i+1, err)
			}
		}
		close(waiting)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := client.Deposit(ctx, &passbookv1.DepositRequest{RequestId: "last"}); err != nil {
			t.Error(err)
		}
		if len(server.deposits) != 2 || server.streams > 1 {
			t.Errorf("%d deposits by %d streams", len(server.deposits), server.streams)
		}
	})
}

// A stream that ends with a final error may have applied what was sent. The fake has applied it.
func TestARequestOfAStreamThatWasCutIsInDoubt(t *testing.T) {
	denied := failure(codes.PermissionDenied, "PERMISSION_DENIED", "")
	for _, test := range []struct {
		cut, alone error
		// isFirst: the stream has no answer before it is cut.
		isFirst bool
		want    passbook.Outcome
	}{
		{failure(codes.InvalidArgument, "INVALID_REQUESTS", ""), shedForLong, true, passbook.Unknown},
		{failure(codes.InvalidArgument, "INVALID_REQUESTS", ""), denied, false, passbook.Unknown},
		{status.Error(codes.ResourceExhausted, "too large"), shedForLong, true, passbook.Unknown},
		{denied, denied, false, passbook.Unknown},
		// Nothing was applied: the server has not looked at the requests, or says so.
		{denied, denied, true, passbook.NoOutcome},
		{failure(codes.ResourceExhausted, "REQUEST_TOO_LARGE", "not_applied"), shedForLong, true, passbook.NotApplied},
	} {
		server := &fake{
			deposit: func(attempt int, request *passbookv1.DepositRequest) error {
				// The attempt before it was that of the stream.
				if request.GetRequestId() == "cut" && (attempt == 3 || test.isFirst && attempt == 2) {
					return test.alone
				}
				return nil
			},
			cut: func(request *passbookv1.DepositRequest) error {
				if request.GetRequestId() == "cut" {
					return test.cut
				}
				return nil
			},
		}
		client := connect(t, start(t, server))
		if !test.isFirst {
			if _, err := client.Deposit(t.Context(), &passbookv1.DepositRequest{RequestId: "first"}); err != nil {
				t.Fatal(err)
			}
		}
		_, err := client.Deposit(t.Context(), &passbookv1.DepositRequest{RequestId: "cut"})
		var got *passbook.Error
		if !errors.As(err, &got) || got.Outcome != test.want {
			t.Errorf("%v, then %v: got %v, want %v", test.cut, test.alone, err, test.want)
		}
	}
}

// The result of a request with a longer id does not name it, so the caller would wait for it in vain.
func TestARequestWithALongIDGoesAlone(t *testing.T) {
	allowed := strings.Repeat("i", 64)
	server := &fake{deposit: func(_ int, request *passbookv1.DepositRequest) error {
		if request.GetRequestId() == allowed {
			return nil
		}
		return failure(codes.InvalidArgument, "INVALID_REQUEST_ID", "")
	}}
	client := connect(t, start(t, server))
	ctx, end := context.WithTimeout(t.Context(), 5*time.Second)
	defer end()
	if _, err := client.Deposit(ctx, &passbookv1.DepositRequest{RequestId: allowed}); err != nil {
		t.Error(err)
	}
	_, err := client.Deposit(ctx, &passbookv1.DepositRequest{RequestId: allowed + "i"})
	if status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
	if fmt.Sprint(server.streamed) != "["+allowed+"]" {
		t.Errorf("the stream had %v", server.streamed)
	}
}

// After `unknown`, the caller has to name the account, so as not to open a second one.
func TestTheErrorOfAnOpeningHasTheAccountID(t *testing.T) {
	tooLong := &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Hour)}
	for _, last := range []error{
		failure(codes.Unavailable, "DATABASE_UNAVAILABLE", "unknown", tooLong),
		status.Error(codes.Unauthenticated, "no token"),
	} {
		server := &fake{open: last}
		client := connect(t, start(t, server))
		_, err := client.CreateAccount(t.Context(), &passbookv1.CreateAccountRequest{CurrencyCode: "USD"})
		var single *passbook.Error
		if !errors.As(err, &single) || single.AccountID == "" || single.AccountID != server.openings[0] {
			t.Errorf("%+v, but opened %v", single, server.openings)
		}
		if single.Outcome == passbook.Unknown && !strings.Contains(err.Error(), single.AccountID) {
			t.Error(err)
		}
		response, err := client.BatchCreateAccounts(t.Context(), &passbookv1.BatchCreateAccountsRequest{
			Requests: []*passbookv1.CreateAccountRequest{{CurrencyCode: "USD"}, {CurrencyCode: "USD"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		element := passbook.ErrorOf(response.GetResults()[1].GetError(), "")
		if element == nil || element.AccountID != server.openings[2] || element.Outcome != single.Outcome {
			t.Errorf("%+v, but opened %v", element, server.openings)
		}
	}
}
