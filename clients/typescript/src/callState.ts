/** The state of a call, which its attempts share. */

/** The longest time of a timer of Node. A longer timeout is as good as none. */
const TIMEOUT_MAX_MS = 2 ** 31 - 1;

/** One call: its time, and what is known of its attempts. */
export interface CallState {
  /** By `performance.now()`, since the time of day can jump. */
  readonly deadline: number;
  /** Cancels the call. */
  readonly signal: AbortSignal | undefined;
  /** Whether an attempt has ended that may have been applied. */
  inDoubt: boolean;
}

/** A call that begins now. */
export function beginCall(timeoutMs: number, signal: AbortSignal | undefined): CallState {
  // A message for many calls could not hold an infinite timeout, nor one that is no number.
  const boundedMs = timeoutMs > 0 ? Math.min(timeoutMs, TIMEOUT_MAX_MS) : 0;
  return { deadline: performance.now() + boundedMs, signal, inDoubt: false };
}

/** The time that a call has left. */
export function leftMs(call: CallState): number {
  return Math.max(call.deadline - performance.now(), 0);
}

/**
 * What a function of the caller returns, if that comes before the end of the call. Undefined: it took
 * too long, or the call was canceled.
 */
export async function within<Value>(
  call: CallState,
  ask: () => Value | Promise<Value>,
): Promise<{ value: Value } | undefined> {
  const { signal } = call;
  let giveUp = () => {};
  const end = new Promise<undefined>((resolve) => {
    giveUp = () => {
      resolve(undefined);
    };
  });
  const timer = setTimeout(giveUp, leftMs(call));
  signal?.addEventListener("abort", giveUp, { once: true });
  if (signal?.aborted === true) giveUp();
  const answer = async () => ({ value: await ask() });
  try {
    return await Promise.race([answer(), end]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", giveUp);
  }
}
