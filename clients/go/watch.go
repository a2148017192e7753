package passbook

import (
	"context"
	"iter"
	"time"

	"google.golang.org/grpc/status"

	"passbook.example/passbook/passbookv1"
)

// watchSilenceMax is the longest time without a message of any server. Servers send one every 5 seconds.
const watchSilenceMax = 60 * time.Second

// Watch returns the entries of an account after the given sequence: first those that exist, then each new one,
// until the context ends. After a broken connection it continues on the next server: no entry is missed, and none
// comes twice. An error is the last element.
func (c *Client) Watch(
	ctx context.Context, accountID string, afterSequence int64,
) iter.Seq2[*passbookv1.Entry, error] {
	return func(yield func(*passbookv1.Entry, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		watch := &watch{calls: c.calls, accountID: accountID, sequence: afterSequence, yield: yield}
		if failure := watch.run(ctx); failure != nil {
			yield(nil, failure)
		}
	}
}

type watch struct {
	calls     *calls
	accountID string
	// sequence is that of the last entry that the loop has.
	sequence int64
	yield    func(*passbookv1.Entry, error) bool

	// failures counts the streams that broke since the last message.
	failures    int
	lastMessage time.Time
}

// run returns nil if the loop has ended.
func (w *watch) run(ctx context.Context) *Error {
	w.lastMessage = time.Now()
	for {
		server := w.calls.pick()
		err := w.read(ctx, server)
		if err == nil {
			return nil
		}
		w.failures++
		failure := newError(status.Convert(err), "")
		failure.Outcome = NoOutcome
		server.answered(failure)
		isSilent := time.Since(w.lastMessage) > watchSilenceMax
		if failure.isFinal() || w.calls.isClosed.Load() || isSilent || !wait(ctx, pauseAfter(w.failures)+failure.retryDelay) {
			return failure
		}
	}
}

// read hands out the entries of one stream. It returns nil if the loop has ended.
func (w *watch) read(ctx context.Context, server *server) error {
	stream, err := passbookv1.NewAccountServiceClient(server.conn).WatchEntries(ctx,
		&passbookv1.WatchEntriesRequest{AccountId: w.accountID, AfterSequence: w.sequence})
	if err != nil {
		return err
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		w.failures, w.lastMessage = 0, time.Now()
		for _, entry := range message.GetEntries() {
			w.sequence = entry.GetSequence()
			if !w.yield(entry, nil) {
				return nil
			}
		}
	}
}
