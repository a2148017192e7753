package passbook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"passbook.example/passbook/passbookv1"
)

// Version is that of this client and of the contract that it was made from.
const Version = "0.1.0"

const (
	// timeoutDefault is the default of WithTimeout. Servers give a call the same time by default.
	timeoutDefault = 10 * time.Second
	// reconnectDelayMax bounds the pause between attempts to connect. gRPC's own bound of two minutes would keep
	// a restarted server idle.
	reconnectDelayMax = time.Second
	// keepaliveInterval and keepaliveTimeout find a peer that is gone without a word.
	keepaliveInterval = 10 * time.Second
	keepaliveTimeout  = 5 * time.Second
)

// Client calls the servers of one ledger. Its methods are those of the contract. It is safe for concurrent use.
//
// The streams of StreamTransactions, WatchEntries and WatchEvents are the bare ones of gRPC. [Client.PostAll],
// [Client.Watch] and [Client.Events] survive broken connections.
type Client struct {
	passbookv1.AccountServiceClient
	calls *calls
}

// Option changes a default of New.
type Option func(*options)

type options struct {
	timeout time.Duration
	token   func(context.Context) (string, error)
	tls     *tls.Config
	unary   bool
}

// WithTimeout sets the time of a call whose context has no deadline. It bounds all attempts and pauses together.
func WithTimeout(timeout time.Duration) Option {
	return func(o *options) { o.timeout = timeout }
}

// WithToken sends a bearer token with each call.
func WithToken(token string) Option {
	return WithTokenSource(func(context.Context) (string, error) { return token, nil })
}

// WithTokenSource sends the bearer token that the function returns, for tokens that expire. The function is
// called for each attempt, so it should return the same token as long as that is valid. Its error ends the call with
// the code Unauthenticated: nothing was sent. A call waits for it until its deadline, and a stream, which has none, as
// long as WithTimeout says.
func WithTokenSource(source func(context.Context) (string, error)) Option {
	return func(o *options) { o.token = source }
}

// WithTLS encrypts the connections. The certificates of the configuration are for mutual TLS. An empty
// configuration trusts the authorities of the system.
func WithTLS(config *tls.Config) Option {
	return func(o *options) { o.tls = config }
}

// WithUnary makes a gRPC call of each request, instead of sending concurrent requests in one stream.
func WithUnary() Option {
	return func(o *options) { o.unary = true }
}

// New makes a client of the servers with these addresses (HOST:PORT), all of one ledger. Calls go round the
// servers. New does not wait for connections.
func New(addresses []string, opts ...Option) (*Client, error) {
	if len(addresses) == 0 {
		return nil, errors.New("passbook: there is no address")
	}
	chosen := options{timeout: timeoutDefault}
	for _, option := range opts {
		option(&chosen)
	}
	client := &Client{calls: &calls{timeout: chosen.timeout, unary: chosen.unary}}
	client.AccountServiceClient = passbookv1.NewAccountServiceClient(client.calls)
	for _, address := range addresses {
		conn, err := connect(address, &chosen)
		if err != nil {
			return nil, errors.Join(err, client.Close())
		}
		client.calls.servers = append(client.calls.servers, newServer(conn))
	}
	return client, nil
}

// Close ends the connections. Calls that are under way end with an error.
func (c *Client) Close() error {
	c.calls.isClosed.Store(true)
	var failures []error
	for _, server := range c.calls.servers {
		failures = append(failures, server.close())
	}
	return errors.Join(failures...)
}

func connect(address string, chosen *options) (*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	if chosen.tls != nil {
		transport = credentials.NewTLS(chosen.tls)
	}
	reconnect := backoff.DefaultConfig
	reconnect.BaseDelay = pauseBase
	reconnect.MaxDelay = reconnectDelayMax
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithUserAgent("passbook-go/" + Version),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: keepaliveTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveInterval, Timeout: keepaliveTimeout}),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
	}
	if chosen.token != nil {
		if chosen.tls == nil && !isLoopback(address) {
			return nil, fmt.Errorf("passbook: a token for %s needs TLS: anyone on the way could read it", address)
		}
		dial = append(dial, grpc.WithPerRPCCredentials(bearer{token: chosen.token, timeout: chosen.timeout}))
	}
	conn, err := grpc.NewClient(address, dial...)
	if err != nil {
		return nil, fmt.Errorf("passbook: %s: %w", address, err)
	}
	return conn, nil
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// bearer adds the token to each call.
type bearer struct {
	token func(context.Context) (string, error)
	// timeout is for attempts without a deadline. All callers of a shared stream wait for its token.
	timeout time.Duration
}

func (b bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, err := b.ask(ctx)
	switch {
	case err == nil:
		return map[string]string{"authorization": "Bearer " + token}, nil
	case ctx.Err() != nil:
		return nil, unapplied(status.FromContextError(ctx.Err()))
	default:
		// A status in the error is that of another service, and must not pass for that of the server.
		return nil, status.Errorf(codes.Unauthenticated, "there is no token: %v", err)
	}
}

// ask returns at the end of the context, even if the function does not.
func (b bearer) ask(ctx context.Context) (string, error) {
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, b.timeout)
		defer cancel()
	}
	type answer struct {
		token string
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		token, err := b.token(ctx)
		answers <- answer{token, err}
	}()
	select {
	case answer := <-answers:
		return answer.token, answer.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// RequireTransportSecurity leaves the decision to connect, which knows the address.
func (bearer) RequireTransportSecurity() bool {
	return false
}
