// Package passbook calls Passbook, the gRPC service in which account balances change.
//
// A [Client] has the methods of the contract, with its generated requests and responses, and keeps the
// promises that a caller of Passbook has to keep: one request id for all attempts of a call, a timeout,
// retries with a pause, and errors that say what became of the request.
//
//	client, err := passbook.New([]string{"127.0.0.1:50051"})
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//	response, err := client.Deposit(ctx, &passbookv1.DepositRequest{
//		RequestId: "salary-2026-11",
//		AccountId: "joint",
//		Amount:    passbook.Money(decimal.RequireFromString("1000.00"), "USD"),
//	})
//
// # Requests
//
// A request that changes balances or holds has a request id. If RequestId is empty, the client makes one, and
// the response and the error have it. An id that the client made is lost with the program: where a program may
// end between a call and its result, choose the id yourself and store it before the call.
//
// # Time
//
// The deadline of the context bounds the whole call, with all attempts and pauses. A context without a deadline
// gives a call 10 seconds ([WithTimeout]).
//
// # Errors
//
// Every error of a call is an [*Error], with a reason and an outcome. After [Unknown], repeat the call under the
// id of the error (RequestID, or AccountID of CreateAccount), or call FenceRequest to make sure that the request is
// never applied. If a whole batch has failed, its error has the ids of all of its elements (RequestIDs or AccountIDs).
//
// # Streams
//
// Concurrent calls of one client share one stream to each server, which makes each call far cheaper. Timeouts,
// cancellation and errors are those of single calls. [WithUnary] makes a gRPC call of each instead.
package passbook
