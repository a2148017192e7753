//! Raw HTTP/2 frames, for what no well-behaved client sends (RFC 9113).

use std::{io, net::SocketAddr, time::Duration};

use prost::Message;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::harness::PATIENCE;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// How long the server may leave sent bytes unread.
const WRITE_TIME_MAX: Duration = Duration::from_secs(2);
/// The initial flow-control window of a connection (RFC 9113, 6.9.2).
const FIRST_WINDOW: i64 = 65_535;
/// The largest flow-control window.
const WINDOW_MAX: u32 = (1 << 31) - 1;
/// The size of a frame header: length, type, flags, stream.
const FRAME_HEADER: usize = 9;

/// A connection that sends frames unchecked.
pub struct Raw {
    stream: TcpStream,
    next_stream: u32,
    headers: Vec<(&'static str, String)>,
    /// Received bytes that are no complete frame yet.
    received: Vec<u8>,
    /// The flow-control window of the connection.
    window: i64,
    /// The last stream with an answer.
    answered: u32,
    /// The headers of that answer have ended the stream.
    is_ended_by_headers: bool,
    /// False: the socket is never read.
    reads: bool,
}

impl Raw {
    /// Connects and begins HTTP/2.
    pub async fn connect(address: SocketAddr, authorization: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut raw = Self::over(stream, authorization);
        raw.write(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await?;
        Ok(raw)
    }

    /// A connection whose flow control does not let the server send any response.
    pub async fn without_window(address: SocketAddr, authorization: &str) -> io::Result<Self> {
        let mut raw = Self::over(TcpStream::connect(address).await?, authorization);
        raw.write(&[PREFACE, &frame(SETTINGS, 0, 0, &window(0))].concat()).await?;
        Ok(raw)
    }

    /// A connection whose flow control lets the server send everything, and which reads nothing.
    pub async fn never_reading(address: SocketAddr, authorization: &str) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        let mut raw = Self::over(socket.connect(address).await?, authorization);
        raw.reads = false;
        let settings = frame(SETTINGS, 0, 0, &window(WINDOW_MAX));
        let of_connection = (WINDOW_MAX - FIRST_WINDOW as u32).to_be_bytes();
        let of_connection = frame(WINDOW_UPDATE, 0, 0, &of_connection);
        raw.write(&[PREFACE, &settings, &of_connection].concat()).await?;
        Ok(raw)
    }

    fn over(stream: TcpStream, authorization: &str) -> Self {
        let headers = vec![
            (":method", "POST".to_owned()),
            (":scheme", "http".to_owned()),
            (":authority", "localhost".to_owned()),
            ("content-type", "application/grpc".to_owned()),
            ("te", "trailers".to_owned()),
            ("authorization", authorization.to_owned()),
        ];
        let (received, window) = (Vec::new(), FIRST_WINDOW);
        Self {
            stream,
            next_stream: 1,
            headers,
            received,
            window,
            answered: 0,
            is_ended_by_headers: false,
            reads: true,
        }
    }

    /// Adds a header to every later call.
    pub fn add_header(&mut self, name: &'static str, value: String) {
        self.headers.push((name, value));
    }

    /// Writes bytes. An error means that the connection has ended.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.read()?;
        timeout(WRITE_TIME_MAX, self.stream.write_all(bytes)).await?
    }

    /// Whether the server has closed the connection, asked without reading.
    pub fn is_closed(&self) -> bool {
        matches!(self.stream.try_write(&[0]), Err(error) if error.kind() != io::ErrorKind::WouldBlock)
    }

    /// Writes DATA frames of this size as soon as the flow-control window allows.
    pub async fn write_data(&mut self, bytes: &[u8], data: usize) -> io::Result<()> {
        self.window -= i64::try_from(data).expect("little");
        let may_be_sent = async {
            while self.window < 0 {
                self.stream.readable().await?;
                self.read()?;
            }
            Ok::<_, io::Error>(())
        };
        timeout(WRITE_TIME_MAX, may_be_sent).await??;
        self.write(bytes).await
    }

    /// Reads all received frames. Only window updates and answers matter.
    fn read(&mut self) -> io::Result<()> {
        if !self.reads {
            return Ok(());
        }
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.try_read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::ConnectionAborted.into()),
                Ok(length) => self.received.extend(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        while let Some(header) = self.received.first_chunk::<FRAME_HEADER>() {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
            let is_window_update = header[3] == WINDOW_UPDATE && stream == 0;
            if header[3] == HEADERS && stream > self.answered {
                self.answered = stream;
                self.is_ended_by_headers = header[4] & END_STREAM != 0;
            }
            let end = FRAME_HEADER + length;
            let Some(payload) = self.received.get(FRAME_HEADER..end) else { break };
            if is_window_update && let Some(more) = payload.first_chunk() {
                self.window += i64::from(u32::from_be_bytes(*more));
            }
            self.received.drain(..end);
        }
        Ok(())
    }

    /// Waits for the answer to this call, or at least its headers.
    pub async fn answer(&mut self, stream: u32) -> io::Result<()> {
        let is_answered = async {
            while self.answered < stream {
                self.stream.readable().await?;
                self.read()?;
            }
            Ok(())
        };
        timeout(PATIENCE, is_answered).await?
    }

    /// Whether the headers of the last answer have ended its stream, so that there is no body.
    pub fn is_ended_by_headers(&self) -> bool {
        self.is_ended_by_headers
    }

    /// Begins a call of this method.
    pub fn call(&self, stream: u32, path: &str) -> Vec<u8> {
        frame(HEADERS, END_HEADERS, stream, &self.block(path))
    }

    /// The same with so many fields `x` without a value, each in one byte.
    pub fn call_with_fields(&self, stream: u32, path: &str, count: usize) -> Vec<u8> {
        let mut block = self.block(path);
        block.extend(KEPT_FIELD);
        block.resize(block.len() + count, FIRST_DYNAMIC);
        frame(HEADERS, END_HEADERS, stream, &block)
    }

    /// Calls a method with this one message, on a new stream.
    pub fn unary(&mut self, path: &str, message: &impl Message) -> Vec<u8> {
        let stream = self.open();
        [self.call(stream, path), data(stream, &framed(message)), end(stream)].concat()
    }

    /// Calls a method so often at once, each time with this one message.
    pub async fn write_calls(
        &mut self,
        path: &str,
        message: &impl Message,
        count: usize,
    ) -> io::Result<()> {
        let calls: Vec<u8> = (0..count).flat_map(|_| self.unary(path, message)).collect();
        self.write(&calls).await
    }

    /// A call whose headers never end.
    pub fn call_without_end(&self, stream: u32, path: &str) -> Vec<u8> {
        frame(HEADERS, 0, stream, &self.block(path))
    }

    fn block(&self, path: &str) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in &self.headers {
            literal(&mut block, name, value);
            if *name == ":authority" {
                literal(&mut block, ":path", path);
            }
        }
        block
    }

    /// A new stream's id.
    pub fn open(&mut self) -> u32 {
        self.next_stream += 2;
        self.next_stream - 2
    }
}

/// The first entry behind the static table (RFC 7541, 6.1).
const FIRST_DYNAMIC: u8 = 0x80 | 62;
/// A literal with incremental indexing and a new name (RFC 7541, 6.2.1): `x`, with an empty value.
const KEPT_FIELD: [u8; 4] = [0x40, 1, b'x', 0];

/// A CONTINUATION frame without END_HEADERS.
pub fn more_headers(stream: u32, length: usize) -> Vec<u8> {
    let mut block = Vec::new();
    while block.len() < length {
        literal(&mut block, "x-more", "of the same, and again, and again, and again, and again");
    }
    frame(CONTINUATION, 0, stream, &block)
}

/// A CONTINUATION frame without END_HEADERS: the field that the block before has added to the dynamic table,
/// so many times. Each takes one byte here, and some hundred where it is decoded.
pub fn same_header(stream: u32, count: usize) -> Vec<u8> {
    frame(CONTINUATION, 0, stream, &vec![FIRST_DYNAMIC; count])
}

/// A CONTINUATION frame without END_HEADERS that adds a field to the dynamic table.
pub fn kept_header(stream: u32) -> Vec<u8> {
    frame(CONTINUATION, 0, stream, &KEPT_FIELD)
}

pub fn data(stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(DATA, 0, stream, payload)
}

/// An empty DATA frame with END_STREAM.
pub fn end(stream: u32) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, &[])
}

/// Trailers of so many fields, which HPACK makes one byte each.
pub fn trailers(stream: u32, fields: usize) -> Vec<u8> {
    // A literal that is added to the table (RFC 7541, 6.2.1), then the first entry of the table.
    let mut block = vec![0x40, 1, b'x', 1, b'y'];
    block.resize(block.len() + fields, FIRST_DYNAMIC);
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
}

pub fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

pub fn ping() -> Vec<u8> {
    frame(PING, 0, 0, &[7; 8])
}

pub fn settings() -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])
}

pub fn settings_ack() -> Vec<u8> {
    frame(SETTINGS, ACK, 0, &[])
}

/// A call in as few bytes as possible: the first entries of the static table for the method POST, the scheme http and
/// the path / (RFC 7541, appendix A).
pub fn smallest_call(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &[0x83, 0x86, 0x84])
}

/// A frame of a kind that nobody knows (RFC 9113, 4.1).
pub fn unknown(length: usize) -> Vec<u8> {
    frame(0xee, 0, 0, &vec![0; length])
}

/// The prefix of a gRPC message of this size.
pub fn message_of(length: u32) -> Vec<u8> {
    [&[0][..], &length.to_be_bytes()].concat()
}

/// A gRPC message with its prefix.
pub fn framed(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    [message_of(u32::try_from(bytes.len()).expect("a short message")), bytes].concat()
}

/// SETTINGS_INITIAL_WINDOW_SIZE.
fn window(size: u32) -> [u8; 6] {
    let [a, b, c, d] = size.to_be_bytes();
    [0, 4, a, b, c, d]
}

/// HPACK: literal, without indexing, a new name (RFC 7541, 6.2.2).
fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        // RFC 7541, 5.1: an integer with a prefix of seven bits.
        if let Some(mut more) = text.len().checked_sub(127) {
            block.push(127);
            while more >= 128 {
                block.push((more % 128) as u8 | 128);
                more /= 128;
            }
            block.push(more as u8);
        } else {
            block.push(text.len() as u8);
        }
        block.extend(text.as_bytes());
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}
