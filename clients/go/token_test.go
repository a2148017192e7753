package passbook_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"passbook.example/passbook"
	"passbook.example/passbook/passbookv1"
)

// numberedTokens is a source of the tokens 1, 2, 3 ...
func numberedTokens() passbook.Option {
	var count atomic.Int64
	return passbook.WithTokenSource(func(context.Context) (string, error) {
		return fmt.Sprint(count.Add(1)), nil
	})
}

// The token of each stream expires after one entry. That of the third has expired before.
func TestAWatchSurvivesItsToken(t *testing.T) {
	expired := failure(codes.Unauthenticated, "UNAUTHENTICATED", "")
	var tokens []string
	server := &fake{watch: func(number int, stream passbookv1.AccountService_WatchEntriesServer) error {
		headers, _ := metadata.FromIncomingContext(stream.Context())
		tokens = append(tokens, headers.Get("authorization")...)
		if number < 3 {
			entry := &passbookv1.Entry{Sequence: int64(number)}
			_ = stream.Send(&passbookv1.WatchEntriesResponse{Entries: []*passbookv1.Entry{entry}})
		}
		return expired
	}}
	client := connect(t, start(t, server), numberedTokens())
	var sequences []int64
	var last error
	for entry, err := range client.Watch(t.Context(), "joint", 0) {
		if last = err; err == nil {
			sequences = append(sequences, entry.GetSequence())
		}
	}
	if fmt.Sprint(sequences) != "[1 2]" || status.Code(last) != codes.Unauthenticated {
		t.Errorf("got the entries %v, then %v", sequences, last)
	}
	if fmt.Sprint(tokens) != "[Bearer 1 Bearer 2 Bearer 3]" {
		t.Errorf("the tokens were %v", tokens)
	}
}

// The token of the first stream expires under a request. It has been read, and nobody knows whether it was applied.
func TestASharedStreamSurvivesItsToken(t *testing.T) {
	server := &fake{}
	server.cut = func(request *passbookv1.DepositRequest) error {
		if request.GetRequestId() == "expired" {
			return failure(codes.Unauthenticated, "UNAUTHENTICATED", "")
		}
		return nil
	}
	client := connect(t, start(t, server), numberedTokens())
	for _, id := range []string{"first", "expired", "last"} {
		if _, err := client.Deposit(t.Context(), &passbookv1.DepositRequest{RequestId: id}); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	if server.streams != 2 || fmt.Sprint(server.streamed) != "[first expired last]" {
		t.Errorf("%d streams had %v", server.streams, server.streamed)
	}
}

// Nothing was sent, so the error says so at once, and the next call asks for a token again.
func TestACallWithoutATokenFailsAlone(t *testing.T) {
	inEachMode(t, func(t *testing.T, options []passbook.Option) {
		for _, reason := range []error{
			errors.New("no token"),
			// A status of another service is not that of the server.
			status.Error(codes.Unavailable, "no token"), status.Error(codes.NotFound, "no token"),
		} {
			server := &fake{}
			failing := reason
			source := passbook.WithTokenSource(func(context.Context) (string, error) { return "token", failing })
			client := connect(t, start(t, server), append(options, source)...)
			_, err := client.Deposit(t.Context(), &passbookv1.DepositRequest{})
			var failed *passbook.Error
			if !errors.As(err, &failed) || failed.Code != codes.Unauthenticated ||
				failed.Outcome != passbook.NoOutcome || len(server.deposits) != 0 {
				t.Errorf("%v after %d deposits", err, len(server.deposits))
			}
			failing = nil
			if _, err := client.Deposit(t.Context(), &passbookv1.DepositRequest{}); err != nil {
				t.Error(err)
			}
		}
	})
}

// The function ignores its context. The next call asks again, although it has not returned.
func TestACallDoesNotWaitForItsTokenLongerThanItMay(t *testing.T) {
	inEachMode(t, func(t *testing.T, options []passbook.Option) {
		var takesLong atomic.Bool
		never := make(chan struct{})
		defer close(never)
		source := passbook.WithTokenSource(func(context.Context) (string, error) {
			if takesLong.Load() {
				<-never
			}
			return "token", nil
		})
		const timeout = 300 * time.Millisecond
		server := &fake{}
		client := connect(t, start(t, server), append(options, source, passbook.WithTimeout(timeout))...)
		// Connects, so that the next call waits for nothing but its token.
		connected, end := context.WithTimeout(t.Context(), 10*time.Second)
		defer end()
		if _, err := client.CreateAccount(connected, &passbookv1.CreateAccountRequest{}); err != nil {
			t.Fatal(err)
		}
		takesLong.Store(true)
		begin := time.Now()
		short, end := context.WithTimeout(t.Context(), timeout/2)
		defer end()
		_, err := client.Deposit(short, &passbookv1.DepositRequest{})
		var late *passbook.Error
		if !errors.As(err, &late) || late.Code != codes.DeadlineExceeded || late.Outcome != passbook.NotApplied {
			t.Errorf("a call: %v", err)
		}
		// These have no deadline. The end is that of a test that has failed.
		endless, cancel := context.WithCancel(t.Context())
		defer time.AfterFunc(5*time.Second, cancel).Stop()
		for _, err := range client.Watch(endless, "joint", 0) {
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("a watch: %v", err)
			}
		}
		postings := slices.Values([]*passbookv1.PostTransactionRequest{{}})
		for _, err := range client.PostAll(endless, postings) {
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("a posting: %v", err)
			}
		}
		takesLong.Store(false)
		long, end := context.WithTimeout(t.Context(), 10*time.Second)
		defer end()
		if _, err := client.Deposit(long, &passbookv1.DepositRequest{}); err != nil {
			t.Errorf("the next call: %v", err)
		}
		if took := time.Since(begin); took > 5*time.Second || len(server.deposits) != 1 {
			t.Errorf("%d deposits in %v", len(server.deposits), took)
		}
	})
}
