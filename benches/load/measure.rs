//! Measures the CPU time that a gateway uses in a run.

use std::collections::BTreeMap;
use std::fs;

use crate::Result;
use crate::cases::Unit;
use crate::load::{Hits, Length, Load};
use crate::peers::{self, Peer};

/// The CPU time of a thread.
#[derive(Clone, Copy, Default)]
struct Spent {
    /// On-CPU time in nanoseconds.
    ns: u64,
    /// User and system time in clock ticks of 10 ms. They are coarse, so only their ratio is used.
    ticks: (u64, u64),
}

/// The measurements of one entrant in a round.
pub struct Sample {
    pub hits: Hits,
    /// On-CPU nanoseconds by thread name.
    pub threads: BTreeMap<String, u64>,
    ticks: (u64, u64),
}

impl Sample {
    fn cpu_ns(&self) -> f64 {
        self.threads.values().sum::<u64>() as f64
    }

    /// CPU time per unit: µs per request or event, s per gigabyte.
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

    /// CPU time as a share of one core.
    pub fn busy(&self) -> f64 {
        self.cpu_ns() / 1e9 / self.hits.seconds
    }
}

/// Measures one run. `aftermath` is true if the CPU time counts, not only the responses. Tollgate then writes all
/// entries of the run before CPU time is read, even those that it would have written later.
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

/// Names and CPU times of a process's threads, by thread id. A thread that has ended meanwhile is missing; the gateways
/// end no thread that matters.
fn spent(process: u32) -> Result<BTreeMap<u32, (String, Spent)>> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        let entry = entry?;
        let read = |file| fs::read_to_string(entry.path().join(file));
        let (Ok(name), Ok(times), Ok(stat)) = (read("comm"), read("schedstat"), read("stat")) else {
            continue;
        };
        let ns = times.split(' ').next().unwrap_or_default().parse()?;
        // After the thread's name, which may contain any character, user and system time are the 12th and 13th fields.
        let (_, numbers) = stat.rsplit_once(')').ok_or("a thread without a name")?;
        let mut numbers = numbers.split_whitespace().skip(11).map(|number| number.parse().unwrap_or(0));
        let ticks = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let number = entry.file_name().to_string_lossy().parse()?;
        threads.insert(number, (name.trim().to_owned(), Spent { ns, ticks }));
    }
    Ok(threads)
}
