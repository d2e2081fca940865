//! The CPU that a gateway spends on a run.

use std::collections::BTreeMap;
use std::fs;

use crate::Result;
use crate::cases::Unit;
use crate::load::{Hits, Length, Load};
use crate::peers::{self, Peer};

/// What a thread spent.
#[derive(Clone, Copy, Default)]
struct Spent {
    /// On a CPU.
    ns: u64,
    /// Clock ticks of 10 ms, user and system: coarse, so only their proportion is used.
    ticks: (u64, u64),
}

/// One entrant's part of a round.
pub struct Sample {
    pub hits: Hits,
    /// On-CPU nanoseconds by the threads' names.
    pub threads: BTreeMap<String, u64>,
    ticks: (u64, u64),
}

impl Sample {
    fn cpu_ns(&self) -> f64 {
        self.threads.values().sum::<u64>() as f64
    }

    /// µs (of a gigabyte: s) of CPU per unit.
    pub fn cpu(&self, unit: Unit) -> f64 {
        match unit {
            Unit::Request => self.cpu_ns() / 1e3 / self.hits.requests as f64,
            Unit::Gigabyte => self.cpu_ns() / self.hits.bytes as f64,
            Unit::Event => self.cpu_ns() / 1e3 / self.hits.events as f64,
        }
    }

    /// The part of [`Sample::cpu`] outside the kernel.
    pub fn user(&self, unit: Unit) -> f64 {
        let (user, system) = self.ticks;
        self.cpu(unit) * user as f64 / (user + system) as f64
    }

    /// Share of one core.
    pub fn busy(&self) -> f64 {
        self.cpu_ns() / 1e9 / self.hits.seconds
    }
}

/// `aftermath`: whether the CPU counts, not only the answers. Tollgate then writes all entries of the
/// run before CPU is read, however far it would have put that off.
pub fn sample(peer: &Peer, load: &Load, length: Length, aftermath: bool) -> Result<Sample> {
    let before = spent(peer.process.id())?;
    let hits = load.run(peer.wire_port, peer.keys, length)?;
    if aftermath && peer.charges() {
        peers::fold(&peer.folder)?;
    }
    let (mut threads, mut ticks): (BTreeMap<String, u64>, _) = (BTreeMap::new(), (0, 0));
    for (thread, (name, now)) in spent(peer.process.id())? {
        let earlier = before.get(&thread).map_or(Spent::default(), |(_, spent)| *spent);
        *threads.entry(name).or_default() += now.ns.saturating_sub(earlier.ns);
        ticks.0 += now.ticks.0.saturating_sub(earlier.ticks.0);
        ticks.1 += now.ticks.1.saturating_sub(earlier.ticks.1);
    }
    Ok(Sample { hits, threads, ticks })
}

/// Names of a process's threads, and what they spent. One that ended in between is lost; the
/// gateways end none that matters.
fn spent(process: u32) -> Result<BTreeMap<u32, (String, Spent)>> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        let entry = entry?;
        let read = |file| fs::read_to_string(entry.path().join(file));
        let (Ok(name), Ok(times), Ok(stat)) = (read("comm"), read("schedstat"), read("stat")) else {
            continue;
        };
        let ns = times.split(' ').next().unwrap_or_default().parse()?;
        // After the name, which may hold anything, come a letter and numbers: the 12th and 13th.
        let (_, numbers) = stat.rsplit_once(')').ok_or("a thread without a name")?;
        let mut numbers = numbers.split_whitespace().skip(11).map(|number| number.parse().unwrap_or(0));
        let ticks = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let number = entry.file_name().to_string_lossy().parse()?;
        threads.insert(number, (name.trim().to_owned(), Spent { ns, ticks }));
    }
    Ok(threads)
}
