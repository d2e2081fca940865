//! Measures many event streams at the same time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::gateway::{Door, Gateway, KEY};
use crate::upstream::EVENTS;

/// Streams that are being opened at the same time: no more than fit into a listener's accept queue.
const OPENING: usize = 200;

/// Opens all streams and counts those that arrived completely.
pub fn run(upstream: SocketAddr, (count, pause): (usize, Duration)) {
    let gateway = Gateway::start(upstream, Door::Plain, "", "");
    let address = gateway.address;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let begun = Instant::now();
    let (whole, open) = runtime.block_on(async {
        let (opening, mut streams) = (std::sync::Arc::new(Semaphore::new(OPENING)), JoinSet::new());
        for _ in 0..count {
            let opening = std::sync::Arc::clone(&opening);
            streams.spawn(async move { follow(address, &opening).await.is_some() });
        }
        let mut whole = 0;
        tokio::time::sleep(pause * 2).await;
        let open = gateway.descriptors();
        while let Some(ended) = streams.join_next().await {
            whole += usize::from(ended.unwrap_or(false));
        }
        (whole, open)
    });
    println!(
        "\nevent streams: {whole} of {count} whole in {:.1} s, {open} descriptors of the gateway's meanwhile, {:.1} MiB",
        begun.elapsed().as_secs_f64(),
        gateway.resident() / f64::from(1 << 20)
    );
}

async fn follow(address: SocketAddr, opening: &Semaphore) -> Option<()> {
    let place = opening.acquire().await.ok()?;
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET /events HTTP/1.1\r\nhost: a\r\nx-api-key: {KEY}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let (mut came, mut buffer) = (Vec::new(), [0; 1024]);
    let mut place = Some(place);
    while !came.ends_with(b"\r\n0\r\n\r\n") {
        let count = stream.read(&mut buffer).await.ok().filter(|&count| count > 0)?;
        place.take();
        came.extend_from_slice(&buffer[..count]);
    }
    let events = came.windows(8).filter(|piece| piece == b"data: x\n").count();
    (came.starts_with(b"HTTP/1.1 200") && events == EVENTS).then_some(())
}
