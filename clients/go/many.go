package passbook

import (
	"context"
	"errors"
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
// Each request is repeated until it has a result or the context ends. They are sent and usually applied in their order,
// but this is not promised: if one depends on another, post it after the result of the other. If no server answers for
// 60 s, and the context has no deadline, each request that was taken ends with its own error, and no more are taken.
//
// If requests are left at the end, because of that or because the context has ended, the last element is an error
// without a RequestID. A loop that ends early cancels the requests whose results it has not read.
func (c *Client) PostAll(
	ctx context.Context, requests iter.Seq[*passbookv1.PostTransactionRequest],
) iter.Seq2[*passbookv1.PostTransactionResponse, error] {
	return func(yield func(*passbookv1.PostTransactionResponse, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		taking, stop := context.WithCancelCause(ctx)
		postings := make(chan *posting, postAheadMax)
		// It is set before the channel is closed.
		isComplete := false
		go func() {
			defer close(postings)
			for request := range requests {
				posting := &posting{done: make(chan struct{})}
				select {
				case <-taking.Done():
					return
				case postings <- posting:
					posting.begin(ctx, c.calls, request, stop)
				}
			}
			isComplete = true
		}()
		for posting := range postings {
			<-posting.done
			if !yield(posting.response()) {
				return
			}
		}
		if !isComplete {
			yield(nil, newError(causeOf(taking), ""))
		}
	}
}

// causeOf is the status with which a context has ended.
func causeOf(ctx context.Context) *status.Status {
	var failure *Error
	if errors.As(context.Cause(ctx), &failure) {
		return status.New(failure.Code, failure.Message)
	}
	return status.FromContextError(ctx.Err())
}

// posting is a request of PostAll. done is closed once it has its result.
type posting struct {
	done   chan struct{}
	result *passbookv1.PostTransactionResponse
	err    error
}

// response is what PostAll returns.
func (p *posting) response() (*passbookv1.PostTransactionResponse, error) {
	if p.err != nil {
		return nil, p.err
	}
	return p.result, nil
}

// begin makes a call without a timeout of its own, and does not wait for it. Its place in the stream is that of the
// request. If it ends without a result, because no server answers or the client is closed, no more requests are taken.
func (p *posting) begin(
	ctx context.Context, calls *calls, request *passbookv1.PostTransactionRequest, stop context.CancelCauseFunc,
) {
	p.result = &passbookv1.PostTransactionResponse{}
	call, err := calls.newCall(passbookv1.AccountService_PostTransaction_FullMethodName, request, p.result)
	if err != nil {
		p.err = err
		close(p.done)
		return
	}
	first := call.begin(ctx)
	go func() {
		defer close(p.done)
		p.err = call.finish(ctx, first)
		var failure *Error
		if errors.As(p.err, &failure) && !failure.isFinal() {
			stop(failure)
		}
	}()
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
		ended := &attempt{failure: single.newError(status.FromProto(first))}
		if err := single.finish(ctx, ended); err != nil {
			whenDone(status.Convert(err).Proto())
			return
		}
		whenDone(nil)
	})
}
