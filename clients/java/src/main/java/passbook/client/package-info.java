/**
 * Calls Passbook, the gRPC service in which account balances change.
 *
 * <p>{@link passbook.client.PassbookClient} has the generated stubs of the contract ({@code
 * passbook.v1}), and keeps the promises that a caller of Passbook has to keep: one request id for
 * all attempts of a call, a timeout, retries with a pause, and errors that say what became of the
 * request.
 */
package passbook.client;
