//! An upstream that reads request bodies to their end and responds with `{}`, a large body, or events.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};

/// Events in a stream.
pub const EVENTS: usize = 5;
/// Bytes of a large response body: more than the socket buffers on its way hold.
const LARGE: usize = 256 << 10;

/// Starts an upstream that runs until the process ends.
pub fn start(pause: Duration) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    listener.set_nonblocking(true).expect("a socket that does not block");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::LocalRuntime::new().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).expect("a listener");
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    tokio::task::spawn_local(serve(stream, pause));
                }
            }
        });
    });
    address
}

async fn serve(stream: TcpStream, pause: Duration) -> Option<()> {
    let mut stream = BufStream::with_capacity(1024, 256, stream);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_until(b'\n', &mut head).await.ok().filter(|count| *count > 0)?;
        }
        let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).await.ok()?;
        if text.starts_with("get /large") {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.ok()?;
            let piece = [b'x'; 8192];
            for _ in 0..LARGE / piece.len() {
                stream.write_all(&piece).await.ok()?;
            }
        } else if text.starts_with("get /events") {
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.ok()?;
            for at in 0..EVENTS {
                if at > 0 {
                    tokio::time::sleep(pause).await;
                }
                stream.write_all(b"9\r\ndata: x\n\n\r\n").await.ok()?;
                stream.flush().await.ok()?;
            }
            stream.write_all(b"0\r\n\r\n").await.ok()?;
        } else {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.ok()?;
        }
        stream.flush().await.ok()?;
    }
}
