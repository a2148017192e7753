package passbook_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"

	"passbook.example/passbook"
	"passbook.example/passbook/passbookv1"
)

// postings are requests with the ids 1 to count. atEnd is called after the last one.
func postings(count int, atEnd func()) func(func(*passbookv1.PostTransactionRequest) bool) {
	return func(yield func(*passbookv1.PostTransactionRequest) bool) {
		for number := 1; number <= count; number++ {
			if !yield(&passbookv1.PostTransactionRequest{RequestId: strconv.Itoa(number)}) {
				return
			}
		}
		atEnd()
	}
}

func TestPostAllSendsRequestsInTheirOrder(t *testing.T) {
	const count = 3000
	server := &fake{}
	client := connect(t, start(t, server))
	results := 0
	for _, err := range client.PostAll(t.Context(), postings(count, func() {})) {
		results++
		if err != nil {
			t.Fatal(err)
		}
	}
	var want []string
	for number := 1; number <= count; number++ {
		want = append(want, strconv.Itoa(number))
	}
	if results != count || !slices.Equal(server.streamed, want) {
		t.Errorf("%d results, sent as %v", results, server.streamed)
	}
}

// The context may end when all requests have been taken: then each has a result or an error of its own.
func TestTheEndOfTheContextIsNoResultOfItsOwn(t *testing.T) {
	client := connect(t, start(t, &fake{}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	results := 0
	for _, err := range client.PostAll(ctx, postings(10, func() {})) {
		if results++; results == 10 {
			cancel()
		}
		if err != nil {
			t.Error(err)
		}
	}
	if results != 10 {
		t.Errorf("%d results of 10 requests", results)
	}
	// The other way round, the last error stands for the requests that are left.
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range client.PostAll(ctx, postings(5000, func() { t.Error("all requests were taken") })) {
		cancel()
		last = err
	}
	var failure *passbook.Error
	if !errors.As(last, &failure) || failure.RequestID != "" || !errors.Is(last, context.Canceled) {
		t.Error(last)
	}
}
