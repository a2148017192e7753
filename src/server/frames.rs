//! Counts the calls in the bytes of an HTTP/2 connection, by the headers of its frames, and finds frames that
//! cost the server more than the peer: blocks of headers that have no end yet or many fields, and DATA frames
//! of a few bytes.

use std::time::Duration;

use tokio::time::Instant;

/// The length of a frame's header, in bytes: length, type, flags and stream (RFC 9113, 4.1).
const HEADER_LENGTH: usize = 9;
/// The type of a frame with a part of a body (RFC 9113, 6.1).
const DATA: u8 = 0;
/// The type of the frame that begins a call (RFC 9113, 6.2). Trailers have the same.
const HEADERS: u8 = 1;
/// The type of a frame with more of a block of headers (RFC 9113, 6.10).
const CONTINUATION: u8 = 9;
/// The flag of the last frame of a block of headers.
const END_HEADERS: u8 = 4;
/// The flag of the last frame of a request.
const END_STREAM: u8 = 1;

/// What a call costs beside its headers, as much as so many small frames.
const CALL_COST: usize = 8;
/// The bytes of headers that cost nothing more: those of most calls, after the first. Beyond them each byte costs
/// as much as a small frame, because it may be a field that the peer has sent before, which takes some 300
/// bytes again.
const CHEAP_HEADERS: usize = 64;
/// A DATA frame with fewer bytes is a small one: h2 keeps more for it than what it brings.
const SMALL_DATA: usize = 256;
/// A DATA frame with fewer bytes is tiny: not even the smallest request of a stream fits into it.
const TINY_DATA: usize = 24;
/// Tiny DATA frames of a connection in [`TINY_FRAMES_TIME`], beyond two for each call, which may have a short
/// message and an end. h2 keeps some 170 bytes for each until its stream reads it. With fewer, a proxy that
/// cuts messages into pieces could be closed.
const TINY_FRAMES_MAX: usize = 1024;
const TINY_FRAMES_TIME: Duration = Duration::from_secs(10);

/// Where in its frames a connection is.
pub struct Frames {
    /// What has been received of the present frame's header.
    header: [u8; HEADER_LENGTH],
    header_received: usize,
    /// What is to come of the present frame's payload.
    payload_left: usize,
    /// The last frame that had headers was not the last one of its block.
    is_continued: bool,
    tiny_frames: usize,
    /// Since when they are counted.
    tiny_frames_since: Instant,
}

/// What begins in some bytes of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Begun {
    pub calls: usize,
    /// What they cost, and the small frames, in small frames.
    pub cost: usize,
}

impl Frames {
    /// The frames that come after so many bytes.
    pub fn after(preface_length: usize) -> Self {
        Self {
            header: [0; HEADER_LENGTH],
            header_received: 0,
            payload_left: preface_length,
            is_continued: false,
            tiny_frames: 0,
            tiny_frames_since: Instant::now(),
        }
    }

    /// Whether the peer sends tiny frames only to have them kept.
    pub fn has_too_many_tiny_frames(&self) -> bool {
        self.tiny_frames > TINY_FRAMES_MAX
    }

    /// How many bytes are to come of the present frame: there is no call in them.
    pub fn payload_left(&self) -> usize {
        self.payload_left
    }

    /// Whether a block of headers needs one more frame. h2 keeps what it has decoded of it.
    pub fn is_continued(&self) -> bool {
        self.is_continued
    }

    /// Whether a block of headers has no end yet.
    pub fn is_within_headers(&self) -> bool {
        let [_, _, _, kind, ..] = self.header;
        self.is_continued || self.payload_left > 0 && matches!(kind, HEADERS | CONTINUATION)
    }

    /// Returns what begins in these bytes, which follow those before.
    pub fn count(&mut self, mut bytes: &[u8]) -> Begun {
        let mut begun = Begun::default();
        loop {
            let skipped = self.payload_left.min(bytes.len());
            self.payload_left -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return begun;
            }
            let taken = (HEADER_LENGTH - self.header_received).min(bytes.len());
            let end = self.header_received + taken;
            self.header[self.header_received..end].copy_from_slice(&bytes[..taken]);
            (self.header_received, bytes) = (end, &bytes[taken..]);
            if self.header_received < HEADER_LENGTH {
                return begun;
            }
            self.header_received = 0;
            let [high, middle, low, kind, flags, ..] = self.header;
            self.payload_left = u32::from_be_bytes([0, high, middle, low]) as usize;
            match kind {
                HEADERS | CONTINUATION => {
                    self.is_continued = flags & END_HEADERS == 0;
                    begun.cost += self.payload_left.saturating_sub(CHEAP_HEADERS);
                }
                DATA if self.payload_left < SMALL_DATA => begun.cost += 1,
                _ => {}
            }
            match kind {
                HEADERS => {
                    begun.calls += 1;
                    begun.cost += CALL_COST;
                    self.tiny_frames = self.tiny_frames.saturating_sub(2);
                }
                DATA if self.payload_left < TINY_DATA => self.note_tiny_frame(flags),
                _ => {}
            }
        }
    }

    fn note_tiny_frame(&mut self, flags: u8) {
        if self.tiny_frames_since.elapsed() > TINY_FRAMES_TIME {
            (self.tiny_frames, self.tiny_frames_since) = (0, Instant::now());
        }
        self.tiny_frames += usize::from(flags & END_STREAM == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let header = [0, 0, length, kind, 0, 0, 0, 0, 1];
        [&header[..], &vec![HEADERS; usize::from(length)]].concat()
    }

    #[test]
    fn calls_are_counted_however_their_bytes_are_cut() {
        let preface = vec![HEADERS; 24];
        let frames =
            [preface, frame(4, 0), frame(HEADERS, 30), frame(0, 200), frame(HEADERS, 0)].concat();
        for part in 1..=frames.len() {
            let mut counted = Frames::after(24);
            let calls: usize = frames.chunks(part).map(|bytes| counted.count(bytes).calls).sum();
            assert_eq!(calls, 2, "in parts of {part} bytes");
        }
    }

    #[test]
    fn headers_with_many_fields_and_small_frames_cost_more() {
        let cost = |kind: u8, length: u8| Frames::after(0).count(&frame(kind, length)).cost;
        assert_eq!([cost(HEADERS, 20), cost(HEADERS, 64), cost(HEADERS, 164)], [8, 8, 108]);
        assert_eq!([cost(CONTINUATION, 64), cost(CONTINUATION, 164)], [0, 100]);
        assert_eq!([cost(DATA, 0), cost(DATA, 255), cost(4, 6)], [1, 1, 0]);
    }

    #[test]
    fn tiny_frames_are_few() {
        let send = |frames: &mut Frames, frame: &[u8], count: usize| {
            (0..count).for_each(|_| _ = frames.count(frame));
            frames.has_too_many_tiny_frames()
        };
        let tiny = frame(DATA, 23);
        let mut frames = Frames::after(0);
        assert!(!send(&mut frames, &frame(DATA, 24), 5 * TINY_FRAMES_MAX));
        assert!(!send(&mut frames, &tiny, TINY_FRAMES_MAX));
        assert!(send(&mut frames, &tiny, 1));
        assert!(!send(&mut frames, &frame(HEADERS, 9), 1), "a call may have two");
        assert!(send(&mut frames, &tiny, 2));
        frames.tiny_frames_since -= TINY_FRAMES_TIME;
        assert!(!send(&mut frames, &tiny, TINY_FRAMES_MAX), "they are counted anew");
        assert!(send(&mut frames, &tiny, 1));
        let mut end = tiny;
        end[4] = END_STREAM;
        assert!(!send(&mut Frames::after(0), &end, 2 * TINY_FRAMES_MAX), "each ends a request");
    }

    #[test]
    fn a_block_of_headers_has_an_end() {
        let block = |kind: u8, flags: u8| {
            let mut bytes = frame(kind, 3);
            bytes[4] = flags;
            bytes
        };
        let mut frames = Frames::after(0);
        let mut read = |bytes: &[u8]| {
            frames.count(bytes);
            (frames.is_within_headers(), frames.is_continued())
        };
        let whole = block(HEADERS, END_HEADERS);
        assert_eq!(read(&whole[..HEADER_LENGTH]), (true, false));
        assert_eq!(read(&whole[HEADER_LENGTH..]), (false, false));
        assert_eq!(read(&frame(0, 3)), (false, false));
        assert_eq!(read(&block(HEADERS, 0)), (true, true));
        assert_eq!(read(&block(CONTINUATION, 0)), (true, true));
        let last = block(CONTINUATION, END_HEADERS);
        assert_eq!(read(&last[..HEADER_LENGTH + 1]), (true, false));
        assert_eq!(read(&last[HEADER_LENGTH + 1..]), (false, false));
    }
}
