//! Passes a running gateway to another process. Both sides talk over a connection of the control socket, in lines of
//! JSON: the old process offers its listening sockets, releases the ledger when the new process is ready, and passes on
//! the settlements of its requests in flight until it ends.

use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::control::command::Command;
use crate::control::socket;
use crate::gateway::{PassedSocket, Purpose};
use crate::ledger::record::{ExternalId, Kept};
use crate::ledger::{Bookkeeper, PassedOn, Settlement};
use crate::types::{Credits, RequestId, StatusClass, WallTime};

/// Most processes that wait to take over.
pub(super) const MAX_TAKEOVERS: usize = 1;
/// Most sockets that are passed on. Further ones are closed.
const MAX_SOCKETS: usize = 250;
/// Longest line.
const MAX_LINE: usize = 16 * 1024;
/// Longest time until the new process is ready, once it has the sockets.
const MAX_READY: Duration = Duration::from_secs(10);
/// Longest time until the old process has released the ledger.
const MAX_RELEASE: Duration = Duration::from_secs(60);
/// Longest time until the new process serves, once it has the ledger.
const MAX_START: Duration = Duration::from_secs(60);

/// A line of the conversation.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    /// Old: what the listening sockets are for that come with this line.
    Sockets(Vec<Label>),
    /// New: it can take over.
    Ready,
    /// Old: it does not accept connections any more, and has closed the ledger.
    Released,
    /// New: it serves.
    Serving,
    /// Old: a request in flight is settled.
    Settle { id: String, charge: i64, outcome: u8 },
    /// Old: a job is settled.
    SettleJob { id: String, charge: i64, outcome: u8 },
    /// Old: the hold of a request in flight outlives it.
    Keep { id: String, external_id: String, deadline: i64, charge_at_deadline: i64 },
    /// Old: a request in flight with an idempotency key has this answer, in base64; none: it may be made again.
    Claim { id: String, repeat: String, answer: Option<String> },
    /// New: the settlement is on disk.
    Settled(bool),
}

/// What successive sockets are for.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Label {
    purpose: Purpose,
    address: SocketAddr,
    count: usize,
}

impl Message {
    /// Says what happens to a hold.
    fn of(passed: &PassedOn) -> Self {
        let id = passed.id.0.to_string();
        match &passed.settlement {
            Settlement::Charge(charge, outcome) => {
                Self::Settle { id, charge: charge.millionths(), outcome: outcome.code() }
            }
            Settlement::Job(charge, outcome) => {
                Self::SettleJob { id, charge: charge.millionths(), outcome: outcome.code() }
            }
            Settlement::Keep(kept) => Self::Keep {
                id,
                external_id: kept.external_id.as_str().to_owned(),
                deadline: kept.deadline.0,
                charge_at_deadline: kept.charge_at_deadline.millionths(),
            },
            Settlement::Claim(repeat, answer) => {
                let answer = answer.as_ref().map(|answer| BASE64_STANDARD.encode(answer));
                Self::Claim { id, repeat: repeat.to_hex(), answer }
            }
        }
    }

    /// What happens to a hold; `None` for other messages.
    fn settlement(self) -> Option<(RequestId, Settlement)> {
        let (id, settlement) = match self {
            Self::Settle { id, charge, outcome } => {
                let outcome = StatusClass::of_code(outcome)?;
                (id, Settlement::Charge(Credits::from_millionths(charge), outcome))
            }
            Self::SettleJob { id, charge, outcome } => {
                let outcome = StatusClass::of_code(outcome)?;
                (id, Settlement::Job(Credits::from_millionths(charge), outcome))
            }
            Self::Keep { id, external_id, deadline, charge_at_deadline } => {
                let (deadline, charge_at_deadline) =
                    (WallTime(deadline), Credits::from_millionths(charge_at_deadline));
                let external_id = ExternalId::new(&external_id)?;
                (id, Settlement::Keep(Kept { external_id, deadline, charge_at_deadline }))
            }
            Self::Claim { id, repeat, answer } => {
                let answer = answer.map(|answer| BASE64_STANDARD.decode(answer)).transpose().ok()?;
                (id, Settlement::Claim(repeat.parse().ok()?, answer))
            }
            _ => return None,
        };
        Some((RequestId(id.parse().ok()?), settlement))
    }

    fn encode(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default(); // plain values always serialise
        line.push(b'\n');
        line
    }
}

fn refused(error: &io::Error) -> String {
    format!("error: cannot take over from the running gateway: {error}")
}

fn unexpected(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the other process said something else than `{what}`"))
}

/// Waits for a message.
fn expect(stream: &UnixStream, message: &Message, timeout: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(timeout))?;
    let mut line = String::new();
    BufReader::with_capacity(1, stream).read_line(&mut line)?; // reads no byte of the next line
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other process has ended"));
    }
    let said: Option<Message> = serde_json::from_str(&line).ok();
    if said.as_ref() == Some(message) { Ok(()) } else { Err(unexpected(&format!("{message:?}"))) }
}

/// The old process' side: the process that takes over.
#[derive(Debug)]
pub(super) struct Takeover(UnixStream);

impl Takeover {
    /// Offers the sockets, and waits until the other process is ready.
    ///
    /// # Errors
    /// If it ends or is not ready in time.
    pub(super) fn offer(stream: UnixStream, sockets: &[PassedSocket]) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        let (mut passed, mut labels): (Vec<BorrowedFd<'_>>, Vec<Label>) = (Vec::new(), Vec::new());
        for PassedSocket { socket, label } in sockets.iter().take(MAX_SOCKETS) {
            let Some((purpose, address)) = *label else { continue };
            passed.push(socket.as_fd());
            match labels.last_mut() {
                Some(last) if (last.purpose, last.address) == (purpose, address) => last.count += 1,
                _ => labels.push(Label { purpose, address, count: 1 }),
            }
        }
        let line = Message::Sockets(labels).encode();
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&passed)) {
            return Err(io::Error::other("the sockets do not fit into a message"));
        }
        sendmsg(&stream, &[IoSlice::new(&line)], &mut control, SendFlags::empty())?;
        expect(&stream, &Message::Ready, MAX_READY)?;
        Ok(Self(stream))
    }

    /// Says that the ledger is released, and waits until the other process serves.
    ///
    /// # Errors
    /// If it ends or does not serve in time.
    pub(super) fn release(self) -> io::Result<Self> {
        (&self.0).write_all(&Message::Released.encode())?;
        expect(&self.0, &Message::Serving, MAX_START)?;
        Ok(self)
    }

    /// Passes settlements on until `ended`, and all that are left then. The other process notices the end.
    ///
    /// # Errors
    /// If the other process ends.
    pub(super) async fn relay(
        self,
        mut settlements: mpsc::Receiver<PassedOn>,
        ended: CancellationToken,
    ) -> io::Result<()> {
        self.0.set_nonblocking(true)?;
        let (read, mut write) = tokio::net::UnixStream::from_std(self.0)?.into_split();
        let mut lines = tokio::io::BufReader::new(read).lines();
        loop {
            let passed = tokio::select! {
                biased;
                passed = settlements.recv() => passed,
                () = ended.cancelled() => None,
            };
            let Some(passed) = passed else { return Ok(()) };
            write.write_all(&Message::of(&passed).encode()).await?;
            let said = lines.next_line().await?.and_then(|line| serde_json::from_str(&line).ok());
            let Some(Message::Settled(is_durable)) = said else { return Err(unexpected("Settled")) };
            passed.finish(is_durable);
        }
    }
}

/// The new process' side: the process that it takes over from.
#[derive(Debug)]
pub(super) struct Predecessor(UnixStream);

impl Predecessor {
    /// Takes the sockets of the gateway that runs with this configuration file. `None` if no gateway runs.
    ///
    /// # Errors
    /// If the gateway refuses or does not respond in time.
    pub(super) fn connect(path: &Path) -> Result<Option<(Self, Vec<PassedSocket>)>, String> {
        let Some(stream) = socket::connect(path)? else { return Ok(None) };
        let sockets = Self::take_sockets(&stream).map_err(|error| refused(&error))?;
        Ok(Some((Self(stream), sockets)))
    }

    /// Says that this process is ready, and waits until the gateway has released the ledger.
    ///
    /// # Errors
    /// If it does not in time.
    pub(super) fn wait_for_release(&self) -> Result<(), String> {
        let written = (&self.0).write_all(&Message::Ready.encode());
        let released = written.and_then(|()| expect(&self.0, &Message::Released, MAX_RELEASE));
        released.map_err(|error| refused(&error))
    }

    fn take_sockets(stream: &UnixStream) -> io::Result<Vec<PassedSocket>> {
        let mut request = serde_json::to_vec(&Command::TakeOver).map_err(io::Error::other)?;
        request.push(b'\n');
        let mut writer = stream;
        writer.write_all(&request)?;
        stream.set_read_timeout(Some(MAX_READY))?;
        let mut line = vec![0; MAX_LINE];
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(stream, &mut [IoSliceMut::new(&mut line)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let mut sockets: Vec<OwnedFd> = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                sockets.extend(passed);
            }
        }
        let said = &line[..received.bytes];
        let Ok(Message::Sockets(labels)) = serde_json::from_slice(said) else {
            return Err(io::Error::other(String::from_utf8_lossy(said).into_owned()));
        };
        let each = |label: &Label| std::iter::repeat_n(Some((label.purpose, label.address)), label.count);
        let labels: Vec<_> = labels.iter().flat_map(each).collect();
        if labels.len() != sockets.len() {
            return Err(io::Error::other("some of its sockets did not arrive"));
        }
        let passed = sockets.into_iter().map(TcpListener::from).zip(labels);
        Ok(passed.map(|(socket, label)| PassedSocket { socket, label }).collect())
    }

    /// Says that this process serves. Then takes the settlements of the old process until that ends, and puts the holds
    /// that it left open in doubt.
    pub(super) async fn succeed(self, bookkeeper: Bookkeeper) {
        if let Err(error) = self.take_settlements(&bookkeeper).await {
            tracing::warn!(%error, "the connection to the process before this one failed");
        }
        match bookkeeper.abandon_adopted().await {
            Ok(0) => tracing::info!("the process before this one has ended"),
            Ok(holds) => tracing::warn!(
                holds,
                "holds that the process before this one left open were charged in full; `tollgate ledger in-doubt` lists them"
            ),
            Err(error) => tracing::error!(%error, "holds of the process before this one stay open"),
        }
    }

    async fn take_settlements(self, bookkeeper: &Bookkeeper) -> io::Result<()> {
        self.0.set_nonblocking(true)?;
        let (read, mut write) = tokio::net::UnixStream::from_std(self.0)?.into_split();
        write.write_all(&Message::Serving.encode()).await?;
        let mut lines = tokio::io::BufReader::new(read).lines();
        while let Some(line) = lines.next_line().await? {
            let message: Option<Message> = serde_json::from_str(&line).ok();
            let Some((id, settlement)) = message.and_then(Message::settlement) else {
                return Err(unexpected("Settle"));
            };
            let settled = bookkeeper.settle_adopted(id, settlement).await;
            let is_durable = settled.inspect_err(|error| tracing::error!(%error, "a settlement failed"));
            write.write_all(&Message::Settled(is_durable.unwrap_or(false)).encode()).await?;
        }
        Ok(())
    }
}
