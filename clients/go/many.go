package passbook

import (
	"context"
	"iter"
	"sync"

	"google.golang.org/grpc/status"

	"passbook.example/passbook/passbookv1"
)

// postAheadMax is how many requests PostAll takes ahead of the results that were read.
const postAheadMax = 1024

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

// completeBatch repeats the requests of a batch that have no result, each by a call of its own.
func (c *calls) completeBatch(
	ctx context.Context, batch *passbookv1.BatchPostTransactionsRequest,
	response *passbookv1.BatchPostTransactionsResponse,
) {
	var group sync.WaitGroup
	for i, result := range response.GetResults() {
		if result.GetError() == nil {
			continue
		}
		request := batch.GetRequests()[i]
		failure := newError(status.FromProto(result.GetError()), request.GetRequestId())
		single := &call{
			calls:   c,
			method:  passbookv1.AccountService_PostTransaction_FullMethodName,
			request: request,
		}
		if !single.judge(failure) {
			continue
		}
		group.Go(func() {
			posted := &passbookv1.PostTransactionResponse{}
			single.reply = posted
			if err := single.run(ctx); err != nil {
				result.Result = &passbookv1.PostTransactionResult_Error{Error: status.Convert(err).Proto()}
				return
			}
			result.Result = &passbookv1.PostTransactionResult_Transaction{Transaction: posted.GetTransaction()}
			result.Replayed = posted.GetReplayed()
		})
	}
	group.Wait()
}
