//! The thread that talks to the store.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use redis::{RedisError, RedisResult};
use tokio_util::sync::CancellationToken;

use super::script::{MAX_RESPONSE, Script, Servers};
use super::{LimitStore, SharedCounter, SharedCounters};
use crate::clock::Clock;
use crate::policy::limit::share::{Answer, Ask};
use crate::snapshot::{LimitServers, LimitStorePlace};
use crate::threads;
use crate::types::{Moment, Repeats};

/// Most messages that are sent and not answered.
const MAX_SENT: usize = 1024;
/// How often shares are reviewed: what must be reported, or given back.
const REVIEWED_EVERY: Duration = Duration::from_millis(250);
/// Most shares that are reviewed at a time.
const MAX_REVIEWED: usize = 65_536;
/// How long the store may answer nothing until it is connected to again.
const MAX_SILENCE: Duration = Duration::from_secs(1);

/// The running thread of a store.
#[derive(Debug)]
pub struct StoreThread {
    end: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl StoreThread {
    /// Gives all shares back, as far as the store answers, and ends the thread.
    pub fn end(mut self) {
        self.end.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the limit store panicked");
        }
    }
}

/// Starts a store's thread. `gateway`: the name of this gateway; `gateways`: how many the fleet has.
///
/// # Errors
/// If the thread cannot be started.
pub fn start(
    place: &LimitStorePlace,
    gateway: &str,
    gateways: Box<dyn Fn() -> u32 + Send + Sync>,
    clock: Clock,
) -> io::Result<(Arc<LimitStore>, StoreThread)> {
    let store = Arc::new(LimitStore::new(place.outage, gateways));
    let (script, servers) = (Arc::new(Script::new(&place.prefix, gateway)), place.servers.clone());
    let end = CancellationToken::new();
    let (kept, ended) = (Arc::clone(&store), end.clone());
    let run = move |runtime: tokio::runtime::LocalRuntime| {
        let _silent = SilentAtEnd(Arc::clone(&kept));
        runtime.block_on(async move {
            match Servers::connect(&servers) {
                Ok(connected) => Session::new(kept, script, servers, connected, clock).run(ended).await,
                Err(error) => tracing::error!(%error, "the limit store cannot be used"),
            }
        });
    };
    let thread = threads::start("tollgate-limits".to_owned(), |_| (), run)?;
    Ok((store, StoreThread { end, thread: Some(thread) }))
}

/// Lets outage policies decide once the thread has ended, also if it panicked.
struct SilentAtEnd(Arc<LimitStore>);

impl Drop for SilentAtEnd {
    fn drop(&mut self) {
        self.0.is_silent.store(true, Ordering::Relaxed);
        self.0.answered.notify_waiters();
    }
}

/// A message that was sent, and its answer; `None` if there was nothing to say.
type Exchange = (SharedCounter, Option<(Ask, RedisResult<Answer>)>);

/// The conversation with the store.
struct Session {
    store: Arc<LimitStore>,
    script: Arc<Script>,
    servers: LimitServers,
    connected: Servers,
    clock: Clock,
    /// Counters of which the gateway has a share, or has counted requests that the store does not know.
    counters: SharedCounters,
    /// Where among them the next review begins.
    next: usize,
    /// When the store last answered, or was connected to again.
    heard: Moment,
    failures: Repeats,
}

impl Session {
    fn new(
        store: Arc<LimitStore>,
        script: Arc<Script>,
        servers: LimitServers,
        connected: Servers,
        clock: Clock,
    ) -> Self {
        let (counters, heard, failures) = (SharedCounters::new(), clock.now(), Repeats::default());
        Self { store, script, servers, connected, clock, counters, next: 0, heard, failures }
    }

    async fn run(mut self, end: CancellationToken) {
        let _ = tokio::time::timeout(MAX_SILENCE, self.connected.ping()).await; // connects before the first request
        let (store, mut sent) = (Arc::clone(&self.store), FuturesUnordered::new());
        let mut review = tokio::time::interval(REVIEWED_EVERY);
        loop {
            for counter in store.take_asked(MAX_SENT - sent.len()) {
                sent.push(self.exchange(counter, false));
            }
            tokio::select! {
                () = end.cancelled() => break,
                _ = review.tick() => self.review(),
                Some(one) = sent.next() => {
                    self.receive(one);
                    while let Some(Some(another)) = sent.next().now_or_never() {
                        self.receive(another);
                    }
                    store.answered.notify_waiters();
                }
                () = store.wanted.notified(), if sent.len() < MAX_SENT => {}
            }
        }
        while let Some(one) = sent.next().await {
            self.receive(one);
        }
        self.give_up().await;
    }

    /// Sends what is to be said about a counter, and waits for the answer.
    fn exchange(&self, counter: SharedCounter, gives_up: bool) -> LocalBoxFuture<'static, Exchange> {
        let (script, mut servers, clock) =
            (Arc::clone(&self.script), self.connected.clone(), self.clock.clone());
        Box::pin(async move {
            let Some((ask, history)) = counter.ask(gives_up, clock.now()) else { return (counter, None) };
            let (owner, limit) = (hex::encode(counter.meter.owner().to_bytes()), counter.name());
            let (name, message) = ((owner.as_str(), limit.as_str()), (&ask, history.as_slice()));
            let call = async {
                match script.call(&mut servers, name, &counter.rate, message, None).await {
                    // The connection was lost since the last message, and there is another one.
                    Err(error) if error.is_io_error() => {
                        script.call(&mut servers, name, &counter.rate, message, None).await
                    }
                    done => done,
                }
            };
            let late = || io::Error::from(io::ErrorKind::TimedOut).into();
            let answer = tokio::time::timeout(MAX_RESPONSE, call).await.unwrap_or_else(|_| Err(late()));
            (counter, Some((ask, answer)))
        })
    }

    /// Takes in an answer, or that there is none.
    fn receive(&mut self, (counter, exchanged): Exchange) {
        let now = self.clock.now();
        if let Some((ask, answer)) = exchanged {
            counter.receive(&ask, answer.as_ref().ok().copied(), now);
            match answer {
                Ok(_) => {
                    self.store.counters.times.add_duration(now.since(ask.sent));
                    self.store.is_silent.store(false, Ordering::Relaxed);
                    self.heard = now;
                }
                Err(error) => self.miss(&error, ask.sent, now),
            }
            self.counters.insert(counter.id(), counter);
        }
    }

    /// A message was not answered.
    fn miss(&mut self, error: &RedisError, sent: Moment, now: Moment) {
        self.store.counters.failures.fetch_add(1, Ordering::Relaxed);
        if let Some(more) = self.failures.should_log(now) {
            tracing::error!(%error, more, "the limit store does not answer");
        }
        // One server of a cluster says nothing about the others.
        if sent >= self.heard && matches!(self.servers, LimitServers::One(_)) {
            self.store.is_silent.store(true, Ordering::Relaxed);
        }
        // A connection may be dead without anybody knowing, or be refused in a way that is not tried again.
        if now.since(self.heard) >= MAX_SILENCE {
            self.heard = now;
            match Servers::connect(&self.servers) {
                Ok(servers) => self.connected = servers,
                Err(error) => tracing::error!(%error, "the limit store cannot be connected to"),
            }
        }
    }

    /// Reviews some shares: what was not used for a while is given back, and what was used is reported.
    fn review(&mut self) {
        let now = self.clock.now();
        let ids: Vec<_> = self.counters.keys().skip(self.next).take(MAX_REVIEWED).cloned().collect();
        self.next = if ids.len() < MAX_REVIEWED { 0 } else { self.next + ids.len() };
        for id in ids {
            let Some(counter) = self.counters.get(&id) else { continue };
            match counter.must_ask(now) {
                None => drop(self.counters.remove(&id)),
                Some(true) => self.store.ask_again(counter.clone(), now),
                Some(false) => {}
            }
        }
        self.store.counters.shares.store(self.counters.len() as u64, Ordering::Relaxed);
    }

    /// Gives everything back. A store that does not answer is not asked again: it counts what was leased when the shares end.
    async fn give_up(&mut self) {
        let mut all: Vec<SharedCounter> = self.counters.values().cloned().collect();
        while !all.is_empty() {
            let some = all.split_off(all.len().saturating_sub(MAX_SENT));
            let sent: FuturesUnordered<_> = some.into_iter().map(|one| self.exchange(one, true)).collect();
            let answers: Vec<Exchange> = sent.collect().await;
            let is_silent = answers.iter().any(|(_, exchanged)| matches!(exchanged, Some((_, Err(_)))));
            answers.into_iter().for_each(|one| self.receive(one));
            if is_silent {
                break;
            }
        }
    }
}
