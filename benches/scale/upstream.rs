//! An upstream that responds immediately, or holds requests until it is told to respond.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    /// While this is true, requests are read and get no response.
    pub hold: Arc<AtomicBool>,
    /// Number of requests received.
    pub came: Arc<AtomicUsize>,
}

impl Upstream {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let upstream = Self { address, hold: Arc::default(), came: Arc::default() };
        let serving = upstream.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let upstream = serving.clone();
                let serve = move || {
                    let mut buffer = [0; 4096];
                    // The requests of this bench have no body and arrive one at a time.
                    while stream.read(&mut buffer).is_ok_and(|count| count > 0) {
                        upstream.came.fetch_add(1, Ordering::SeqCst);
                        while upstream.hold.load(Ordering::SeqCst) {
                            std::thread::sleep(Duration::from_millis(50));
                        }
                        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").is_err() {
                            return;
                        }
                    }
                };
                let small = std::thread::Builder::new().stack_size(64 * 1024);
                small.spawn(serve).expect("a thread");
            }
        });
        upstream
    }
}
