/** Batches: each request stands alone, and one without a result is repeated alone. */

import type { CallOptions, Calls, Method } from "./calls.js";
import type { CallState } from "./callState.js";
import { type PassbookError, errorOfStatus, passbookError } from "./errors.js";
import type { Status } from "./gen/google/rpc/status.js";
import {
  AccountServiceService as methods,
  type PostTransactionRequest,
  type PostTransactionResult,
} from "./gen/passbook/v1/account_service.js";
import {
  type Account,
  type NewAccount,
  type Posting,
  type TransactionResult,
  accountOf,
  newAccountMessage,
  postingMessage,
  transactionResultOf,
} from "./model.js";

/** Requests of a batch that are repeated at a time. */
const REPEATS_MAX = 64;

/** See `Client.batchPostTransactions`. */
export async function batchPostTransactions(
  calls: Calls,
  postings: readonly Posting[],
  options: CallOptions | undefined,
): Promise<(TransactionResult | PassbookError)[]> {
  const requests = postings.map(postingMessage);
  const call = calls.begin(options);
  const method = methods.batchPostTransactions;
  const { results } = await calls.changeWithin(method, { requests }, call);
  return completed(requests, (request, index) =>
    resultOf(calls, request, results[index], { ...call }),
  );
}

/** See `Client.batchCreateAccounts`. */
export async function batchCreateAccounts(
  calls: Calls,
  accounts: readonly NewAccount[],
  options: CallOptions | undefined,
): Promise<(Account | PassbookError)[]> {
  const requests = accounts.map(newAccountMessage);
  const call = calls.begin(options);
  const method = methods.batchCreateAccounts;
  const { results } = await calls.changeWithin(method, { requests }, call);
  return completed(requests, async (request, index) => {
    const result = results[index]?.result;
    if (result?.$case === "account") return accountOf(result.value);
    return repeated(calls, methods.createAccount, request, result?.value, { ...call }, (response) =>
      accountOf(response.account),
    );
  });
}

/** The result of one posting of a batch or a stream. `call` has the doubt of the batch or stream. */
export async function resultOf(
  calls: Calls,
  request: PostTransactionRequest,
  posted: PostTransactionResult | undefined,
  call: CallState,
): Promise<TransactionResult | PassbookError> {
  const result = posted?.result;
  if (result?.$case === "transaction") {
    return transactionResultOf({ transaction: result.value, replayed: posted?.replayed ?? false });
  }
  const method = methods.postTransaction;
  return repeated(calls, method, request, result?.value, call, transactionResultOf);
}

/** Repeats a request of a batch or a stream alone, unless its error is final. */
async function repeated<Request extends object, Response, Result>(
  calls: Calls,
  method: Method<Request, Response>,
  request: Request,
  first: Status | undefined,
  call: CallState,
  convert: (response: Response) => Result,
): Promise<Result | PassbookError> {
  if (first === undefined) throw new Error("the server has left out a result");
  try {
    return convert(await calls.repeat(method, request, errorOfStatus(first), call));
  } catch (raised) {
    return passbookError(raised);
  }
}

/** The results of all requests of a batch, in their order. Works on some of them at a time. */
async function completed<Request, Result>(
  requests: readonly Request[],
  complete: (request: Request, index: number) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  const entries = requests.entries();
  const work = async () => {
    for (const [index, request] of entries) results[index] = await complete(request, index);
  };
  await Promise.all(Array.from({ length: REPEATS_MAX }, work));
  return results;
}
