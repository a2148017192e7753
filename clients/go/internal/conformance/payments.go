package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/shopspring/decimal"

	"passbook.example/passbook"
	"passbook.example/passbook/passbookv1"
)

const (
	payments     = 1000
	callers      = 16
	postings     = 500
	entriesTotal = payments + postings - 1
)

// payments is step 8. The watches that it starts go on until step 10.
func (s *story) payments(ctx, whole context.Context) error {
	for _, account := range []string{"wallet", "till"} {
		if err := s.open(ctx, account); err != nil {
			return err
		}
	}
	if _, err := s.deposit(ctx, "wallet", "10000.00", ""); err != nil {
		return err
	}

	go func() { s.watched <- s.watch(whole) }()
	go func() { s.sawEvents <- s.watchEvents(whole) }()

	type result struct {
		id  string
		err error
	}
	numbers, results := make(chan int), make(chan result)
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			for number := range numbers {
				id, err := s.pay(ctx, number)
				if err != nil {
					err = fmt.Errorf("payment %d: %w", number, err)
				}
				results <- result{id, err}
			}
		})
	}
	go func() {
		for number := 1; number <= payments; number++ {
			numbers <- number
		}
		close(numbers)
		group.Wait()
		close(results)
	}()

	var failures []error
	done, victim, other := 0, s.a, s.b
	for result := range results {
		done++
		failures = append(failures, result.err)
		s.paid[result.id] = true
		if done%100 == 0 && done < payments {
			failures = append(failures, victim.restart())
			victim, other = other, victim
		}
	}
	return errors.Join(failures...)
}

// pay returns the request id of the payment, as the result has it.
func (s *story) pay(ctx context.Context, number int) (string, error) {
	request := &passbookv1.TransferRequest{
		SourceAccountId:      "wallet",
		DestinationAccountId: "till",
		Amount:               passbook.Money(decimal.New(int64(number), -2), "USD"),
	}
	if number%2 == 0 {
		request.RequestId = fmt.Sprintf("pay-%d", number)
	}
	if number%50 == 0 {
		short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		defer cancel()
		response, err := s.both.Transfer(short, request)
		var failure *passbook.Error
		if err == nil || !errors.As(err, &failure) || failure.Outcome == passbook.NoOutcome {
			return response.GetTransaction().GetRequestId(), err
		}
		request.RequestId = failure.RequestID
	}
	response, err := s.both.Transfer(ctx, request)
	return response.GetTransaction().GetRequestId(), err
}

// stream is step 9.
func (s *story) stream(ctx context.Context) error {
	ofA, err := passbook.New([]string{s.a.address})
	if err != nil {
		return err
	}
	defer func() { _ = ofA.Close() }()

	count := 0
	for response, err := range ofA.PostAll(ctx, stream()) {
		count++
		want := fmt.Sprintf("stream-%d", count)
		if count == postings/2 {
			failure, wrong := expectReason(err, passbookv1.ErrorReason_ERROR_REASON_ACCOUNT_NOT_FOUND)
			if wrong != nil {
				return wrong
			}
			err = expect("the request id", failure.RequestID == want, failure.RequestID, want)
		} else if err == nil {
			id := response.GetTransaction().GetRequestId()
			s.paid[id] = true
			err = expect("the request id", id == want, id, want)
		}
		if err != nil {
			return err
		}
		if count == 200 {
			if err := s.a.restart(); err != nil {
				return err
			}
		}
	}
	return expect("the number of results", count == postings, count, postings)
}

// stream has 500 postings of a cent from `wallet` to `till`, except one to nobody.
func stream() iter.Seq[*passbookv1.PostTransactionRequest] {
	return func(yield func(*passbookv1.PostTransactionRequest) bool) {
		for number := 1; number <= postings; number++ {
			destination := "till"
			if number == postings/2 {
				destination = "nobody"
			}
			request := &passbookv1.PostTransactionRequest{
				RequestId: fmt.Sprintf("stream-%d", number),
				Legs: []*passbookv1.Leg{
					{AccountId: "wallet", Amount: usd("-0.01")},
					{AccountId: destination, Amount: usd("0.01")},
				},
			}
			if !yield(request) {
				return
			}
		}
	}
}

// watch reads the entries of `till` until the last one of the story.
func (s *story) watch(ctx context.Context) error {
	want := int64(0)
	for entry, err := range s.both.Watch(ctx, "till", 0) {
		if err != nil {
			return err
		}
		want++
		if err := expect("the sequence", entry.GetSequence() == want, entry.GetSequence(), want); err != nil {
			return err
		}
		if want == entriesTotal {
			return nil
		}
	}
	return errors.New("the watch has ended")
}

// watchEvents reads the transactions of `till` until the last one of the story, and then again what there is after the
// middle.
func (s *story) watchEvents(ctx context.Context) error {
	sequence, middle, middleToken := int64(0), int64(0), ""
	request := &passbookv1.WatchEventsRequest{
		AccountIdPrefixes: []string{"till"},
		Kinds:             []passbookv1.EventKind{passbookv1.EventKind_EVENT_KIND_TRANSACTION},
		Start:             &passbookv1.WatchEventsRequest_FromBeginning{},
	}
	for _, again := range []bool{false, true} {
		for message, err := range s.both.Events(ctx, request) {
			if err != nil {
				return err
			}
			for _, event := range message.GetEvents() {
				sequence++
				if err := expectTill(event, sequence); err != nil {
					return err
				}
			}
			if middle == 0 && sequence >= payments/2 {
				middle, middleToken = sequence, message.GetToken()
			}
			if again && message.GetCaughtUp() || !again && sequence == entriesTotal {
				break
			}
		}
		if err := expect("the last event", sequence == entriesTotal, sequence, entriesTotal); err != nil {
			return err
		}
		sequence = middle
		request.Start = &passbookv1.WatchEventsRequest_AfterToken{AfterToken: middleToken}
	}
	return nil
}

// expectTill checks the entry of `till` in an event.
func expectTill(event *passbookv1.Event, want int64) error {
	for _, entry := range event.GetTransaction().GetEntries() {
		if entry.GetAccountId() == "till" {
			return expect("the sequence of an event", entry.GetSequence() == want, entry.GetSequence(), want)
		}
	}
	return fmt.Errorf("the event %v has no entry of till", event)
}

func (s *story) watchesAreComplete(ctx context.Context) error {
	for _, watched := range []chan error{s.watched, s.sawEvents} {
		select {
		case err := <-watched:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return errors.New("a watch has not seen everything")
		}
	}
	return nil
}

// end is step 11: nothing is lost, and nothing is doubled.
func (s *story) end(ctx context.Context) error {
	entries, err := s.countEntries(ctx)
	if err != nil {
		return err
	}
	ids, err := s.requestIDs(ctx)
	if err != nil {
		return err
	}
	failures := []error{
		expect("the number of entries", entries == entriesTotal, entries, entriesTotal),
		expect("the number of transactions", len(ids) == entriesTotal, len(ids), entriesTotal),
		expect("the number of paid ids", len(s.paid) == entriesTotal, len(s.paid), entriesTotal),
	}
	for number := 2; number <= payments; number += 2 {
		id := fmt.Sprintf("pay-%d", number)
		failures = append(failures, expect("the results", s.paid[id], "without "+id, "with it"))
	}
	seen := map[string]bool{}
	for _, id := range ids {
		failures = append(failures, expect("the transaction of "+id, s.paid[id] && !seen[id], "unknown or doubled", "one"))
		seen[id] = true
	}
	failures = append(failures,
		s.expectBalance(ctx, "joint", s.joint),
		s.expectBalance(ctx, "till", "5009.99"),
		s.expectBalance(ctx, "wallet", "4990.01"),
		s.expectBalance(ctx, "shop", "150.00"),
		s.expectBalance(ctx, "vault", "12345678901234567890123.75"))
	for _, account := range []string{"joint", "vault", "shop", "wallet", "till"} {
		response, err := s.both.VerifyAccount(ctx, &passbookv1.VerifyAccountRequest{AccountId: account})
		failures = append(failures, err, expect(account, response.GetValid(), response.GetFault(), "valid"))
	}
	return errors.Join(failures...)
}

func (s *story) countEntries(ctx context.Context) (int, error) {
	count, token := 0, ""
	for {
		page, err := s.both.ListEntries(ctx, &passbookv1.ListEntriesRequest{
			AccountId: "till", PageSize: 1000, PageToken: token,
		})
		if err != nil {
			return 0, err
		}
		count += len(page.GetEntries())
		if token = page.GetNextPageToken(); token == "" {
			return count, nil
		}
	}
}

// requestIDs are those of all transactions of `till`.
func (s *story) requestIDs(ctx context.Context) ([]string, error) {
	var ids []string
	token := ""
	for {
		page, err := s.both.ListTransactions(ctx, &passbookv1.ListTransactionsRequest{
			AccountId: "till", PageSize: 1000, PageToken: token,
		})
		if err != nil {
			return nil, err
		}
		for _, transaction := range page.GetTransactions() {
			ids = append(ids, transaction.GetRequestId())
		}
		if token = page.GetNextPageToken(); token == "" {
			return ids, nil
		}
	}
}
