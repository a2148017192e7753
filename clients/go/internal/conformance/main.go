// The command conformance plays the story of clients/CONFORMANCE.md once, against servers that it starts.
//
// Environment: PASSBOOK_TEST_BIN, the absolute path of the program, and PASSBOOK_DATABASE_URL.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/shopspring/decimal"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"passbook.example/passbook"
	"passbook.example/passbook/passbookv1"
)

// stepTimeout bounds each step.
const stepTimeout = 60 * time.Second

// story is what the steps share.
type story struct {
	a, b *server
	// both is a client of both servers.
	both *passbook.Client
	// joint is the balance of `joint` after step 7.
	joint string
	// watched gets what the watch of `till` has seen, once that is complete.
	watched chan error
	// sawEvents gets what the watch of its events has seen.
	sawEvents chan error
	// paid are the request ids of all payments to `till`, from their results.
	paid map[string]bool
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run() error {
	s := &story{watched: make(chan error, 1), sawEvents: make(chan error, 1), paid: map[string]bool{}}
	for _, place := range []**server{&s.a, &s.b} {
		started, err := startServer()
		if err != nil {
			return err
		}
		defer started.kill()
		*place = started
	}
	var err error
	if s.both, err = passbook.New([]string{s.a.address, s.b.address}); err != nil {
		return err
	}
	defer func() { _ = s.both.Close() }()
	whole, stop := context.WithCancel(context.Background())
	defer stop()
	for i, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"the joint account", s.jointAccount},
		{"exact amounts", s.exactAmounts},
		{"a rejection", s.rejection},
		{"a replay", s.replay},
		{"a hold", s.hold},
		{"many accounts", s.manyAccounts},
		{"a deadline", s.deadline},
		{"a thousand payments", func(ctx context.Context) error { return s.payments(ctx, whole) }},
		{"a stream", s.stream},
		{"the watches", s.watchesAreComplete},
		{"the end", s.end},
	} {
		begun := time.Now()
		// Not a deadline: calls have the client's default timeout.
		ctx, cancel := context.WithCancel(whole)
		tooLong := time.AfterFunc(stepTimeout, cancel)
		err := step.run(ctx)
		tooLong.Stop()
		cancel()
		if err != nil {
			return fmt.Errorf("step %d, %s: %w", i+1, step.name, err)
		}
		fmt.Printf("%d. %s: ok (%.1f s)\n", i+1, step.name, time.Since(begun).Seconds())
	}
	return nil
}

// usd is an amount in dollars, written as a decimal.
func usd(text string) *passbookv1.Money {
	return passbook.Money(decimal.RequireFromString(text), "USD")
}

func eur(text string) *passbookv1.Money {
	return passbook.Money(decimal.RequireFromString(text), "EUR")
}

func (s *story) open(ctx context.Context, account string) error {
	_, err := s.both.CreateAccount(ctx, &passbookv1.CreateAccountRequest{AccountId: account, CurrencyCode: "USD"})
	return err
}

func (s *story) deposit(
	ctx context.Context, account, amount, requestID string,
) (*passbookv1.DepositResponse, error) {
	return s.both.Deposit(ctx, &passbookv1.DepositRequest{
		RequestId: requestID, AccountId: account, Amount: usd(amount),
	})
}

// expectBalance compares exact decimals.
func (s *story) expectBalance(ctx context.Context, account, want string) error {
	response, err := s.both.GetAccount(ctx, &passbookv1.GetAccountRequest{AccountId: account})
	if err != nil {
		return err
	}
	return expectAmount(account, response.GetAccount().GetBalance(), want)
}

func expectAmount(what string, money *passbookv1.Money, want string) error {
	got, err := passbook.Amount(money)
	if err != nil {
		return err
	}
	return expect(what, got.Equal(decimal.RequireFromString(want)), got, want)
}

func expect(what string, isRight bool, got, want any) error {
	if isRight {
		return nil
	}
	return fmt.Errorf("%s is %v, want %v", what, got, want)
}

// expectReason checks an error without an outcome.
func expectReason(err error, want passbookv1.ErrorReason) (*passbook.Error, error) {
	var failure *passbook.Error
	if !errors.As(err, &failure) {
		return nil, fmt.Errorf("got the error %w, want %v", err, want)
	}
	isRight := failure.Reason == want && failure.Outcome == passbook.NoOutcome
	return failure, expect("the error", isRight, failure, want)
}

func (s *story) jointAccount(ctx context.Context) error {
	if err := s.open(ctx, "joint"); err != nil {
		return err
	}
	if _, err := s.deposit(ctx, "joint", "1000.00", ""); err != nil {
		return err
	}
	ofA, err := passbook.New([]string{s.a.address})
	if err != nil {
		return err
	}
	defer func() { _ = ofA.Close() }()
	ofB, err := passbook.New([]string{s.b.address})
	if err != nil {
		return err
	}
	defer func() { _ = ofB.Close() }()

	var group sync.WaitGroup
	results := make(chan error, 20)
	for range 10 {
		group.Go(func() {
			_, err := ofA.Deposit(ctx, &passbookv1.DepositRequest{AccountId: "joint", Amount: usd("100.00")})
			results <- err
		})
		group.Go(func() {
			_, err := ofB.Withdraw(ctx, &passbookv1.WithdrawRequest{AccountId: "joint", Amount: usd("100.00")})
			results <- err
		})
	}
	group.Wait()
	close(results)
	for err := range results {
		if err != nil {
			return err
		}
	}
	response, err := s.both.GetAccount(ctx, &passbookv1.GetAccountRequest{AccountId: "joint"})
	if err != nil {
		return err
	}
	sequence := response.GetAccount().GetSequence()
	return errors.Join(
		expectAmount("joint", response.GetAccount().GetBalance(), "1000.00"),
		expect("the sequence", sequence == 21, sequence, 21))
}

func (s *story) exactAmounts(ctx context.Context) error {
	if err := s.open(ctx, "vault"); err != nil {
		return err
	}
	for _, amount := range []string{"12345678901234567890123.45", "0.10", "0.20"} {
		if _, err := s.deposit(ctx, "vault", amount, ""); err != nil {
			return err
		}
	}
	return s.expectBalance(ctx, "vault", "12345678901234567890123.75")
}

func (s *story) rejection(ctx context.Context) error {
	rent := func() error {
		_, err := s.both.Withdraw(ctx, &passbookv1.WithdrawRequest{
			RequestId: "rent", AccountId: "joint", Amount: usd("1000.01"),
		})
		failure, err := expectReason(err, passbookv1.ErrorReason_ERROR_REASON_INSUFFICIENT_FUNDS)
		if err != nil {
			return err
		}
		available, required := failure.Metadata["available"], failure.Metadata["required"]
		return errors.Join(
			expect("the code", failure.Code == codes.FailedPrecondition, failure.Code, "FailedPrecondition"),
			expect("the request id", failure.RequestID == "rent", failure.RequestID, "rent"),
			expect("available", available == "1000.00", available, "1000.00"),
			expect("required", required == "1000.01", required, "1000.01"))
	}
	if err := rent(); err != nil {
		return err
	}
	if _, err := s.deposit(ctx, "joint", "50.00", ""); err != nil {
		return err
	}
	if err := rent(); err != nil {
		return fmt.Errorf("the repeat: %w", err)
	}
	_, err := s.both.Withdraw(ctx, &passbookv1.WithdrawRequest{AccountId: "joint", Amount: usd("50.00")})
	return err
}

func (s *story) replay(ctx context.Context) error {
	dayAgo := timestamppb.New(time.Now().AddDate(0, 0, -1).Truncate(time.Second))
	bonus := func(amount string) (*passbookv1.DepositResponse, error) {
		return s.both.Deposit(ctx, &passbookv1.DepositRequest{
			RequestId: "bonus", AccountId: "joint", Amount: usd(amount), EffectiveTime: dayAgo,
		})
	}
	first, err := bonus("25.00")
	if err != nil {
		return err
	}
	second, err := bonus("25.00")
	if err != nil {
		return err
	}
	_, err = bonus("26.00")
	_, reused := expectReason(err, passbookv1.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED)
	firstID, secondID := first.GetTransaction().GetTransactionId(), second.GetTransaction().GetTransactionId()
	effective := first.GetTransaction().GetEntries()[0].GetEffectiveTime()
	return errors.Join(reused,
		expect("the effective time", proto.Equal(effective, dayAgo), effective, dayAgo),
		expect("the first result", !first.GetReplayed(), "replayed", "new"),
		expect("the second result", second.GetReplayed(), "new", "replayed"),
		expect("its transaction", secondID == firstID && firstID != "", secondID, firstID),
		s.expectBalance(ctx, "joint", "1025.00"))
}

func (s *story) hold(ctx context.Context) error {
	if err := s.open(ctx, "shop"); err != nil {
		return err
	}
	_, err := s.both.PlaceHold(ctx, &passbookv1.PlaceHoldRequest{
		HoldId: "trip", AccountId: "joint", Amount: usd("100.00"),
	})
	if err != nil {
		return err
	}
	_, err = s.both.UpdateHold(ctx, &passbookv1.UpdateHoldRequest{HoldId: "trip", Amount: usd("200.00")})
	if err != nil {
		return err
	}
	if err := s.expectAvailable(ctx, "825.00"); err != nil {
		return err
	}
	part, err := s.both.CaptureHold(ctx, &passbookv1.CaptureHoldRequest{
		HoldId: "trip", Amount: usd("100.00"), DestinationAccountId: "shop", KeepOpen: true,
	})
	if err != nil {
		return err
	}
	if err := s.expectAvailable(ctx, "825.00"); err != nil {
		return err
	}
	captured, err := s.both.CaptureHold(ctx, &passbookv1.CaptureHoldRequest{
		HoldId: "trip", Amount: usd("50.00"), DestinationAccountId: "shop",
	})
	if err != nil {
		return err
	}
	stateBefore, state := part.GetHold().GetState(), captured.GetHold().GetState()
	_, err = s.both.ReleaseHold(ctx, &passbookv1.ReleaseHoldRequest{HoldId: "trip"})
	failure, err := expectReason(err, passbookv1.ErrorReason_ERROR_REASON_HOLD_NOT_OPEN)
	if err != nil {
		return err
	}
	return errors.Join(
		expect("the hold before", stateBefore == passbookv1.HoldState_HOLD_STATE_OPEN, stateBefore, "open"),
		expect("the hold", state == passbookv1.HoldState_HOLD_STATE_CAPTURED, state, "captured"),
		expectAmount("the captured amount", captured.GetHold().GetCapturedAmount(), "150.00"),
		expect("the state", failure.Metadata["state"] == "captured", failure.Metadata["state"], "captured"),
		s.expectAvailable(ctx, "875.00"),
		s.expectBalance(ctx, "joint", "875.00"),
		s.expectBalance(ctx, "shop", "150.00"))
}

func (s *story) manyAccounts(ctx context.Context) error {
	const pools = 100
	batch := &passbookv1.BatchCreateAccountsRequest{}
	for number := range pools + 1 {
		account := fmt.Sprintf("pool-%d", number+1)
		if number == pools {
			account = "joint"
		}
		batch.Requests = append(batch.Requests,
			&passbookv1.CreateAccountRequest{AccountId: account, CurrencyCode: "EUR"})
	}
	opened, err := s.both.BatchCreateAccounts(ctx, batch)
	if err != nil {
		return err
	}
	for i, result := range opened.GetResults()[:pools] {
		got, want := result.GetAccount().GetAccountId(), batch.GetRequests()[i].GetAccountId()
		if err := expect("the account", got == want, result, want); err != nil {
			return err
		}
	}
	exists := passbook.ErrorOf(opened.GetResults()[pools].GetError(), "")
	if _, err := expectReason(exists, passbookv1.ErrorReason_ERROR_REASON_ACCOUNT_EXISTS); err != nil {
		return err
	}

	_, err = s.both.Deposit(ctx, &passbookv1.DepositRequest{AccountId: "pool-1", Amount: eur("10.00")})
	if err != nil {
		return err
	}
	forced, err := s.both.Withdraw(ctx, &passbookv1.WithdrawRequest{
		AccountId: "pool-1", Amount: eur("25.00"), Force: true,
	})
	if err != nil {
		return err
	}
	_, err = s.both.ReverseTransaction(ctx, &passbookv1.ReverseTransactionRequest{
		TransactionId: forced.GetTransaction().GetTransactionId(), Amount: eur("5.00"),
	})
	if err != nil {
		return err
	}
	listed, err := s.both.ListAccounts(ctx, &passbookv1.ListAccountsRequest{AccountIdPrefix: "pool-"})
	if err != nil {
		return err
	}
	var got, want []string
	for _, account := range listed.GetAccounts() {
		got = append(got, account.GetAccountId())
	}
	for _, request := range batch.GetRequests()[:pools] {
		want = append(want, request.GetAccountId())
	}
	slices.Sort(want)
	if err := expect("the list", slices.Equal(got, want), got, want); err != nil {
		return err
	}
	sums, err := s.both.SumBalances(ctx, &passbookv1.SumBalancesRequest{AccountIdPrefix: "pool-"})
	if err != nil {
		return err
	}
	if err := expect("the number of sums", len(sums.GetSums()) == 1, len(sums.GetSums()), 1); err != nil {
		return err
	}
	sum := sums.GetSums()[0]
	return errors.Join(
		expect("the withdrawal", forced.GetTransaction().GetForced(), "not forced", "forced"),
		expectAmount("its balance", forced.GetTransaction().GetEntries()[0].GetBalanceAfter(), "-15.00"),
		expect("the currency", sum.GetCurrencyCode() == "EUR", sum.GetCurrencyCode(), "EUR"),
		expect("the number of accounts", sum.GetAccountCount() == pools, sum.GetAccountCount(), pools),
		expectAmount("the sum", sum.GetBalance(), "-10.00"))
}

func (s *story) expectAvailable(ctx context.Context, want string) error {
	response, err := s.both.GetAccount(ctx, &passbookv1.GetAccountRequest{AccountId: "joint"})
	if err != nil {
		return err
	}
	return expectAmount("available", response.GetAccount().GetAvailable(), want)
}

func (s *story) deadline(ctx context.Context) error {
	if err := errors.Join(s.a.pause(), s.b.pause()); err != nil {
		return err
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err := s.deposit(short, "joint", "10.00", "")
	if err := errors.Join(s.a.resume(), s.b.resume()); err != nil {
		return err
	}
	var failure *passbook.Error
	if !errors.As(err, &failure) || failure.Code != codes.DeadlineExceeded ||
		failure.Outcome != passbook.Unknown || failure.RequestID == "" {
		return fmt.Errorf("the error is %v, want DeadlineExceeded with the outcome unknown", err)
	}
	id := failure.RequestID
	fence, err := s.both.FenceRequest(ctx, &passbookv1.FenceRequestRequest{RequestId: id})
	if err != nil {
		return err
	}
	outcome, err := s.both.GetRequestOutcome(ctx, &passbookv1.GetRequestOutcomeRequest{RequestId: id})
	if err != nil {
		return err
	}
	isSame := outcome.GetOutcome() == fence.GetOutcome() && outcome.GetFenced() == fence.GetFenced()
	if err := expect("the outcome", isSame, outcome, fence); err != nil {
		return err
	}
	repeat, err := s.deposit(ctx, "joint", "10.00", id)
	if fence.GetOutcome() == passbookv1.RequestOutcome_REQUEST_OUTCOME_APPLIED {
		s.joint = "885.00"
		err = errors.Join(err, expect("the repeat", repeat.GetReplayed(), "new", "replayed"))
	} else {
		s.joint = "875.00"
		_, err = expectReason(err, passbookv1.ErrorReason_ERROR_REASON_REQUEST_FENCED)
	}
	return errors.Join(err, s.expectBalance(ctx, "joint", s.joint))
}
