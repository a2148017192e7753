/** Text that cannot be sent. */

/**
 * Whether a text in a message has half of a surrogate pair. UTF-8 has no such thing, so the server would
 * get another character in its place, and another text than the caller's.
 */
export function hasHalfPair(part: unknown): boolean {
  if (typeof part === "string") return /\p{Surrogate}/u.test(part);
  if (typeof part !== "object" || part === null) return false;
  // Names, because those of labels are the caller's.
  return Object.entries(part).some(([name, value]) => hasHalfPair(name) || hasHalfPair(value));
}
