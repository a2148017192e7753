/** The state of a call, which its attempts share. */

/** The longest time of a timer of Node. A longer timeout is as good as none. */
const TIMEOUT_MAX_MS = 2 ** 31 - 1;

/** One call: its time, and what is known of its attempts. */
export interface CallState {
  /** By `performance.now()`, since the time of day can jump. */
  readonly deadline: number;
  /** Each of these ends the call: its caller cancels it, or closes the client. */
  readonly ends: readonly AbortSignal[];
  /** Whether an attempt has ended that may have been applied. */
  inDoubt: boolean;
}

/** A call that begins now. */
export function beginCall(timeoutMs: number, ends: readonly AbortSignal[]): CallState {
  // A message for many calls could not hold an infinite timeout, nor one that is no number.
  const boundedMs = timeoutMs > 0 ? Math.min(timeoutMs, TIMEOUT_MAX_MS) : 0;
  return { deadline: performance.now() + boundedMs, ends, inDoubt: false };
}

/** The time that a call has left. */
export function leftMs(call: CallState): number {
  return Math.max(call.deadline - performance.now(), 0);
}

/** Whether one of the signals has ended the call. */
export function isEnded(ends: readonly AbortSignal[]): boolean {
  return ends.some((signal) => signal.aborted);
}

/** Calls a function when a signal ends the call, now or later. Returns what stops that. */
export function onEnd(ends: readonly AbortSignal[], end: () => void): () => void {
  const stop = () => {
    for (const signal of ends) signal.removeEventListener("abort", once);
  };
  const once = () => {
    stop();
    end();
  };
  for (const signal of ends) signal.addEventListener("abort", once);
  if (isEnded(ends)) once();
  return stop;
}

/** Waits. False if a signal ended the wait. */
export async function slept(ms: number, ends: readonly AbortSignal[]): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => {
      stop();
      resolve(true);
    }, ms);
    const stop = onEnd(ends, () => {
      clearTimeout(timer);
      resolve(false);
    });
  });
}

/**
 * What a function of the caller returns, if that comes before the end of the call. Undefined: it took
 * too long, or the call was canceled.
 */
export async function within<Value>(
  call: CallState,
  ask: () => Value | Promise<Value>,
): Promise<{ value: Value } | undefined> {
  let giveUp = () => {};
  const end = new Promise<undefined>((resolve) => {
    giveUp = () => {
      resolve(undefined);
    };
  });
  const timer = setTimeout(giveUp, leftMs(call));
  const stop = onEnd(call.ends, giveUp);
  const answer = async () => ({ value: await ask() });
  try {
    return await Promise.race([answer(), end]);
  } finally {
    clearTimeout(timer);
    stop();
  }
}
