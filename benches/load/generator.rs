//! The bench's own load generator: the bench's binary, started again with [`ARGUMENT`] and a plan as JSON.
//!
//! Closed loop: each connection sends its next request once it has a response. Open loop: requests are due at a fixed
//! rate, however fast responses arrive. Latency counts from the time when a request was due, so that a gateway that
//! stalls cannot hide it by receiving fewer requests.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use serde_json::{Value, json};

use crate::Result;
use crate::client::Response;

pub const ARGUMENT: &str = "--generate";
/// How long responses may take after the last request.
const GRACE: Duration = Duration::from_secs(10);
/// Minimum time between two ticks of the open loop. Requests that are due within one tick are sent together.
const TICK: Duration = Duration::from_micros(100);
const BUFFER: usize = 256 * 1024;
/// Maximum readiness events that one poll returns.
const READY: usize = 1_024;
const TICKER: Token = Token(usize::MAX);

struct Plan {
    port: u16,
    connections: usize,
    /// Stop conditions: seconds after which no request is sent any more, and the maximum number of requests.
    seconds: Option<u64>,
    requests: u64,
    /// Requests that are due per second in the open loop; `None` for the closed loop.
    rate: Option<f64>,
    keys: Vec<String>,
    before: String,
    after: String,
}

impl Plan {
    fn read(text: &str) -> Result<Self> {
        let plan: Value = serde_json::from_str(text)?;
        let number = |name: &str| plan[name].as_u64();
        let word = |name: &str| plan[name].as_str().unwrap_or_default();
        let keys = std::fs::read_to_string(word("keys"))?.lines().map(str::to_owned).collect::<Vec<_>>();
        if keys.is_empty() {
            return Err("a load without keys".into());
        }
        Ok(Self {
            port: u16::try_from(number("port").unwrap_or(0))?,
            connections: usize::try_from(number("connections").unwrap_or(1))?,
            seconds: number("seconds"),
            requests: number("requests").unwrap_or(u64::MAX),
            rate: number("rate").map(|rate| rate as f64),
            keys,
            before: word("before").to_owned(),
            after: word("after").to_owned(),
        })
    }
}

struct Link {
    stream: TcpStream,
    response: Response,
    /// When its request was sent or was due; `None` if it has no request in flight.
    since: Option<Instant>,
}

#[derive(Default)]
struct Counted {
    requests: u64,
    refused: u64,
    broken: u64,
    bytes: u64,
    events: u64,
    /// Latency of each response in µs.
    latencies: Vec<u32>,
}

struct Generator {
    plan: Plan,
    poll: Poll,
    links: Vec<Link>,
    /// Connections without a request in flight, the longest idle first.
    idle: VecDeque<usize>,
    asked: u64,
    start: Instant,
    counted: Counted,
    text: Vec<u8>,
}

pub fn run(plan: &str) -> Result<()> {
    let plan = Plan::read(plan)?;
    let poll = Poll::new()?;
    let ticker = Waker::new(poll.registry(), TICKER)?;
    let rate = plan.rate;
    let mut generator = Generator {
        idle: (0..plan.connections).collect(),
        plan,
        poll,
        links: Vec::new(),
        asked: 0,
        start: Instant::now(),
        counted: Counted::default(),
        text: Vec::new(),
    };
    for at in 0..generator.plan.connections {
        let link = generator.connect(at)?;
        generator.links.push(link);
    }
    generator.start = Instant::now();
    if let Some(rate) = rate {
        let (start, step) = (generator.start, Duration::from_secs_f64(1.0 / rate).max(TICK));
        // The ticks need their own thread, because the poll waits for whole milliseconds.
        std::thread::spawn(move || {
            for due in (0..).map(|tick| start + step * tick) {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let _ = ticker.wake(); // fails only once the generator has ended
            }
        });
    }
    generator.work()?;
    generator.tell();
    Ok(())
}

impl Generator {
    fn connect(&self, number: usize) -> Result<Link> {
        let stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.plan.port))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        self.poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
        Ok(Link { stream, response: Response::new(false), since: None })
    }

    fn work(&mut self) -> Result<()> {
        let (mut ready, mut buffer) = (Events::with_capacity(READY), vec![0; BUFFER]);
        // The open loop ends after a number of requests. If it falls far behind, it is cut off after the grace period.
        let grace = if self.plan.rate.is_some() { GRACE } else { Duration::ZERO };
        let end = self.plan.seconds.map(|seconds| self.start + Duration::from_secs(seconds) + grace);
        let mut last_call = None;
        loop {
            let now = Instant::now();
            let over = self.asked >= self.plan.requests || end.is_some_and(|end| now >= end);
            if !over {
                self.ask_due(now)?;
            }
            let all_idle = self.idle.len() == self.links.len();
            let last_call = if over { *last_call.get_or_insert(now + GRACE) } else { now + GRACE };
            if over && (all_idle || now >= last_call) {
                let unanswered = (self.links.len() - self.idle.len()) as u64;
                let unasked = if self.plan.rate.is_some() { self.plan.requests - self.asked } else { 0 };
                self.counted.broken += unanswered + unasked;
                return Ok(());
            }
            let until = end.filter(|_| !over).unwrap_or(last_call);
            match self.poll.poll(&mut ready, Some(until.saturating_duration_since(now))) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in ready.iter().filter(|event| event.token() != TICKER) {
                self.read(event.token().0, &mut buffer)?;
            }
        }
    }

    /// Sends requests that are due while connections are free. Other due requests remain due.
    fn ask_due(&mut self, now: Instant) -> Result<()> {
        while let Some(&link) = self.idle.front()
            && self.asked < self.plan.requests
        {
            let due = match self.plan.rate {
                Some(rate) => self.start + Duration::from_secs_f64(self.asked as f64 / rate),
                None => now,
            };
            if due > now {
                return Ok(());
            }
            self.idle.pop_front();
            self.ask(link, due)?;
        }
        Ok(())
    }

    fn ask(&mut self, number: usize, since: Instant) -> Result<()> {
        let key = &self.plan.keys[self.asked as usize % self.plan.keys.len()];
        self.asked += 1;
        self.text.clear();
        for part in [&self.plan.before, key, &self.plan.after] {
            self.text.extend_from_slice(part.as_bytes());
        }
        let link = &mut self.links[number];
        (link.response, link.since) = (Response::new(false), Some(since));
        // A socket without data in flight accepts a whole small request.
        if link.stream.write(&self.text).ok() != Some(self.text.len()) {
            self.give_up(number)?;
        }
        Ok(())
    }

    fn read(&mut self, number: usize, buffer: &mut [u8]) -> Result<()> {
        loop {
            let link = &mut self.links[number];
            match link.stream.read(buffer) {
                Ok(0) if link.since.is_none() => {
                    self.links[number] = self.connect(number)?; // the server closed an idle connection
                    return Ok(());
                }
                Ok(0) => return self.give_up(number),
                Ok(length) => {
                    self.counted.bytes += length as u64;
                    link.response.feed(&buffer[..length])?;
                    if link.response.is_done() {
                        return self.finish(number);
                    }
                    if length < buffer.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return self.give_up(number),
            }
        }
    }

    fn finish(&mut self, number: usize) -> Result<()> {
        let link = &mut self.links[number];
        let Some(since) = link.since.take() else { return Err("a response that nobody asked for".into()) };
        let latency = u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX);
        self.counted.latencies.push(latency);
        self.counted.requests += 1;
        self.counted.refused += u64::from(link.response.status >= 400);
        self.counted.events += link.response.events;
        if link.response.closes {
            self.links[number] = self.connect(number)?;
        }
        self.idle.push_back(number);
        Ok(())
    }

    fn give_up(&mut self, number: usize) -> Result<()> {
        self.counted.broken += 1;
        self.links[number] = self.connect(number)?;
        self.idle.push_back(number);
        Ok(())
    }

    fn tell(mut self) {
        let micros = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let latencies = &mut self.counted.latencies;
        latencies.sort_unstable();
        let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or(0);
        let Counted { requests, refused, broken, bytes, events, .. } = self.counted;
        println!(
            "{}",
            json!({
                "requests": requests, "micros": micros, "refused": refused, "broken": broken,
                "p50": at(0.5), "p99": at(0.99), "bytes": bytes, "events": events,
            })
        );
    }
}
