//! The network between a gateway and an engine: it carries messages, is silent, loses some, or is cut.

#![allow(dead_code, reason = "each test program uses some of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// After what time a message arrives that is late.
const LATE: Duration = Duration::from_millis(20);
/// Longest time that the answer to a message is waited for that nobody gets.
const MAX_ANSWER: Duration = Duration::from_secs(2);

/// What a network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Carries,
    /// Nothing arrives, nor the end of a connection. It does once the network carries again.
    IsSilent,
    /// All connections have ended, and no other begins.
    IsCut,
}

/// What happens to a message. Its connection ends for the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It does not arrive.
    Lost,
    /// It arrives, and its answer does not.
    Unanswered,
    /// It arrives when the gateway has noticed that the connection has ended.
    Late,
}

#[derive(Debug)]
struct State {
    mode: watch::Sender<Mode>,
    /// What happens to a message, and after how many others.
    coming: Mutex<Option<(u32, Trouble)>>,
    troubles: AtomicU64,
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
            mode: watch::Sender::new(Mode::Carries),
            coming: Mutex::default(),
            troubles: AtomicU64::new(0),
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

    /// Has something happen to a message, after some others.
    pub fn expect(&self, trouble: Option<(u32, Trouble)>) {
        *self.state.coming.lock() = trouble;
    }

    /// Takes the number of messages that something happened to.
    pub fn take_troubles(&self) -> u64 {
        self.state.troubles.swap(0, Ordering::SeqCst)
    }
}

impl State {
    fn trouble(&self) -> Option<Trouble> {
        let mut coming = self.coming.lock();
        let (left, trouble) = (*coming)?;
        *coming = left.checked_sub(1).map(|left| (left, trouble));
        if coming.is_some() {
            return None;
        }
        self.troubles.fetch_add(1, Ordering::SeqCst);
        Some(trouble)
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
    mode.wait_for(|mode| *mode != Mode::IsSilent).await.is_ok_and(|mode| *mode == Mode::Carries)
}

/// Carries messages in both directions, until one end closes the connection.
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
                match state.trouble() {
                    Some(Trouble::Lost) => return,
                    Some(Trouble::Late) => {
                        drop(gateway);
                        tokio::time::sleep(LATE).await;
                        return to_nobody(engine, &asked[..count], &mut answered).await;
                    }
                    Some(Trouble::Unanswered) => return to_nobody(engine, &asked[..count], &mut answered).await,
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

/// Brings a message whose answer nobody gets.
async fn to_nobody(mut engine: TcpStream, asked: &[u8], answered: &mut [u8]) {
    if engine.write_all(asked).await.is_ok() {
        let _ = tokio::time::timeout(MAX_ANSWER, engine.read(answered)).await;
    }
}
