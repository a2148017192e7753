//! A TCP proxy that delays every packet, to measure a distant database. It uses threads because the
//! timers of tokio are coarser than the delay.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

const BUFFER_BYTES: usize = 64 * 1024;

/// Starts a proxy to `server` that forwards each packet after `delay`, until the program ends.
/// Returns the address of the proxy.
pub fn proxy(server: String, delay: Duration) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for client in listener.incoming() {
            // The client and the server get the error of a broken connection.
            let _ = client.and_then(|client| connect(client, &server, delay));
        }
    });
    Ok(address)
}

fn connect(client: TcpStream, server: &str, delay: Duration) -> std::io::Result<()> {
    let server = TcpStream::connect(server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    forward(client.try_clone()?, server.try_clone()?, delay);
    forward(server, client, delay);
    Ok(())
}

/// Forwards one direction of a connection.
#[expect(clippy::disallowed_methods, reason = "the thread has no tasks")]
fn forward(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, packets) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        for (due, packet) in packets {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&packet).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
    thread::spawn(move || {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if sender.send((Instant::now() + delay, buffer[..length].to_vec())).is_err() {
                break;
            }
        }
    });
}
