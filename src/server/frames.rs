//! Counts the calls in the bytes of an HTTP/2 connection, by the headers of its frames, and finds frames that
//! cost the server more than the peer: blocks of headers that have no end yet or many fields, and DATA frames
//! of a few bytes.

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

/// What a call costs beside its headers, as much as so many small frames.
const CALL_COST: usize = 8;
/// The bytes of headers that cost nothing more: those of most calls, after the first. Beyond them four bytes cost
/// as much as a small frame, because each may be a field that the peer has sent before, which takes some 300
/// bytes again. Most are those of long tokens, which take no more than they have.
const CHEAP_HEADERS: usize = 64;
const HEADER_BYTES_OF_COST: usize = 4;
/// A DATA frame with fewer bytes is a small one: h2 keeps more for it than what it brings.
const SMALL_DATA: usize = 256;

/// Where in its frames a connection is.
pub struct Frames {
    /// What has been received of the present frame's header.
    header: [u8; HEADER_LENGTH],
    header_received: usize,
    /// What is to come of the present frame's payload.
    payload_left: usize,
    /// The last frame that had headers was not the last one of its block.
    is_continued: bool,
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
        }
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
                    let more = self.payload_left.saturating_sub(CHEAP_HEADERS);
                    begun.cost += more / HEADER_BYTES_OF_COST;
                }
                DATA if self.payload_left < SMALL_DATA => begun.cost += 1,
                _ => {}
            }
            if kind == HEADERS {
                begun.calls += 1;
                begun.cost += CALL_COST;
            }
        }
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
        assert_eq!([cost(HEADERS, 20), cost(HEADERS, 64), cost(HEADERS, 164)], [8, 8, 33]);
        assert_eq!([cost(CONTINUATION, 64), cost(CONTINUATION, 164)], [0, 25]);
        assert_eq!([cost(DATA, 0), cost(DATA, 255), cost(4, 6)], [1, 1, 0]);
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
