//! Runs the simulation for one seed: gateways start, serve, are lost in every way and come back, until all stop cleanly.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;
use futures_executor::block_on;
use tokio::runtime::{Builder, Handle};
use tokio_postgres::{Client, NoTls};

use super::engine::Postgres;
use super::gateway::{Environment, Process};
use super::judge::judge;
use super::network::{Fault, Mode, Network};
use super::seen::Seen;
use crate::clock::Clock;
use crate::ledger::entry::EntryKind;
use crate::ledger::postgres::{JournalAt, Server};
use crate::ledger::store::{Booking, NewFileAccount, Registration, Result, no_notes};
use crate::types::{Credits, KeyId, WallTime};

const NAMES: [&str; 3] = ["a", "b", "c"];
const ACCOUNTS: usize = 3;
const STEPS: u32 = 400;
const HOUR: i64 = 3_600_000;
/// The time at which each run begins.
const START: i64 = 1_000 * HOUR;
/// Most attempts to start or stop a gateway once nothing goes wrong any more.
const MAX_TRIES: u32 = 5;

/// The server's clock is the simulation's: its functions are found before the server's own.
const CLOCK: &str = "CREATE SCHEMA sim;
    CREATE TABLE sim.time (at BIGINT NOT NULL);
    INSERT INTO sim.time VALUES (0);
    CREATE FUNCTION sim.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
        AS 'SELECT to_timestamp(at / 1000.0) FROM sim.time';
    ALTER DATABASE ledger SET search_path = sim, pg_catalog";

/// Empties all tables, but for what a new ledger has.
const EMPTY: &str = "SET session_replication_role = replica;
    DO $$ DECLARE name text; BEGIN
        FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'sim'
            AND tablename NOT IN ('time', 'ledger_version', 'operator_accounts', 'journal', 'seller')
        LOOP EXECUTE format('DELETE FROM sim.%I', name); END LOOP;
    END $$;
    UPDATE sim.operator_accounts SET balance = '0';";

/// The server, and the networks to it.
pub(super) struct Place {
    runtime: Handle,
    client: Client,
    networks: [Network; NAMES.len()],
    servers: [Server; NAMES.len()],
}

impl Place {
    pub(super) fn new(server: &Postgres) -> Self {
        for setting in ["fsync", "full_page_writes"] {
            server.run_sql(&format!("ALTER SYSTEM SET {setting} = off"));
        }
        server.run_sql("SELECT pg_reload_conf()");
        let url = server.database("ledger");
        server.run_sql_in("ledger", CLOCK);
        let on_thread = Builder::new_current_thread().enable_all().build().unwrap();
        let runtime = on_thread.handle().clone();
        std::thread::spawn(move || on_thread.block_on(std::future::pending::<()>()));
        let connected = runtime.spawn({
            let url = url.clone();
            async move { tokio_postgres::connect(&url, NoTls).await }
        });
        let (client, connection) = block_on(connected).unwrap().unwrap();
        runtime.spawn(connection);
        let config: tokio_postgres::Config = url.parse().unwrap();
        let networks = NAMES.map(|_| Network::start(config.get_ports()[0]));
        let servers = std::array::from_fn(|at| {
            let port = networks[at].port.to_string();
            let url = url.replace(&config.get_ports()[0].to_string(), &port);
            Server { config: url.parse().unwrap(), tls: None, node: Some(NAMES[at].to_owned()) }
        });
        Self { runtime, client, networks, servers }
    }

    fn run(&self, sql: &str) {
        block_on(self.client.batch_execute(sql)).unwrap();
    }

    fn count(&self, sql: &str) -> i64 {
        block_on(self.client.query_one(sql, &[])).unwrap().get(0)
    }
}

struct Gateway {
    journal: JournalAt,
    clock: Clock,
    /// How fast its clock goes, in thousandths.
    speed: u32,
    process: Option<Process>,
}

pub(super) struct World<'a> {
    place: &'a Place,
    environment: Environment<'a>,
    now: i64,
    gateways: [Gateway; NAMES.len()],
    granted: [i64; ACCOUNTS],
    /// A grant that may be booked or not.
    uncertain: Option<Booking>,
    _folder: tempfile::TempDir,
}

impl World<'_> {
    pub(super) fn play(place: &Place, seed: u64, seen: &mut Seen) {
        let _runtime = place.runtime.enter();
        let mut world = World::new(place, seed, 20..600, seen);
        world.begin();
        for _ in 0..STEPS {
            world.step();
        }
        world.end();
    }

    /// Runs dry all accounts at one gateway, has a fault happen while it folds, and crashes it. What it finds when it is back must
    /// not be more than what it left. Returns false if the fold had fewer messages.
    pub(super) fn interrupt_a_fold(place: &Place, after: u32, fault: Fault, seen: &mut Seen) -> bool {
        let _runtime = place.runtime.enter();
        let mut world = World::new(place, u64::from(after), 24..25, seen);
        world.begin();
        world.run_dry(0);
        place.networks[0].plan_fault(Some((after, fault)));
        world.with(0, |process, _| process.books.fold().map_or_else(drop, drop));
        let faults = place.networks[0].take_faults();
        place.networks[0].plan_fault(None);
        world.crash(0);
        world.start(0).expect("a sound network");
        world.run_dry(0);
        world.end();
        faults > 0
    }

    /// Spends all that can be spent at a gateway.
    fn run_dry(&mut self, at: usize) {
        for _ in 0..30 {
            self.with(at, |process, environment| {
                (0..12).for_each(|_| process.serve(environment));
                process.commit();
            });
            self.lease(at);
            self.advance(40);
        }
    }

    fn new<'a>(place: &'a Place, seed: u64, credits: Range<i64>, seen: &'a mut Seen) -> World<'a> {
        let mut random = Rng::with_seed(seed ^ 0xF1EE7);
        let memory = std::path::Path::new("/dev/shm");
        let folder =
            if memory.exists() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let gateways = std::array::from_fn(|at| Gateway {
            journal: match random.bool() {
                true => JournalAt::Shared,
                false => JournalAt::Local(folder.path().join(NAMES[at])),
            },
            clock: Clock::test(WallTime(START + random.i64(-HOUR..=HOUR))),
            speed: random.u32(950..=1050),
            process: None,
        });
        let granted = [random.i64(credits); ACCOUNTS];
        let (accounts, keys) = (Vec::new(), Vec::new());
        let environment = Environment { random, accounts, keys, wishes: BTreeMap::new(), ids: 0, seen };
        World { place, environment, now: START, gateways, granted, uncertain: None, _folder: folder }
    }

    fn begin(&mut self) {
        self.place.networks.iter().for_each(|network| {
            network.plan_fault(None);
            network.set(Mode::Up);
        });
        if self.place.count("SELECT count(*) FROM pg_tables WHERE schemaname = 'sim'") > 1 {
            self.place.run(EMPTY);
        }
        self.advance(0);
        let id = |at: usize| format!("a{at}").parse().expect("an id");
        let opening = |at: usize| Some(Credits::from_millionths(self.granted[at]));
        let wanted = Registration {
            accounts: (0..ACCOUNTS).map(|at| NewFileAccount::new(id(at), opening(at))).collect(),
            keys: (0..ACCOUNTS).map(|at| (KeyId(at as u64 + 1), id(at), "k".to_owned())).collect(),
            routes: vec!["r".parse().expect("a name")],
            lists_requests: Some(true),
            ..Registration::default()
        };
        self.start(0).expect("a sound network");
        let books = &mut self.gateways[0].process.as_mut().expect("a process").books;
        let registered = books.register(&wanted).expect("a sound network");
        self.environment.accounts = registered.accounts.iter().map(|row| row.num).collect();
        self.environment.keys = registered.keys.iter().map(|(num, _)| *num).collect();
        for at in 1..NAMES.len() {
            self.start(at).expect("a sound network");
        }
    }

    fn start(&mut self, at: usize) -> Result<()> {
        let Gateway { journal, clock, process, .. } = &mut self.gateways[at];
        assert!(process.is_none(), "one process at a time");
        *process = Some(Process::start(at, &self.place.servers[at], journal, clock)?);
        Ok(())
    }

    /// Time passes, for each gateway at the speed of its clock.
    fn advance(&mut self, millis: u32) {
        self.now += i64::from(millis);
        self.place.run(&format!("UPDATE sim.time SET at = {}", self.now));
        for gateway in &self.gateways {
            gateway.clock.advance(Duration::from_micros(u64::from(millis) * u64::from(gateway.speed)));
        }
    }

    /// Does something with a gateway, if a process serves as it.
    fn with(&mut self, at: usize, what: impl FnOnce(&mut Process, &mut Environment<'_>)) {
        if let Some(process) = &mut self.gateways[at].process {
            what(process, &mut self.environment);
        }
    }

    fn step(&mut self) {
        let at = self.environment.random.usize(..NAMES.len());
        if self.gateways[at].process.is_none() && self.environment.random.u32(..8) == 0 {
            return drop(self.start(at));
        }
        if self.place.networks[at].mode() == Mode::Cut && self.environment.random.u32(..16) == 0 {
            return self.place.networks[at].set(Mode::Up);
        }
        match self.environment.random.u32(..64) {
            0..22 => self.with(at, |process, environment| {
                (0..environment.random.u32(1..8)).for_each(|_| process.serve(environment));
            }),
            22..38 => self.with(at, |process, _| process.commit()),
            38..42 => self.with(at, |process, _| process.books.work()),
            42..54 => self.lease(at),
            54..60 => {
                let most = if self.environment.random.u32(..4) == 0 { 4_000 } else { 300 };
                let millis = self.environment.random.u32(1..most);
                self.advance(millis);
            }
            60 => self.grant(at),
            61 => {
                let faults = [Fault::Lost, Fault::Unanswered, Fault::Late];
                let fault = faults[self.environment.random.usize(..faults.len())];
                self.place.networks[at].plan_fault(Some((self.environment.random.u32(..30), fault)));
            }
            62 => match self.environment.random.u32(..3) {
                0 => self.crash(at),
                1 => drop(self.stop(at)),
                _ => {
                    self.environment.seen.cuts += 1;
                    self.place.networks[at].set(Mode::Cut);
                }
            },
            _ => self.lull(),
        }
    }

    /// Time passes in which only the threads of the leases work, so that gateways that are gone are given up.
    fn lull(&mut self) {
        for _ in 0..self.environment.random.u32(2..14) {
            self.advance(1_000);
            for at in 0..NAMES.len() {
                self.lease(at);
            }
        }
    }

    fn lease(&mut self, at: usize) {
        self.with(at, |process, environment| environment.seen.given_up += u64::from(process.lease()));
    }

    /// Books a grant, or tries the last one again, whose outcome is not known.
    fn grant(&mut self, at: usize) {
        let account = self.environment.random.usize(..ACCOUNTS);
        let booking = self.uncertain.take().unwrap_or_else(|| Booking {
            key: None,
            lot: None,
            account: format!("a{account}").parse().expect("an id"),
            kind: EntryKind::Grant,
            amount: Credits::from_millionths(self.environment.random.i64(1..200)),
            reference: format!("r{}", self.environment.random.u64(..)),
            actor: "command".to_owned(),
        });
        let Some(process) = &mut self.gateways[at].process else { return self.uncertain = Some(booking) };
        match process.books.book(&booking, &no_notes()) {
            Ok(_) => {
                let account: usize = booking.account.as_str()[1..].parse().expect("a number");
                self.granted[account] += booking.amount.millionths();
                self.environment.seen.grants += 1;
            }
            Err(_) => self.uncertain = Some(booking),
        }
    }

    fn crash(&mut self, at: usize) {
        let (network, process) = (&self.place.networks[at], self.gateways[at].process.take());
        let Some(process) = process else { return };
        let before = network.mode();
        network.set(Mode::Cut);
        process.crash();
        self.environment.seen.crashes += 1;
        network.set(before);
    }

    /// Stops a gateway. If that fails, it counts as a crash.
    fn stop(&mut self, at: usize) -> Result<()> {
        let Some(process) = self.gateways[at].process.take() else { return Ok(()) };
        process.stop(&mut self.environment)
    }

    /// All gateways come back and stop cleanly. Then nothing is leased, and the ledger has what clients were told.
    fn end(&mut self) {
        for network in &self.place.networks {
            self.environment.seen.faults += network.take_faults();
            network.plan_fault(None);
            network.set(Mode::Up);
        }
        for at in 0..NAMES.len() {
            let mut tries = 0;
            loop {
                // What a process cannot write that another one has served in place of, is lost with it.
                let stopped = match self.gateways[at].process {
                    Some(_) => self.stop(at),
                    None => self.start(at).and_then(|()| self.stop(at)),
                };
                tries += 1;
                match stopped {
                    Ok(()) => break,
                    Err(error) => assert!(tries < MAX_TRIES, "gateway {at}: {error}"),
                }
            }
        }
        while self.uncertain.is_some() {
            self.start(0).expect("a sound network");
            self.grant(0);
            self.stop(0).expect("a sound network");
        }
        let left = "SELECT (SELECT count(*) FROM sim.leases WHERE granted <> 0) + (SELECT count(*) FROM sim.spends WHERE spent <> 0)";
        assert_eq!(self.place.count(left), 0, "everything that was leased is returned");
        self.start(0).expect("a sound network");
        let books = &mut self.gateways[0].process.as_mut().expect("a process").books;
        let mut reader = books.books().reader().expect("a reader");
        let doubts = judge(&mut *reader, &self.environment.wishes, &self.granted);
        self.environment.seen.doubts += doubts as u64;
        drop(reader);
        self.stop(0).expect("a sound network");
    }
}
