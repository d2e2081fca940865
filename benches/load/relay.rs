//! The floor: bytes from client to upstream and back, by the bench's own binary run again with
//! [`ARGUMENT`]. One thread, one upstream connection for each client's, nothing looked at: what
//! is left are the two reads and two writes that no proxy over sockets can save.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::Result;

pub const ARGUMENT: &str = "--relay";
const BUFFER: usize = 64 * 1024;
/// Sockets told of at once.
const READY: usize = 1_024;
/// Takes the place of the first pair's tokens.
const LISTENER: Token = Token(0);

/// One side of a pair, at twice the pair's number or one more.
struct Side {
    stream: TcpStream,
    /// What this side did not take yet. While there is some, the other side is not read: at most
    /// one [`BUFFER`].
    unsent: Vec<u8>,
    /// The other side has said all.
    ending: bool,
}

impl Side {
    fn new(stream: TcpStream) -> Self {
        Self { stream, unsent: Vec::new(), ending: false }
    }

    /// Writes what waits; false if the connection is broken.
    fn flush(&mut self) -> bool {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        if self.ending {
            let _ = self.stream.shutdown(Shutdown::Write); // broken already is fine
        }
        true
    }

    /// Writes at once what goes; false if the connection is broken.
    fn send(&mut self, bytes: &[u8]) -> bool {
        match self.stream.write(bytes) {
            Ok(length) if length == bytes.len() => true,
            Ok(length) => {
                self.unsent.extend_from_slice(&bytes[length..]);
                self.flush()
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.unsent.extend_from_slice(bytes);
                true
            }
            Err(_) => false,
        }
    }
}

/// Relays from a port to another until it is killed.
pub fn run(port: u16, upstream: u16) -> Result<()> {
    let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port).into())?;
    let (mut poll, mut ready) = (Poll::new()?, Events::with_capacity(READY));
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut pairs: Vec<Option<[Side; 2]>> = vec![None]; // numbers are never used again
    let mut buffer = vec![0; BUFFER];
    loop {
        match poll.poll(&mut ready, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &ready {
            let (pair, side) = (event.token().0 / 2, event.token().0 % 2);
            if event.token() == LISTENER {
                accept(&poll, &listener, upstream, &mut pairs)?;
            } else if let Some(sides) = &mut pairs[pair]
                && !relay(sides, side, event.is_writable(), &mut buffer)
            {
                pairs[pair] = None;
            }
        }
    }
}

fn accept(poll: &Poll, listener: &TcpListener, to: u16, pairs: &mut Vec<Option<[Side; 2]>>) -> Result<()> {
    while let Ok((client, _)) = listener.accept() {
        let upstream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, to))?;
        upstream.set_nonblocking(true)?;
        let mut sides = [Side::new(client), Side::new(TcpStream::from_std(upstream))];
        for (side, token) in sides.iter_mut().zip(2 * pairs.len()..) {
            side.stream.set_nodelay(true)?;
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut side.stream, Token(token), both)?;
        }
        pairs.push(Some(sides));
    }
    Ok(())
}

/// What one side's news ask for; false if the pair is over.
fn relay(sides: &mut [Side; 2], at: usize, writable: bool, buffer: &mut [u8]) -> bool {
    let waited = writable && !sides[at].unsent.is_empty();
    if waited {
        if !sides[at].flush() {
            return false;
        }
        if sides[at].unsent.is_empty() && !pass(sides, 1 - at, buffer) {
            return false;
        }
    }
    pass(sides, at, buffer)
}

/// Reads one side until there is no more, or until the other takes no more.
fn pass(sides: &mut [Side; 2], from: usize, buffer: &mut [u8]) -> bool {
    while sides[1 - from].unsent.is_empty() && !sides[1 - from].ending {
        match sides[from].stream.read(buffer) {
            Ok(0) => {
                sides[1 - from].ending = true;
                return sides[1 - from].flush() && !sides[from].ending;
            }
            Ok(length) => {
                if !sides[1 - from].send(&buffer[..length]) {
                    return false;
                }
                if length < buffer.len() {
                    break; // drained; more, or the end, is told of anew
                }
            }
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
    true
}
