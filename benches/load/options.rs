//! Parses the command line. `main.rs` lists the options.

use std::path::PathBuf;

use crate::Result;
use crate::cases::{self, Case};

/// The kind of run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Measure,
    /// Runs each case once with tiny sizes; checks only responses and charges.
    Smoke,
    /// Counts instructions per request.
    Callgrind,
}

/// The options of a run.
pub struct Options {
    pub mode: Mode,
    pub cases: Vec<&'static Case>,
    /// Only entrants whose names begin with one of these; all if empty.
    pub peers: Vec<String>,
    pub rounds: usize,
    pub seconds: u64,
    pub connections: Option<u64>,
    /// Keys of the larger store in the case `million`.
    pub many_keys: usize,
    /// Requests per second of the case `rate`.
    pub rate: u64,
    pub json: Option<PathBuf>,
    /// Requests that callgrind counts.
    pub requests: u64,
    /// Functions that callgrind lists.
    pub top: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::Measure,
            cases: vec![&cases::ALL[0]],
            peers: Vec::new(),
            rounds: 5,
            seconds: 5,
            connections: None,
            many_keys: 1_000_000,
            rate: 5_000,
            json: None,
            requests: 10_000,
            top: 0,
        }
    }
}

impl Options {
    pub fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => continue,
                "--short" => (options.rounds, options.seconds) = (1, 1),
                "--smoke" => {
                    options.mode = Mode::Smoke;
                    // Smoke tests use the bench's own load generator, which supports only HTTP/1.1 without TLS.
                    let plain = cases::ALL.iter().filter(|case| case.wire == cases::Wire::Plain);
                    (options.cases, options.many_keys) = (plain.collect(), 1_000);
                }
                "--callgrind" => options.mode = Mode::Callgrind,
                _ => {
                    let value = arguments.next().ok_or(format!("{argument} is unknown or needs a value"))?;
                    options.set(&argument, &value)?;
                }
            }
        }
        Ok(options)
    }

    /// Sets one option that has a value.
    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let number = || -> Result<u64> {
            match value.parse() {
                Ok(number @ 1..) => Ok(number),
                _ => Err(format!("{name}: {value} is no number from 1 on").into()),
            }
        };
        match name {
            "--case" => self.cases = value.split(',').map(named).collect::<Result<_>>()?,
            "--peers" => self.peers = value.split(',').map(str::to_owned).collect(),
            "--rounds" => self.rounds = usize::try_from(number()?)?,
            "--seconds" => self.seconds = number()?,
            "--connections" => self.connections = Some(number()?),
            "--keys" => self.many_keys = usize::try_from(number()?)?,
            "--rate" => self.rate = number()?,
            "--json" => self.json = Some(value.into()),
            "--requests" => self.requests = number()?,
            "--top" => self.top = usize::try_from(number()?)?,
            _ => return Err(format!("unknown option {name}; see benches/load/main.rs").into()),
        }
        Ok(())
    }

    pub fn is_smoke(&self) -> bool {
        self.mode == Mode::Smoke
    }

    /// True if an entrant of this name takes part.
    pub fn wants(&self, entrant: &str) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|peer| entrant.starts_with(peer.as_str()))
    }
}

fn named(name: &str) -> Result<&'static Case> {
    let known = || cases::ALL.iter().map(|case| case.name).collect::<Vec<_>>().join(", ");
    let found = cases::ALL.iter().find(|case| case.name == name);
    found.ok_or_else(|| format!("there is no case {name}; there are {}", known()).into())
}
