//! A model of a large fleet: what its gateways ask of the database, how evenly they lease, what becomes of the last credits
//! of an account, and what a restart of all gateways costs.
//!
//! `cargo bench --bench fleet` simulates 1,000 gateways with 100,000,000 keys, an account each, and 10,000,000 requests a
//! second. Accounts do not influence each other, so a sample of each class of accounts is simulated, request by request, with
//! the rules by which gateways lease (`policy::credit::lease`; the constants below repeat those of `ledger/fleet/`), and its
//! counts are multiplied. The database answers at once, and no request waits for what others return later.
//! `--smoke` simulates a few.

#![allow(clippy::cast_precision_loss, reason = "figures for readers")]

use std::time::Duration;

use fastrand::Rng;
use tollgate::policy::credit::lease;
use tollgate::types::Credits;

const GATEWAYS: usize = 1_000;
/// What a request costs.
const PRICE: i64 = 1_000_000;
/// How long credits stay leased that are not spent, in seconds.
const IDLE: f64 = 30.0;
/// How long what was leased is not returned, although another gateway needs it, in seconds.
const KEPT: f64 = 0.15;
/// How often charges are folded, in seconds.
const FOLD: f64 = 5.0;
/// Simulated time, in seconds. The first part of it is not counted.
const TIME: f64 = 180.0;
const WARM_UP: f64 = 60.0;

/// Accounts that spend alike.
struct Class {
    name: &'static str,
    accounts: f64,
    /// Requests a second of each account.
    rate: f64,
}

/// One request of five is of a thousand large customers, three of a million, and one of all others.
const CLASSES: [Class; 3] = [
    Class { name: "large", accounts: 1e3, rate: 2_000.0 },
    Class { name: "medium", accounts: 1e6, rate: 6.0 },
    Class { name: "small", accounts: 99e6, rate: 2e6 / 99e6 },
];

#[derive(Clone, Copy, Debug, Default)]
struct Gateway {
    local: i64,
    low: i64,
    /// What was here when credits were last leased, and when that was.
    then: (i64, f64),
    /// When credits were last spent.
    spent_at: f64,
    served: u64,
    /// The fold that has the last charge.
    fold: i64,
}

/// What happened, per account.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    requests: f64,
    /// Requests that waited for a lease.
    waited: f64,
    /// Leases, each of one account at one gateway.
    leases: f64,
    returned: f64,
    calls: f64,
    /// Entries that folds write.
    entries: f64,
    refused: f64,
    /// Of those, requests that were refused although others had leased enough.
    wrongly: f64,
}

struct Account {
    free: i64,
    gateways: Vec<Gateway>,
    counts: Counts,
}

impl Account {
    fn new(credits: i64, gateways: usize) -> Self {
        Self {
            free: credits * PRICE,
            gateways: vec![Gateway::default(); gateways],
            counts: Counts::default(),
        }
    }

    /// A request at a gateway. True if it is charged.
    fn serve(&mut self, at: usize, now: f64) -> bool {
        self.counts.requests += 1.0;
        self.return_idle(at, now);
        if self.gateways[at].local < PRICE {
            self.counts.waited += 1.0;
            self.lease(at, PRICE, now);
            if self.gateways[at].local < PRICE {
                self.call_in(at, now);
                self.lease(at, PRICE, now);
            }
        }
        if self.gateways[at].local < PRICE {
            self.counts.refused += 1.0;
            let all: i64 = self.gateways.iter().map(|gateway| gateway.local).sum();
            self.counts.wrongly += f64::from(all + self.free >= PRICE);
            return false;
        }
        let gateway = &mut self.gateways[at];
        gateway.local -= PRICE;
        (gateway.spent_at, gateway.served) = (now, gateway.served + 1);
        #[expect(clippy::cast_possible_truncation, reason = "some minutes")]
        let fold = (now / FOLD) as i64 + 1;
        self.counts.entries += f64::from(std::mem::replace(&mut gateway.fold, fold) != fold);
        if gateway.local < gateway.low {
            self.lease(at, 0, now);
        }
        true
    }

    fn lease(&mut self, at: usize, need: i64, now: f64) {
        let users = 1 + self
            .gateways
            .iter()
            .enumerate()
            .filter(|(other, gateway)| *other != at && gateway.local > 0)
            .count();
        let gateway = &mut self.gateways[at];
        let credits = Credits::from_millionths;
        let within = if gateway.then.1 > 0.0 { now - gateway.then.1 } else { 1.0 };
        let need = (need - gateway.local).max(0);
        let spent = (gateway.then.0 - gateway.local).max(0);
        let target = lease::target(credits(need), credits(spent), Duration::from_secs_f64(within));
        let granted =
            lease::grant(credits(need), credits(need), target, credits(self.free), users).millionths();
        self.free -= granted;
        gateway.local += granted;
        gateway.low = if granted == 0 { 0 } else { gateway.local / 2 };
        gateway.then = (gateway.local, now);
        self.counts.leases += 1.0;
    }

    /// The other gateways return what they do not need.
    fn call_in(&mut self, at: usize, now: f64) {
        self.counts.calls += 1.0;
        for (other, gateway) in self.gateways.iter_mut().enumerate() {
            if other != at && gateway.local > 0 && now - gateway.then.1 >= KEPT {
                self.free += std::mem::take(&mut gateway.local);
                self.counts.returned += 1.0;
            }
        }
    }

    fn return_idle(&mut self, at: usize, now: f64) {
        let gateway = &mut self.gateways[at];
        if gateway.local > 0 && now - gateway.spent_at >= IDLE {
            self.free += std::mem::take(&mut gateway.local);
            self.counts.returned += 1.0;
            gateway.then = (0, now);
        }
    }
}

/// The time until the next of requests that come independently of each other.
fn gap(random: &mut Rng, rate: f64) -> f64 {
    -(1.0 - random.f64()).ln() / rate
}

fn simulate(random: &mut Rng, class: &Class, gateways: usize) -> Account {
    let mut account = Account::new(1_000_000_000, gateways);
    let mut now = 1.0;
    let mut is_warm = false;
    while now < TIME {
        if now >= WARM_UP && !is_warm {
            is_warm = true;
            account.counts = Counts::default();
        }
        account.serve(random.usize(..gateways), now);
        now += gap(random, class.rate);
    }
    account
}

/// What all accounts of all classes ask of the database, if the requests of each account come to so many gateways.
fn load(random: &mut Rng, gateways: usize, sample: usize) {
    let mut sums = [0.0; 5];
    for class in &CLASSES {
        // The simulated requests of each class are about as many.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let count = (sample as f64 / class.rate).clamp(3.0, 200_000.0) as usize;
        let times = class.accounts / count as f64 / (TIME - WARM_UP);
        let mut class_sums = [0.0; 5];
        for _ in 0..count {
            let account = simulate(random, class, gateways);
            let Counts { requests, waited, leases, returned, entries, .. } = account.counts;
            for (sum, each) in class_sums.iter_mut().zip([requests, waited, leases, returned, entries]) {
                *sum += each * times;
            }
        }
        let [requests, waited, leases, returned, entries] = class_sums;
        println!(
            "{:>6} gateways an account, {:<7} {requests:>12.0} requests/s, {waited:>11.0} wait, {leases:>11.0} leases/s, \
             {returned:>10.0} returned/s, {entries:>10.0} entries/s",
            gateways, class.name
        );
        sums.iter_mut().zip(class_sums).for_each(|(sum, each)| *sum += each);
    }
    let [requests, waited, leases, returned, entries] = sums;
    println!(
        "{gateways:>6} gateways an account, all     {requests:>12.0} requests/s, {waited:>11.0} wait, {leases:>11.0} leases/s, \
         {returned:>10.0} returned/s, {entries:>10.0} entries/s"
    );
}

/// An account runs dry: are all its credits spent, how evenly, and how many leases does that take?
fn last_credits(random: &mut Rng, gateways: usize, credits: i64, rate: f64) {
    let mut account = Account::new(credits, gateways);
    let (mut now, mut charged, mut refusals) = (1.0, 0_u64, 0);
    while refusals < 3 * gateways {
        match account.serve(random.usize(..gateways), now) {
            true => charged += 1,
            false => refusals += 1,
        }
        now += gap(random, rate);
    }
    let served: Vec<u64> = account.gateways.iter().map(|gateway| gateway.served).collect();
    let (least, most) =
        (served.iter().min().copied().unwrap_or(0), served.iter().max().copied().unwrap_or(0));
    let Counts { leases, calls, wrongly, .. } = account.counts;
    println!(
        "{credits} credits at {gateways} gateways, {rate} requests/s: {charged} charged ({least} to {most} at a gateway), \
         {leases:.0} leases, {calls:.0} calls, {wrongly:.0} refused while others had just leased some"
    );
    assert!(gateways > 1 || charged == credits.unsigned_abs(), "one gateway spends all");
}

/// A gateway is lost: what it had leased, in seconds of its spending, when the credits would last so long.
fn stranded(random: &mut Rng) {
    for seconds in [1.0, 5.0, 10.0, 60.0, 600.0] {
        let (gateways, rate) = (10, 1_000.0);
        #[expect(clippy::cast_possible_truncation, reason = "a count")]
        let mut account = Account::new((rate * (30.0 + seconds)) as i64, gateways);
        let mut now = 1.0;
        let mut left = i64::MAX;
        while left > 0 && (left as f64) > seconds * rate * PRICE as f64 {
            account.serve(random.usize(..gateways), now);
            now += gap(random, rate);
            left = account.free + account.gateways.iter().map(|gateway| gateway.local).sum::<i64>();
        }
        let most = account.gateways.iter().map(|gateway| gateway.local).max().unwrap_or(0);
        let of_spending = most as f64 / PRICE as f64 / (rate / gateways as f64);
        println!(
            "credits for {seconds} s at 10 gateways: one has leased at most what it spends in {of_spending:.2} s"
        );
    }
}

/// All gateways start at once, with nothing leased: requests that wait, and leases, in the first second.
fn storm(random: &mut Rng, gateways: usize, sample: usize) {
    let (mut waited, mut leases) = (0.0, 0.0);
    for class in &CLASSES {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let count = (sample as f64 / class.rate).clamp(3.0, 1_000_000.0) as usize;
        for _ in 0..count {
            let mut account = Account::new(1_000_000_000, gateways);
            let mut now = gap(random, class.rate);
            while now < 1.0 {
                account.serve(random.usize(..gateways), 1.0 + now);
                now += gap(random, class.rate);
            }
            waited += account.counts.waited * class.accounts / count as f64;
            leases += account.counts.leases * class.accounts / count as f64;
        }
    }
    println!(
        "restart of all, {gateways} gateways an account: in the first second {waited:.0} requests wait, {leases:.0} leases"
    );
}

fn main() {
    let is_smoke = std::env::args().any(|argument| argument == "--smoke");
    let sample = if is_smoke { 10 } else { 3_000 };
    let mut random = Rng::with_seed(1);
    println!(
        "{GATEWAYS} gateways; a lease is a row, up to 256 of them in one transaction; an entry is a row, too"
    );
    for gateways in [1, 4, GATEWAYS].into_iter().take(if is_smoke { 2 } else { 3 }) {
        load(&mut random, gateways, sample);
        storm(&mut random, gateways, sample);
    }
    for gateways in [1, 4, GATEWAYS] {
        last_credits(&mut random, gateways, 100_000, 10_000.0);
        last_credits(&mut random, gateways, 100, 10.0);
    }
    stranded(&mut random);
}
