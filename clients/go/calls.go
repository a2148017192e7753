package passbook

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"passbook.example/passbook/passbookv1"
)

const (
	// pauseBase bounds the pause before the second attempt. Each further bound is twice the one before.
	pauseBase = 50 * time.Millisecond
	pauseMax  = 2 * time.Second
	// avoidTime is how long a server that has answered UNAVAILABLE is passed over.
	avoidTime = time.Second
	// outageMax is the longest time without an answer of any server, from the first attempt that failed, for a watch
	// and for a call without a deadline. The time that the program takes for a message does not count.
	outageMax = 60 * time.Second
)

// calls makes the calls of a client. The generated stub uses it as its connection.
type calls struct {
	servers []*server
	next    atomic.Uint64
	timeout time.Duration
	unary   bool
	// isClosed: nothing is repeated.
	isClosed atomic.Bool
}

// server is one server with its connection and its stream.
type server struct {
	conn   *grpc.ClientConn
	stream *sharedStream
	// avoidUntil is nil until the server has answered UNAVAILABLE. Unlike a number, a Time keeps its reading of the
	// monotonic clock, so a step of the wall clock does not matter.
	avoidUntil atomic.Pointer[time.Time]
}

func newServer(conn *grpc.ClientConn) *server {
	return &server{conn: conn, stream: newSharedStream(passbookv1.NewAccountServiceClient(conn))}
}

// answered passes over a server that is not available.
func (s *server) answered(failure *Error) {
	if failure.Code == codes.Unavailable {
		until := time.Now().Add(avoidTime)
		s.avoidUntil.Store(&until)
	}
}

func (s *server) isAvoided() bool {
	until := s.avoidUntil.Load()
	return until != nil && time.Now().Before(*until)
}

func (s *server) close() error {
	s.stream.close()
	return s.conn.Close()
}

// isConnected says that there is a connection. If there is none, it is opened.
func (s *server) isConnected() bool {
	if s.conn.GetState() == connectivity.Ready {
		return true
	}
	s.conn.Connect()
	return false
}

// pick returns the next server that has not answered UNAVAILABLE just now, or else the next one. One with a connection
// comes before one without: a call to a server that hangs would wait for the connection until its time is up.
func (c *calls) pick() *server {
	count := uint64(len(c.servers))
	first := c.next.Add(1)
	var unconnected *server
	for i := range count {
		candidate := c.servers[(first+i)%count]
		switch {
		case candidate.isAvoided():
		case candidate.isConnected():
			return candidate
		case unconnected == nil:
			unconnected = candidate
		}
	}
	if unconnected == nil {
		return c.servers[first%count]
	}
	return unconnected
}

// Invoke makes a unary call of the stub: attempts until there is a result or time is up.
func (c *calls) Invoke(ctx context.Context, method string, args, reply any, options ...grpc.CallOption) error {
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	call, err := c.newCall(method, args.(proto.Message), reply, options...)
	if err != nil {
		return err
	}
	if err := call.run(ctx); err != nil {
		return err
	}
	c.completeBatch(ctx, call)
	return nil
}

// newCall is a call of the request with the ids that it lacks, or the error of a request that cannot be sent.
func (c *calls) newCall(
	method string, request proto.Message, reply any, options ...grpc.CallOption,
) (*call, error) {
	request, err := withIDs(request)
	if err != nil {
		return nil, err
	}
	call := &call{calls: c, method: method, request: request, reply: reply, options: options}
	if invalid := checkText(request); invalid != nil {
		return nil, call.newError(invalid)
	}
	return call, nil
}

// NewStream opens a bare stream on the next server.
func (c *calls) NewStream(
	ctx context.Context, description *grpc.StreamDesc, method string, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	return c.pick().conn.NewStream(ctx, description, method, options...)
}

// call is one call of the stub, with all of its attempts.
type call struct {
	calls   *calls
	method  string
	request proto.Message
	reply   any
	options []grpc.CallOption
	// maybeApplied: an attempt has ended without a word on what became of it. It may have been an attempt of the
	// batch or the stream that had the request.
	maybeApplied bool
	// outageStart is when the first attempt failed.
	outageStart time.Time
}

// run returns nil or an *Error.
func (c *call) run(ctx context.Context) error {
	return c.finish(ctx, c.begin(ctx))
}

// attempt is an attempt of a call that has begun.
type attempt struct {
	// server is nil for the attempt of a batch.
	server *server
	// element is the request in the stream of the server. Nil: the request goes alone.
	element *streamedCall
	// failure is with what the attempt of a batch has ended.
	failure *Error
}

// begin makes the next attempt. It does not wait.
func (c *call) begin(ctx context.Context) *attempt {
	next := &attempt{server: c.calls.pick()}
	if element := streamed(c.request); element != nil && !c.calls.unary && ctx.Err() == nil {
		// After an error the request goes alone.
		next.element, _ = next.server.stream.begin(ctx, element, requestID(c.request))
	}
	return next
}

// finish waits for the result of an attempt, and makes more of them until there is one or time is up. It returns nil or
// an *Error.
func (c *call) finish(ctx context.Context, current *attempt) error {
	for number := 1; ; number++ {
		failure, isOver := current.failure, ctx.Err() != nil
		if current.server != nil {
			err := c.wait(ctx, current)
			if err == nil {
				return nil
			}
			failure = c.newError(status.Convert(err))
			current.server.answered(failure)
			// Unlike a call, a batch can have another deadline.
			isOver = isTimeUp(ctx, failure) || c.isOutage(ctx)
		}
		pause := pauseAfter(number) + failure.retryDelay
		if !c.judge(failure) || c.calls.isClosed.Load() || isOver || !wait(ctx, pause) {
			return failure
		}
		current = c.begin(ctx)
	}
}

// wait waits for the result of an attempt.
func (c *call) wait(ctx context.Context, current *attempt) error {
	if current.element != nil {
		result, err := current.element.wait(ctx)
		if !errors.Is(err, errUseUnary) {
			if err == nil {
				setResult(c.reply, result)
			}
			return err
		}
		c.maybeApplied = c.maybeApplied || errors.Is(err, errMaybeApplied)
	}
	if ctx.Err() != nil {
		return unapplied(status.FromContextError(ctx.Err()))
	}
	if c.calls.isClosed.Load() {
		return unapplied(status.New(codes.Canceled, "the client is closed"))
	}
	return current.server.conn.Invoke(ctx, c.method, c.request, c.reply, c.options...)
}

// newError is the error of an attempt, with the ids of its request.
func (c *call) newError(from *status.Status) *Error {
	failure := newError(from, requestID(c.request))
	switch request := c.request.(type) {
	case *passbookv1.CreateAccountRequest:
		// Metadata has no place for an id that is not valid UTF-8, with which nothing was sent.
		failure.setMetadata(accountIDKey, strings.ToValidUTF8(request.GetAccountId(), "\ufffd"))
	case *passbookv1.BatchPostTransactionsRequest:
		failure.RequestIDs = idsOf(request.GetRequests(), (*passbookv1.PostTransactionRequest).GetRequestId)
	case *passbookv1.BatchCreateAccountsRequest:
		failure.AccountIDs = idsOf(request.GetRequests(), (*passbookv1.CreateAccountRequest).GetAccountId)
	}
	return failure
}

// judge sets the outcome of an error to that of all attempts so far, and says whether the request may be repeated.
func (c *call) judge(failure *Error) (mayRepeat bool) {
	kind := kindOf(c.request)
	// A server that finds a request invalid does not look for its record. An attempt in doubt may have been made by a
	// server with other settings, to which the request was valid.
	isResult := failure.isResult() && !(c.maybeApplied && failure.isInvalid())
	switch {
	case kind == read || isResult:
		failure.Outcome = NoOutcome
	case !c.maybeApplied && (failure.isDenied() || failure.Outcome == NotApplied):
		// It is as the server says.
	default:
		c.maybeApplied = c.maybeApplied || !failure.isDenied() && failure.Outcome != NotApplied
		failure.setOutcome(Unknown)
	}
	return !failure.isFinal() && (kind != attributes || failure.Outcome == NotApplied)
}

// isOutage is called after an attempt that has failed. It is true at the end of a call without a deadline.
func (c *call) isOutage(ctx context.Context) bool {
	if c.outageStart.IsZero() {
		c.outageStart = time.Now()
	}
	_, hasDeadline := ctx.Deadline()
	return !hasDeadline && time.Since(c.outageStart) > outageMax
}

// isTimeUp is false for a request without a deadline whose attempt took longer than the server allows.
func isTimeUp(ctx context.Context, failure *Error) bool {
	_, hasDeadline := ctx.Deadline()
	return ctx.Err() != nil || hasDeadline && failure.Code == codes.DeadlineExceeded
}

// pauseAfter is random, so that callers that failed together do not come back together.
func pauseAfter(attempt int) time.Duration {
	bound := pauseMax
	if doublings := attempt - 1; doublings < 6 {
		bound = min(pauseMax, pauseBase<<doublings)
	}
	return rand.N(bound)
}

// wait pauses a call. It returns false, at once, if the pause would end after the call's deadline.
func wait(ctx context.Context, pause time.Duration) bool {
	if deadline, has := ctx.Deadline(); has && time.Until(deadline) <= pause {
		return false
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
