package passbook

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"passbook.example/passbook/passbookv1"
)

const (
	// messageRequestsMax is the contract's limit of requests in one message.
	messageRequestsMax = 1000
	// messageBytesMax is far below a server's limit of 1 MiB, which an operator may have lowered.
	messageBytesMax = 256 << 10
	// streamedBytesMax: a larger request goes alone.
	streamedBytesMax = 64 << 10
	// streamedIDMax is the contract's limit of bytes in a request id. The result of a longer one does not name it, so
	// such a request goes alone.
	streamedIDMax = 64
	// gatherTime is how long a message waits for more requests while others are on their way. Callers whose results
	// came together send their next requests one after another.
	gatherTime = time.Millisecond
	// unaryTime is how long requests go alone after a server did not take the stream.
	unaryTime = time.Minute
)

// errUseUnary says that this request cannot go by the stream.
var errUseUnary = errors.New("passbook: the request goes alone")

// errMaybeApplied says the same of a request that a stream had before it ended, without a word on what became of it.
var errMaybeApplied = fmt.Errorf("%w, and may have been applied", errUseUnary)

// sharedStream carries the concurrent requests of a client to one server, by one gRPC stream at a time. While a
// message is on its way, the next one gathers the requests that wait.
type sharedStream struct {
	stub passbookv1.AccountServiceClient

	mutex   sync.Mutex
	session *session
	// unaryUntil: the server did not take the stream, because it is older or its policy does not allow it.
	unaryUntil time.Time
	isClosed   bool
}

func newSharedStream(stub passbookv1.AccountServiceClient) *sharedStream {
	return &sharedStream{stub: stub}
}

// begin enqueues a request, behind those that were enqueued before.
func (s *sharedStream) begin(
	ctx context.Context, element *passbookv1.StreamedRequest, requestID string,
) (*streamedCall, error) {
	request := &streamedCall{element: element, requestID: requestID, done: make(chan struct{})}
	request.bytes = proto.Size(element)
	request.deadline, _ = ctx.Deadline()
	if request.bytes > streamedBytesMax || len(requestID) > streamedIDMax {
		return nil, errUseUnary
	}
	if err := s.enqueue(request); err != nil {
		return nil, err
	}
	return request, nil
}

// wait waits for the result of a request, until the end of the context.
func (request *streamedCall) wait(ctx context.Context) (*passbookv1.StreamedResult, error) {
	select {
	case <-request.done:
	case <-ctx.Done():
		ended := status.FromContextError(ctx.Err())
		if request.session.forget(request) {
			return nil, unapplied(ended)
		}
		return nil, ended.Err()
	}
	if request.err != nil {
		return nil, request.err
	}
	if failure := request.result.GetError(); failure != nil {
		return nil, status.ErrorProto(failure)
	}
	return request.result, nil
}

// enqueue hands the request to the session, and opens one if there is none.
func (s *sharedStream) enqueue(request *streamedCall) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.isClosed || time.Now().Before(s.unaryUntil) {
		return errUseUnary
	}
	if s.session == nil {
		s.session = newSession(s)
		go s.session.run(s.stub)
	}
	request.session = s.session
	if !s.session.enqueue(request) {
		return errUseUnary
	}
	return nil
}

// ended forgets a session. If the server does not take the stream, requests go alone for a while. A credential
// that has expired is no reason: the next stream has a new one.
func (s *sharedStream) ended(ended *session, failure *Error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.session == ended {
		s.session = nil
	}
	if failure.isFinal() && failure.Code != codes.Unauthenticated {
		s.unaryUntil = time.Now().Add(unaryTime)
	}
}

func (s *sharedStream) close() {
	s.mutex.Lock()
	s.isClosed = true
	session := s.session
	s.mutex.Unlock()
	if session != nil {
		session.cancel()
	}
}

// streamedCall is a request with the caller that waits for it.
type streamedCall struct {
	element   *passbookv1.StreamedRequest
	requestID string
	bytes     int
	deadline  time.Time
	session   *session
	// isSent is guarded by the mutex of the session.
	isSent bool

	// done is closed once result or err is set.
	done   chan struct{}
	result *passbookv1.StreamedResult
	err    error
}

// session is one gRPC stream from its beginning to its end.
type session struct {
	parent *sharedStream
	// The stream lives longer than each of its callers.
	ctx    context.Context
	cancel context.CancelFunc
	// wake has an element if there are new requests.
	wake chan struct{}

	mutex   sync.Mutex
	queue   []*streamedCall
	pending map[string]*streamedCall
	// sent counts the requests that have no result yet.
	sent        int
	hasBegun    bool
	hasAnswered bool
	hasEnd      bool
}

func newSession(parent *sharedStream) *session {
	ctx, cancel := context.WithCancel(context.Background())
	return &session{
		parent:  parent,
		ctx:     ctx,
		cancel:  cancel,
		wake:    make(chan struct{}, 1),
		pending: make(map[string]*streamedCall),
	}
}

// enqueue returns false if another call with the same id is in flight, since results are matched by their ids.
func (s *session) enqueue(request *streamedCall) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if _, is := s.pending[request.requestID]; is || s.hasEnd {
		return false
	}
	s.pending[request.requestID] = request
	s.queue = append(s.queue, request)
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return true
}

// forget drops a request that no caller waits for. If it was sent, its id stays in use until its result comes: a
// repeat would get that result, which says nothing of the repeat. It returns true if the stream has not begun, because
// it waits for the connection or the token: then nothing was sent.
func (s *session) forget(request *streamedCall) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if request.isSent || s.pending[request.requestID] != request {
		return false
	}
	delete(s.pending, request.requestID)
	return !s.hasBegun
}

// run opens the stream, sends what waits, and ends with the stream.
func (s *session) run(stub passbookv1.AccountServiceClient) {
	defer s.cancel()
	stream, err := stub.StreamTransactions(s.ctx)
	if err != nil {
		s.end(err)
		return
	}
	s.mutex.Lock()
	s.hasBegun = true
	s.mutex.Unlock()
	go s.receive(stream)
	order := passbookv1.ResultOrder_RESULT_ORDER_AS_COMPLETED
	for {
		select {
		case <-s.wake:
		case <-s.ctx.Done():
			return
		}
		if s.isBusy() {
			time.Sleep(gatherTime)
		}
		for message := s.take(); message != nil; message = s.take() {
			message.ResultOrder = order
			order = passbookv1.ResultOrder_RESULT_ORDER_UNSPECIFIED
			if err := stream.Send(message); err != nil {
				return // receive gets the status.
			}
		}
	}
}

// isBusy says that requests are on their way.
func (s *session) isBusy() bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.sent > 0
}

// take makes the next message of the requests that wait. Nil: there are none.
func (s *session) take() *passbookv1.StreamTransactionsRequest {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	message := &passbookv1.StreamTransactionsRequest{}
	now := time.Now()
	bytes, taken := 0, 0
	for _, request := range s.queue {
		if len(message.Requests) == messageRequestsMax || bytes > messageBytesMax {
			break
		}
		taken++
		if s.pending[request.requestID] != request {
			continue // Its caller has left.
		}
		if !request.deadline.IsZero() {
			request.element.Timeout = durationpb.New(max(0, request.deadline.Sub(now)))
		}
		request.isSent = true
		message.Requests = append(message.Requests, request.element)
		bytes += request.bytes
	}
	clear(s.queue[:taken])
	s.queue = s.queue[taken:]
	s.sent += len(message.Requests)
	if len(message.Requests) == 0 {
		return nil
	}
	return message
}

// receive hands out results until the stream ends.
func (s *session) receive(stream interface {
	Recv() (*passbookv1.StreamTransactionsResponse, error)
}) {
	for {
		message, err := stream.Recv()
		if err == nil && message.GetResult() != nil {
			err = status.Error(codes.Unimplemented, "the server does not take several requests in a message")
		}
		if err != nil {
			s.end(err)
			return
		}
		s.complete(message.GetResults())
	}
}

func (s *session) complete(results []*passbookv1.StreamedResult) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.hasAnswered = true
	for _, result := range results {
		if request, is := s.pending[result.GetRequestId()]; is {
			delete(s.pending, result.GetRequestId())
			s.sent--
			request.result = result
			close(request.done)
		}
	}
}

// end fails all requests that have no result. If the error is final, it is about the stream or about one request
// in it: each request goes alone, and gets the result of its own.
func (s *session) end(err error) {
	s.cancel()
	failure := newError(status.Convert(err), "")
	s.parent.ended(s, failure)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.hasEnd = true
	// A server that denies a stream before its first answer has not looked at a request.
	isUnapplied := failure.Outcome == NotApplied || failure.isDenied() && !s.hasAnswered
	for _, request := range s.pending {
		switch {
		case !failure.isFinal():
			request.err = err
		case request.isSent && !isUnapplied:
			request.err = errMaybeApplied
		default:
			request.err = errUseUnary
		}
		close(request.done)
	}
	clear(s.pending)
}
