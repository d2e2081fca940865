//! The thread that talks to the store.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::script::{MAX_RESPONSE, Script, Servers};
use super::{LimitStore, Place, Places};
use crate::clock::Clock;
use crate::policy::limit::share::Ask;
use crate::snapshot::LimitStorePlace;
use crate::threads;
use crate::types::Repeats;

/// Most messages that are sent before the first of them is answered.
const MAX_SENT: usize = 1024;
/// How often it is looked what must be told, or given back.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Most places that are looked at at a time.
const MAX_LOOKED_AT: usize = 65_536;

/// Ends the thread when it is told to.
#[derive(Debug)]
pub struct Keeper {
    end: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Gives all shares back, as far as the store answers, and ends.
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
) -> io::Result<(Arc<LimitStore>, Keeper)> {
    let store = Arc::new(LimitStore::new(place.outage, gateways));
    let (script, servers) = (Script::new(&place.prefix, gateway), place.servers.clone());
    let end = CancellationToken::new();
    let (kept, ended) = (Arc::clone(&store), end.clone());
    let run = move |runtime: tokio::runtime::LocalRuntime| {
        runtime.block_on(async move {
            match Servers::connect(&servers) {
                Ok(servers) => {
                    let talk = Talk { store: kept, script, servers, clock, places: Places::new(), next: 0 };
                    talk.run(ended).await;
                }
                Err(error) => tracing::error!(%error, "the limit store cannot be used"),
            }
        });
    };
    let thread = threads::start("tollgate-limits".to_owned(), |_| (), run)?;
    Ok((store, Keeper { end, thread: Some(thread) }))
}

/// The conversation with the store.
struct Talk {
    store: Arc<LimitStore>,
    script: Script,
    servers: Servers,
    clock: Clock,
    /// Of which the gateway has a share, or the store does not know everything.
    places: Places,
    /// Where among them the next look begins.
    next: usize,
}

impl Talk {
    async fn run(mut self, end: CancellationToken) {
        let mut failures = Repeats::default();
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            let store = Arc::clone(&self.store);
            tokio::select! {
                () = end.cancelled() => break,
                () = store.wanted.notified() => {}
                _ = look.tick() => self.look(),
            }
            loop {
                let asked = self.asked();
                if asked.is_empty() {
                    break;
                }
                if let Some(error) = self.send(asked, false).await
                    && let Some(more) = failures.should_log(self.clock.now())
                {
                    tracing::error!(%error, more, "the limit store does not answer");
                }
            }
        }
        self.give_up().await;
    }

    /// What is sent next.
    fn asked(&self) -> Vec<Place> {
        let mut asked = self.store.asked.lock();
        let rest = asked.len().saturating_sub(MAX_SENT);
        asked.split_off(rest)
    }

    /// Sends messages, and takes in the answers. Returns an error of those that were not answered.
    async fn send(&mut self, asked: Vec<Place>, gives_up: bool) -> Option<redis::RedisError> {
        let calls = asked.into_iter().map(|place| {
            let (script, mut servers, clock) = (&self.script, self.servers.clone(), &self.clock);
            let store = &self.store;
            async move {
                let Some((ask, history)) = ask(&place, gives_up, clock) else { return (place, None) };
                let (owner, limit) = (hex::encode(place.meter.owner().to_bytes()), place.name());
                let call = script.call(&mut servers, (&owner, &limit), &place.rate, (&ask, &history), None);
                let late = || io::Error::from(io::ErrorKind::TimedOut).into();
                let answer = tokio::time::timeout(MAX_RESPONSE, call).await.unwrap_or_else(|_| Err(late()));
                let now = clock.now();
                match &answer {
                    Ok(_) => store.counters.times.add_duration(now.since(ask.sent)),
                    Err(_) => drop(store.counters.failures.fetch_add(1, Ordering::Relaxed)),
                }
                if let Some(slot) = place.slot(&mut place.meter.lock()) {
                    match &answer {
                        Ok(answer) => slot.counter.answered(&ask, *answer, now),
                        Err(_) => slot.counter.unanswered(now),
                    }
                }
                (place, Some(answer.map(|_| ())))
            }
        });
        let answers = join_all(calls).await;
        let (mut first_error, mut any) = (None, false);
        for (place, answer) in answers {
            self.places.insert(place.id(), place);
            match answer {
                Some(Ok(())) => any = true,
                Some(Err(error)) => first_error = first_error.or(Some(error)),
                None => {}
            }
        }
        self.store.is_silent.store(first_error.is_some() && !any, Ordering::Relaxed);
        self.store.counters.shares.store(self.places.len() as u64, Ordering::Relaxed);
        self.store.answered.notify_waiters();
        first_error
    }

    /// Looks at some places: what was not used for a while is given back, and what was used is told.
    fn look(&mut self) {
        let now = self.clock.now();
        let ids: Vec<_> = self.places.keys().skip(self.next).take(MAX_LOOKED_AT).cloned().collect();
        self.next = if ids.len() < MAX_LOOKED_AT { 0 } else { self.next + ids.len() };
        for id in ids {
            let Some(place) = self.places.get(&id) else { continue };
            let must = place.slot(&mut place.meter.lock()).and_then(|slot| slot.counter.must_ask(now));
            match must {
                None => drop(self.places.remove(&id)),
                Some(true) if self.store.ask(place.clone()) => {}
                Some(true) => {
                    if let Some(slot) = place.slot(&mut place.meter.lock()) {
                        slot.counter.unanswered(now);
                    }
                }
                Some(false) => {}
            }
        }
    }

    /// Gives everything back. A store that does not answer is not asked again: it counts what was leased when the shares end.
    async fn give_up(mut self) {
        let mut all: Vec<Place> = self.places.values().cloned().collect();
        while !all.is_empty() {
            let some = all.split_off(all.len().saturating_sub(MAX_SENT));
            if self.send(some, true).await.is_some() {
                break;
            }
        }
    }
}

fn ask(place: &Place, gives_up: bool, clock: &Clock) -> Option<(Ask, Vec<(Duration, u32)>)> {
    let now = clock.now();
    place.slot(&mut place.meter.lock())?.counter.ask(&place.rate, gives_up, now)
}
