package passbook

import (
	"context"
	"errors"
	"net"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"passbook.example/passbook/passbookv1"
)

// withoutServer is what makes calls to a server to which there is no connection, until the end of the test.
func withoutServer(t *testing.T) *calls {
	conn, err := grpc.NewClient("passthrough:///nowhere",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			return nil, errors.New("there is no server")
		}))
	if err != nil {
		t.Fatal(err)
	}
	calls := &calls{servers: []*server{newServer(conn)}}
	t.Cleanup(func() { _ = calls.servers[0].close() })
	return calls
}

// watchStreams runs a watch without a server. stream gets the number of the stream, from 1, and returns the error with
// which it ends.
func watchStreams(t *testing.T, stream func(number int, watch *watch) error) *Error {
	watch := &watch{calls: withoutServer(t)}
	number := 0
	request := &passbookv1.WatchEntriesRequest{}
	return watch.run(t.Context(), request, func(context.Context, passbookv1.AccountServiceClient) error {
		number++
		return stream(number, watch)
	})
}

func TestTheTimeOfTheProgramIsNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure := watchStreams(t, func(number int, watch *watch) error {
			if number == 3 {
				return nil // The loop has ended.
			}
			watch.heard()
			time.Sleep(10 * outageMax)
			return status.Error(codes.Unavailable, "connection lost")
		})
		if failure != nil {
			t.Error(failure)
		}
	})
}

func TestAWatchEndsWithTheLastErrorOfALongOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var start time.Time
		failure := watchStreams(t, func(number int, watch *watch) error {
			if number == 1 {
				watch.heard()
				time.Sleep(10 * outageMax)
				start = time.Now()
			}
			return status.Error(codes.Unavailable, "connection lost")
		})
		took := time.Since(start)
		if failure == nil || failure.Code != codes.Unavailable || took < outageMax || took > 2*outageMax {
			t.Errorf("%v after %v", failure, took)
		}
	})
}

func TestPostAllEndsAfterALongOutage(t *testing.T) {
	for _, unary := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			client := &Client{calls: withoutServer(t)}
			client.calls.unary = unary
			taken := 0
			requests := func(yield func(*passbookv1.PostTransactionRequest) bool) {
				for taken = 1; yield(&passbookv1.PostTransactionRequest{RequestId: strconv.Itoa(taken)}); taken++ {
				}
			}
			start := time.Now()
			var failures []*Error
			for response, err := range client.PostAll(t.Context(), requests) {
				var failure *Error
				if response != nil || !errors.As(err, &failure) || failure.Code != codes.Unavailable {
					t.Fatalf("%v, %v", response, err)
				}
				failures = append(failures, failure)
			}
			if took := time.Since(start); took < outageMax || took > 2*outageMax+pauseMax {
				t.Errorf("it took %v", took)
			}
			// Each has an error of its own, and the last error is for all that are left.
			for i, failure := range failures[:len(failures)-1] {
				if failure.RequestID != strconv.Itoa(i+1) || failure.Outcome != Unknown {
					t.Errorf("%d: %v", i, failure)
				}
			}
			last := failures[len(failures)-1]
			if last.RequestID != "" || last.Outcome != NoOutcome || taken < len(failures) || taken > 3*postAheadMax {
				t.Errorf("%v, and %d requests were taken", last, taken)
			}
		})
	}
}
