/** The state of a call, which its attempts share. */

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
  return { deadline: performance.now() + timeoutMs, signal, inDoubt: false };
}

/** The time that a call has left. */
export function leftMs(call: CallState): number {
  return Math.max(call.deadline - performance.now(), 0);
}
