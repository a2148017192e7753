package passbook

import (
	"context"
	"iter"
	"sync"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"

	"passbook.example/passbook/passbookv1"
)

const (
	// postAheadMax is how many requests PostAll takes ahead of the results that were read.
	postAheadMax = 1024
	// repeatsMax is how many requests of a batch are repeated at the same time.
	repeatsMax = 64
)

// PostAll posts transactions for as long as there are requests, and returns a response or an *Error for each, in
// the order of the requests. It takes requests only as fast as their results are read, at most 1,024 ahead.
//
// Each request is repeated until it has a result or the context ends. They are usually applied in their order,
// but this is not promised: if one depends on another, post it after the result of the other.
//
// A loop that ends early cancels the requests whose results it has not read.
func (c *Client) PostAll(
	ctx context.Context, requests iter.Seq[*passbookv1.PostTransactionRequest],
) iter.Seq2[*passbookv1.PostTransactionResponse, error] {
	return func(yield func(*passbookv1.PostTransactionResponse, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		results := make(chan chan posted, postAheadMax)
		go func() {
			defer close(results)
			for request := range requests {
				result := make(chan posted, 1)
				select {
				case results <- result:
					go func() { result <- c.calls.post(ctx, request) }()
				case <-ctx.Done():
					return
				}
			}
		}()
		for result := range results {
			posted := <-result
			if !yield(posted.response, posted.err) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(nil, newError(status.FromContextError(err), ""))
		}
	}
}

type posted struct {
	response *passbookv1.PostTransactionResponse
	err      error
}

// post makes a call without a timeout of its own.
func (c *calls) post(ctx context.Context, request *passbookv1.PostTransactionRequest) posted {
	response := &passbookv1.PostTransactionResponse{}
	err := c.invoke(ctx, passbookv1.AccountService_PostTransaction_FullMethodName, request, response)
	if err != nil {
		return posted{err: err}
	}
	return posted{response: response}
}

// completeBatch repeats the requests of a batch that have no result, each by a call of its own. If an attempt of the
// batch is in doubt, so is each of its requests.
func (c *calls) completeBatch(ctx context.Context, whole *call) {
	repeats := &repeats{places: make(chan struct{}, repeatsMax)}
	switch batch := whole.request.(type) {
	case *passbookv1.BatchPostTransactionsRequest:
		for i, result := range whole.reply.(*passbookv1.BatchPostTransactionsResponse).GetResults() {
			response := &passbookv1.PostTransactionResponse{}
			single := &call{
				calls:        c,
				method:       passbookv1.AccountService_PostTransaction_FullMethodName,
				request:      batch.GetRequests()[i],
				reply:        response,
				maybeApplied: whole.maybeApplied,
			}
			repeats.repeat(ctx, single, result.GetError(), func(failure *statuspb.Status) {
				if failure != nil {
					result.Result = &passbookv1.PostTransactionResult_Error{Error: failure}
					return
				}
				result.Result = &passbookv1.PostTransactionResult_Transaction{Transaction: response.GetTransaction()}
				result.Replayed = response.GetReplayed()
			})
		}
	case *passbookv1.BatchCreateAccountsRequest:
		for i, result := range whole.reply.(*passbookv1.BatchCreateAccountsResponse).GetResults() {
			response := &passbookv1.CreateAccountResponse{}
			single := &call{
				calls:        c,
				method:       passbookv1.AccountService_CreateAccount_FullMethodName,
				request:      batch.GetRequests()[i],
				reply:        response,
				maybeApplied: whole.maybeApplied,
			}
			repeats.repeat(ctx, single, result.GetError(), func(failure *statuspb.Status) {
				if failure != nil {
					result.Result = &passbookv1.CreateAccountResult_Error{Error: failure}
					return
				}
				result.Result = &passbookv1.CreateAccountResult_Account{Account: response.GetAccount()}
			})
		}
	}
	repeats.group.Wait()
}

// repeats are the calls that complete a batch.
type repeats struct {
	group sync.WaitGroup
	// places has an element for each that is under way.
	places chan struct{}
}

// repeat makes a call whose first attempt, in a batch, has ended with this error, if it may be repeated. Nil: the
// request has its result. whenDone gets the error of the call, or nil.
func (r *repeats) repeat(
	ctx context.Context, single *call, first *statuspb.Status, whenDone func(*statuspb.Status),
) {
	if first == nil {
		return
	}
	r.group.Go(func() {
		r.places <- struct{}{}
		defer func() { <-r.places }()
		if err := single.runAfter(ctx, single.newError(status.FromProto(first))); err != nil {
			whenDone(status.Convert(err).Proto())
			return
		}
		whenDone(nil)
	})
}
