//! Raw HTTP/2 frames, for what no well-behaved client sends (RFC 9113).

use std::{io, net::SocketAddr, time::Duration};

use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

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
}

impl Raw {
    /// Connects and begins HTTP/2.
    pub async fn connect(address: SocketAddr, authorization: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let headers = vec![
            (":method", "POST".to_owned()),
            (":scheme", "http".to_owned()),
            (":authority", "localhost".to_owned()),
            ("content-type", "application/grpc".to_owned()),
            ("te", "trailers".to_owned()),
            ("authorization", authorization.to_owned()),
        ];
        let (received, window) = (Vec::new(), FIRST_WINDOW);
        let mut raw = Self { stream, next_stream: 1, headers, received, window, answered: 0 };
        raw.write(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await?;
        Ok(raw)
    }

    /// Writes bytes. An error means that the connection has ended.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.read()?;
        timeout(WRITE_TIME_MAX, self.stream.write_all(bytes)).await?
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
            if header[3] == HEADERS {
                self.answered = self.answered.max(stream);
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
        timeout(WRITE_TIME_MAX, is_answered).await?
    }

    /// Begins a call of this method.
    pub fn call(&self, stream: u32, path: &str) -> Vec<u8> {
        frame(HEADERS, END_HEADERS, stream, &self.block(path))
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

/// A CONTINUATION frame without END_HEADERS.
pub fn more_headers(stream: u32, length: usize) -> Vec<u8> {
    let mut block = Vec::new();
    while block.len() < length {
        literal(&mut block, "x-more", "of the same, and again, and again, and again, and again");
    }
    frame(CONTINUATION, 0, stream, &block)
}

pub fn data(stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(DATA, 0, stream, payload)
}

/// An empty DATA frame with END_STREAM.
pub fn end(stream: u32) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, &[])
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

/// The prefix of a gRPC message of this size.
pub fn message_of(length: u32) -> Vec<u8> {
    [&[0][..], &length.to_be_bytes()].concat()
}

/// HPACK: literal, without indexing, a new name (RFC 7541, 6.2.2); lengths below 127.
fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        block.push(u8::try_from(text.len()).expect("short"));
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
