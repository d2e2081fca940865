//! Simulates the network between a gateway and an engine: a proxy that delays, loses or stops messages, or closes connections.

#![allow(dead_code, reason = "each test program uses some of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Delay of a late message.
const LATE: Duration = Duration::from_millis(20);
/// Longest wait for an answer that is discarded.
const MAX_ANSWER: Duration = Duration::from_secs(2);

/// What a network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Up,
    /// Data and connection ends arrive only once the network is up again.
    Silent,
    /// All connections are closed, and new ones are closed at once.
    Cut,
}

/// A fault of one message. The gateway's connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not arrive.
    Lost,
    /// It arrives, and its answer does not.
    Unanswered,
    /// It arrives after the gateway's connection has ended.
    Late,
}

#[derive(Debug)]
struct State {
    mode: watch::Sender<Mode>,
    /// The fault of a later message, and the number of messages before it.
    planned: Mutex<Option<(u32, Fault)>>,
    faults: AtomicU64,
}

/// The network from one gateway to one engine. Its thread ends with the process.
#[derive(Debug)]
pub struct Network {
    /// Where the gateway connects to.
    pub port: u16,
    state: Arc<State>,
}

impl Network {
    /// Starts a network to the engine on a port of this machine.
    pub fn start(engine: u16) -> Self {
        let state = Arc::new(State {
            mode: watch::Sender::new(Mode::Up),
            planned: Mutex::default(),
            faults: AtomicU64::new(0),
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let kept = Arc::clone(&state);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        std::thread::spawn(move || runtime.block_on(accept(listener, engine, kept)));
        Self { port, state }
    }

    pub fn set(&self, mode: Mode) {
        self.state.mode.send_replace(mode);
    }

    pub fn mode(&self) -> Mode {
        *self.state.mode.borrow()
    }

    /// Sets the fault of a later message, and the number of messages before it.
    pub fn plan_fault(&self, fault: Option<(u32, Fault)>) {
        *self.state.planned.lock() = fault;
    }

    /// Takes the number of faults so far.
    pub fn take_faults(&self) -> u64 {
        self.state.faults.swap(0, Ordering::SeqCst)
    }
}

impl State {
    fn fault(&self) -> Option<Fault> {
        let mut planned = self.planned.lock();
        let (left, fault) = (*planned)?;
        *planned = left.checked_sub(1).map(|left| (left, fault));
        if planned.is_some() {
            return None;
        }
        self.faults.fetch_add(1, Ordering::SeqCst);
        Some(fault)
    }
}

async fn accept(listener: std::net::TcpListener, engine: u16, state: Arc<State>) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (gateway, _) = listener.accept().await.unwrap();
        tokio::spawn(carry(gateway, engine, Arc::clone(&state)));
    }
}

/// Waits until the network is not silent. False if it is cut.
async fn carries(mode: &mut watch::Receiver<Mode>) -> bool {
    mode.wait_for(|mode| *mode != Mode::Silent).await.is_ok_and(|mode| *mode == Mode::Up)
}

/// Up messages in both directions, until one end closes the connection.
async fn carry(mut gateway: TcpStream, engine: u16, state: Arc<State>) {
    let mut mode = state.mode.subscribe();
    if !carries(&mut mode).await {
        return;
    }
    let Ok(mut engine) = TcpStream::connect(("127.0.0.1", engine)).await else { return };
    gateway.set_nodelay(true).unwrap();
    engine.set_nodelay(true).unwrap();
    let (mut asked, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    while carries(&mut mode).await {
        tokio::select! {
            biased;
            _ = mode.changed() => {}
            read = gateway.read(&mut asked) => {
                let Ok(count @ 1..) = read else { return };
                match state.fault() {
                    Some(Fault::Lost) => return,
                    Some(Fault::Late) => {
                        drop(gateway);
                        tokio::time::sleep(LATE).await;
                        return deliver_unanswered(engine, &asked[..count], &mut answered).await;
                    }
                    Some(Fault::Unanswered) => return deliver_unanswered(engine, &asked[..count], &mut answered).await,
                    None if engine.write_all(&asked[..count]).await.is_err() => return,
                    None => {}
                }
            }
            read = engine.read(&mut answered) => {
                let Ok(count @ 1..) = read else { return };
                if gateway.write_all(&answered[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Delivers a message to the engine, and discards its answer.
async fn deliver_unanswered(mut engine: TcpStream, asked: &[u8], answered: &mut [u8]) {
    if engine.write_all(asked).await.is_ok() {
        let _ = tokio::time::timeout(MAX_ANSWER, engine.read(answered)).await;
    }
}
