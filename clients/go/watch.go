package passbook

import (
	"context"
	"iter"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"passbook.example/passbook/passbookv1"
)

// Watch returns the entries of an account after the given sequence: first those that exist, then each new one,
// until the context ends. After a broken connection it continues on the next server: no entry is missed, and none
// comes twice. An error is the last element.
func (c *Client) Watch(
	ctx context.Context, accountID string, afterSequence int64,
) iter.Seq2[*passbookv1.Entry, error] {
	return func(yield func(*passbookv1.Entry, error) bool) {
		watch := &watch{calls: c.calls}
		request := &passbookv1.WatchEntriesRequest{AccountId: accountID, AfterSequence: afterSequence}
		failure := watch.run(ctx, request, func(ctx context.Context, server passbookv1.AccountServiceClient) error {
			stream, err := server.WatchEntries(ctx, request)
			if err != nil {
				return err
			}
			for {
				message, err := stream.Recv()
				if err != nil {
					return err
				}
				watch.heard()
				for _, entry := range message.GetEntries() {
					request.AfterSequence = entry.GetSequence()
					if !yield(entry, nil) {
						return nil
					}
				}
			}
		})
		if failure != nil {
			yield(nil, failure)
		}
	}
}

// Events returns the messages of WatchEvents: events with the token behind them, until the context ends. A message
// without events is a heartbeat. After a broken connection it continues after the last token, on the next server:
// no event is missed, and none comes twice. An error is the last element.
//
// Store the token together with what the events cause, and start again after that token: then each event counts
// once, whatever breaks. A watch from now begins with its first message, which comes at once with the token of that
// moment. To read only what there is, stop after the first message that has caught up (GetCaughtUp).
func (c *Client) Events(
	ctx context.Context, request *passbookv1.WatchEventsRequest,
) iter.Seq2[*passbookv1.WatchEventsResponse, error] {
	return func(yield func(*passbookv1.WatchEventsResponse, error) bool) {
		watch := &watch{calls: c.calls}
		request := proto.CloneOf(request)
		failure := watch.run(ctx, request, func(ctx context.Context, server passbookv1.AccountServiceClient) error {
			stream, err := server.WatchEvents(ctx, request)
			if err != nil {
				return err
			}
			for {
				message, err := stream.Recv()
				if err != nil {
					return err
				}
				watch.heard()
				request.Start = &passbookv1.WatchEventsRequest_AfterToken{AfterToken: message.GetToken()}
				if !yield(message, nil) {
					return nil
				}
			}
		})
		if failure != nil {
			yield(nil, failure)
		}
	}
}

// watch opens a stream again when it breaks.
type watch struct {
	calls *calls
	// failures counts the streams that broke since the last message.
	failures int
	// outageStart is when the first of them broke.
	outageStart time.Time
	// hasAnswered: there was a message of the stream that is open.
	hasAnswered bool
}

// heard is called after each message.
func (w *watch) heard() {
	w.failures, w.hasAnswered = 0, true
}

// run reads one stream of the request after another. read returns nil if the loop has ended, and then run does, too.
func (w *watch) run(
	ctx context.Context,
	request proto.Message,
	read func(context.Context, passbookv1.AccountServiceClient) error,
) *Error {
	if invalid := checkText(request); invalid != nil {
		return newError(invalid, "")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		server := w.calls.pick()
		w.hasAnswered = false
		err := read(ctx, passbookv1.NewAccountServiceClient(server.conn))
		if err == nil {
			return nil
		}
		if w.failures++; w.failures == 1 {
			w.outageStart = time.Now()
		}
		failure := newError(status.Convert(err), "")
		failure.Outcome = NoOutcome
		server.answered(failure)
		isTooLong := time.Since(w.outageStart) > outageMax
		pause := pauseAfter(w.failures) + failure.retryDelay
		if w.isFinal(failure) || w.calls.isClosed.Load() || isTooLong || !wait(ctx, pause) {
			return failure
		}
	}
}

// isFinal is false for a token that has expired under an open stream: the next stream has a new one. If it has not,
// the server denies it before the first message.
func (w *watch) isFinal(failure *Error) bool {
	return failure.isFinal() && !(w.hasAnswered && failure.Code == codes.Unauthenticated)
}
