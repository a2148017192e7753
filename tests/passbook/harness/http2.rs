//! HTTP/2 by hand, for what no well-behaved client does (RFC 9113).

use std::{io, net::SocketAddr, time::Duration};

use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// How long the server may leave unread what it was sent.
const WRITE_TIME_MAX: Duration = Duration::from_secs(2);

/// A connection on which frames are sent as they are.
pub struct Raw {
    stream: TcpStream,
    next_stream: u32,
    /// The headers of each call.
    headers: Vec<(&'static str, String)>,
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
        let mut raw = Self { stream, next_stream: 1, headers };
        raw.write(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await?;
        Ok(raw)
    }

    /// Writes, and throws away what has come meanwhile. An error is the end of the connection.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.try_read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::ConnectionAborted.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        timeout(WRITE_TIME_MAX, self.stream.write_all(bytes)).await?
    }

    /// Begins a call of this method.
    pub fn call(&self, stream: u32, path: &str) -> Vec<u8> {
        frame(HEADERS, END_HEADERS, stream, &self.block(path))
    }

    /// The beginning of a call whose headers never end.
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

/// More headers, which are not the last.
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

/// The beginning of a message of this many bytes.
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
