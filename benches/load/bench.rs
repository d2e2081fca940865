//! Runs one case from start to end: starts the entrants, interleaves their rounds, and checks responses and charges.

use crate::cases::{Case, Style, Unit, Wire};
use crate::keys::{GRANT, Keys};
use crate::load::{Length, Load};
use crate::measure::{self, Sample};
use crate::options::Options;
use crate::peers::{self, Peer};
use crate::places::Places;
use crate::report::{self, Entry};
use crate::{Result, client, process};

/// Keys in every case, except for the larger store of `million`.
const KEYS: usize = 1_000;
/// Keys in a smoke test.
const SMOKE_KEYS: usize = 20;
/// Requests to each entrant in a round of a smoke test. For event streams it is one request per connection.
const SMOKE_REQUESTS: u64 = 60;
const SMOKE_CONNECTIONS: u64 = 8;
/// With more accounts than this, balances are read from the ledger file, not with one request per account.
const MAX_ASKED: usize = 1_000;

/// Prints which entrants of the cases cannot take part, and why.
pub fn left_out(options: &Options) {
    let entrants = options.cases.iter().flat_map(|case| case.entrants);
    let mut told = Vec::new();
    for entrant in entrants.filter(|entrant| options.wants(entrant.name)) {
        if let Err(error) = entrant.program()
            && !told.contains(&entrant.kind)
        {
            println!("{} is left out: {error}", entrant.name);
            told.push(entrant.kind);
        }
    }
}

/// Runs a case and prints its table. Returns its part of the JSON report.
pub fn run(case: &'static Case, options: &Options, places: &Places) -> Result<serde_json::Value> {
    let connections = match options.is_smoke() {
        true => SMOKE_CONNECTIONS,
        false => options.connections.unwrap_or(case.connections),
    };
    println!("\n== {}: {}; {connections} connections", case.name, case.about);
    let load = Load::new(case, places.disk(), connections, options.rate, places.load, options.is_smoke())?;
    let mut peers = Vec::new();
    for entrant in case.entrants {
        let missing = entrant.program().is_err() || entrant.setup.tmpfs && !places.has_tmpfs();
        if missing || !options.wants(entrant.name) {
            continue;
        }
        let few = if options.is_smoke() { SMOKE_KEYS } else { KEYS };
        let keys = Keys::new(if entrant.setup.stored == Some(true) { options.many_keys } else { few });
        peers.push(Peer::start(entrant, case, keys, places, &[])?);
    }
    if case.status == 200 && case.style == Style::Wrk && case.wire == Wire::Plain && !options.is_smoke() {
        let hits = load.run(places.upstream.plain, Keys::new(KEYS), Length::Seconds(1))?;
        let (rate, p50, p99) = (hits.rate() / 1e3, hits.p50, hits.p99);
        println!("without a gateway: {rate:.1}k req/s, p50 {p50} µs, p99 {p99} µs");
    }
    let samples = rounds(case, options, &peers, &load)?;
    let entries: Vec<Entry> =
        peers.iter().zip(samples).map(|(peer, samples)| Entry::new(peer, samples)).collect();
    if !options.is_smoke() {
        report::table(case, &entries, places);
    }
    for (peer, entry) in peers.iter().zip(&entries) {
        if let Some(engines) = &peer.engines {
            let requests: u64 = entry.samples.iter().map(|sample| sample.hits.requests).sum();
            println!("{}: {} for {requests} requests", peer.name, engines.load());
        }
        charged(peer, entry)?;
    }
    let failed: u64 = entries.iter().map(|entry| entry.failed(case)).sum();
    if failed > 0 {
        return Err(format!("{failed} requests were not answered with {}", case.status).into());
    }
    Ok(report::json(case, connections, &entries))
}

/// Samples by entrant, then by round. The first round lasts one second and is the warm-up: only its charges are
/// checked.
fn rounds(case: &Case, options: &Options, peers: &[Peer], load: &Load) -> Result<Vec<Vec<Sample>>> {
    let mut samples: Vec<Vec<Sample>> = peers.iter().map(|_| Vec::new()).collect();
    // A smoke test needs a warm-up round only if limits must be used up first.
    let rounds = if options.is_smoke() { usize::from(case.status == 429) } else { options.rounds };
    for round in 0..=rounds {
        let warm_up = round == 0;
        let length = match options.is_smoke() {
            true if case.unit == Unit::Event => Length::Requests(SMOKE_CONNECTIONS),
            true => Length::Requests(SMOKE_REQUESTS),
            false => Length::Seconds(if warm_up { 1 } else { options.seconds }),
        };
        for turn in 0..peers.len() {
            let at = (round + turn) % peers.len();
            let sample = measure::sample(&peers[at], load, length, !options.is_smoke());
            let sample = sample.map_err(|error| format!("{}: {error}", peers[at].name))?;
            if !warm_up && !options.is_smoke() {
                report::line(case, round, peers[at].name, &sample);
            }
            samples[at].push(sample);
        }
    }
    Ok(samples)
}

/// Checks that every request with a response was charged once. Requests that were cut off at the end of a run may be
/// charged or not.
fn charged(peer: &Peer, entry: &Entry) -> Result<()> {
    if !peer.charges() {
        return Ok(());
    }
    let paid: u64 = entry.samples.iter().map(|sample| sample.hits.paid()).sum();
    let most = paid + peers::PROBES + entry.samples.iter().map(|sample| sample.hits.cut_off).sum::<u64>();
    peers::fold(&peer.folder)?;
    let granted = GRANT * peer.keys.accounts as u64;
    let charged = granted - left(peer)?;
    println!("{}: {charged} credits charged for {paid} responses that the load counted", peer.name);
    if charged < paid || charged > most {
        return Err(format!("the books are wrong: expected {paid} to {most} credits charged").into());
    }
    Ok(())
}

/// The sum of all accounts' balances, in whole credits.
fn left(peer: &Peer) -> Result<u64> {
    if peer.keys.accounts > MAX_ASKED {
        return Keys::left_in_ledger(&peers::ledger(&peer.folder));
    }
    (0..peer.keys.accounts).map(|account| client::balance(peer.port, &Keys::text(account))).sum()
}

/// Runs wrk once, so that smoke tests cover wrk too.
pub fn smoke_wrk(case: &'static Case, options: &Options, places: &Places) -> Result<()> {
    if process::find("wrk").is_none() {
        println!("\nwrk is not installed: runs with it are left out");
        return Ok(());
    }
    println!("\n== {} with wrk", case.name);
    let load = Load::new(case, places.disk(), SMOKE_CONNECTIONS, options.rate, places.load, false)?;
    let peer = Peer::start(&case.entrants[0], case, Keys::new(SMOKE_KEYS), places, &[])?;
    let sample = measure::sample(&peer, &load, Length::Seconds(1), false)?;
    let entry = Entry::new(&peer, vec![sample]);
    charged(&peer, &entry)?;
    let failed = entry.samples[0].hits.failed(case);
    if failed > 0 { Err(format!("{failed} requests of wrk failed").into()) } else { Ok(()) }
}
