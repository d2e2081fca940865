//! Implements `demo`: runs a gateway, a sample upstream and a ledger in one process, and optionally a self-test.
//!
//! The gateway is the one that `serve` runs, from the configuration file to the ledger. Only its folder is temporary,
//! and the upstream is a sample API.

mod cases;
mod client;
mod config;
mod past;
mod people;
mod self_test;
mod upstream;

use std::net::SocketAddr;
use std::path::Path;

use rustix::process::{Signal as Number, getpid, kill_process};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failed::{Failed, Result};
use super::output;
use crate::app::App;
use crate::clock::Clock;
use crate::control::operations::{Caller, KeyInput, ShownKey};
use crate::types::Secret;
use cases::{ACCOUNT, PERSON, PHONE, VERIFY};
use config::{Account, DEMO, Folder, NEARLY_EMPTY, TRIAL};

/// Default address for clients.
const LISTEN: &str = "127.0.0.1:8080";
/// Default address for operators.
const ADMIN: &str = "127.0.0.1:8081";
/// Listening address of the self-test: a free port, so that the address is never in use.
const ANY_PORT: &str = "127.0.0.1:0";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Address for clients; port 0 picks a free one [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Address for operators; port 0 picks a free one [default: 127.0.0.1:8081].
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Send the sample requests, check each response, print both, and exit. Uses free ports by default.
    #[arg(long)]
    self_test: bool,
}

impl Arguments {
    fn address(&self, given: Option<SocketAddr>, default: &str) -> Result<SocketAddr> {
        let default = if self.self_test { ANY_PORT } else { default };
        given.map_or_else(|| Ok(default.parse()?), Ok)
    }
}

pub(super) fn run(arguments: &Arguments) -> Result {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // From here on signals are received instead of ending the process, so that the folder is always removed.
    let stop = {
        let _entered = runtime.enter();
        Stop::listen()?
    };
    let describe =
        |error| Failed(format!("error: no temporary folder in {}: {error}", std::env::temp_dir().display()));
    let folder = Folder::make().map_err(describe)?;
    let result = runtime.block_on(demo(arguments, folder.path(), stop));
    runtime.shutdown_background();
    drop(folder); // last, when nothing writes to the folder any more
    result
}

/// One active key of each account of the demo.
struct Keys {
    demo: String,
    trial: String,
    nearly_empty: String,
    /// The id of the `demo` key.
    demo_id: String,
}

async fn demo(arguments: &Arguments, folder: &Path, mut stop: Stop) -> Result {
    let (listener, upstream) = upstream::bind().await?;
    let sample = tokio::spawn(upstream::serve(listener));
    let path = folder.join("config.toml");
    let listen = arguments.address(arguments.listen, LISTEN)?;
    let admin = arguments.address(arguments.admin, ADMIN)?;
    std::fs::write(&path, config::text(listen, admin, upstream))?;
    if !arguments.self_test {
        let week = past::week(&path, listen);
        tokio::select! {
            biased;
            () = stop.asked() => return Ok(()),
            made = week => made?,
        }
    }
    let loaded = crate::config::load(&path).map_err(|report| Failed(report.to_string()))?;
    let app =
        App::start(&path, loaded, Clock::system(), None).await.map_err(|error| hinted(error.message()))?;
    let keys = Keys::make(&app).await?;
    let gateway = client::reachable(app.public.first().map_or(listen, |public| public.address));
    if arguments.self_test {
        let tested = tokio::select! {
            biased;
            () = stop.asked() => Err(Failed("error: interrupted".to_owned())),
            tested = self_test::run(gateway, keys) => tested,
        };
        app.stop().await?;
        sample.abort();
        return tested;
    }
    // Signals received until now end the demo here; from here on the gateway handles them.
    let stopped = tokio::select! {
        biased;
        () = stop.asked() => true,
        () = std::future::ready(()) => false,
    };
    if stopped {
        app.stop().await?;
        return Ok(());
    }
    let token = app.control().first_token().await?;
    let links = people::Links::make(&app).await?;
    let words = welcome(gateway, client::reachable(app.admin), &path, &keys, token.as_ref(), &links);
    tokio::spawn(end_with_terminal(stop.hangup));
    // The gateway installs its signal handlers when it is first polled, before the text mentions Ctrl-C.
    let (ran, printed) = tokio::join!(biased; app.run(), async { output::text(&words) });
    sample.abort();
    ran.map_err(|error| Failed(error.message()))?;
    printed
}

/// Adds a hint about `--listen` and `--admin` if an address is in use, the likeliest failure of the demo.
fn hinted(mut message: String) -> Failed {
    if message.contains("cannot listen") {
        message
            .push_str("\nOther addresses can be chosen with --listen and --admin; port 0 picks a free one.");
    }
    Failed(message)
}

impl Keys {
    async fn make(app: &App) -> Result<Self> {
        let (demo, demo_id) = new_key(app, DEMO).await?;
        let (trial, _) = new_key(app, TRIAL).await?;
        let (nearly_empty, _) = new_key(app, NEARLY_EMPTY).await?;
        Ok(Self { demo, trial, nearly_empty, demo_id })
    }
}

/// Creates a key in the way that `tollgate key create` does. Returns the key and its id.
async fn new_key(app: &App, account: Account) -> Result<(String, String)> {
    let input = KeyInput::labelled("demo");
    let made = app.control().create_key(&Caller::command(), account.id.parse()?, input).await?;
    match made.key {
        ShownKey::Whole(key) => Ok((key.reveal().clone(), made.id.to_string())),
        ShownKey::Hint(_) => Err(Failed(format!("error: no key was created for {}", account.id))),
    }
}

/// The text that is printed when the demo is ready.
fn welcome(
    gateway: SocketAddr,
    admin: SocketAddr,
    config: &Path,
    keys: &Keys,
    token: Option<&Secret<String>>,
    links: &people::Links,
) -> String {
    // There is none if the environment has one.
    let token = token.map_or("$TOLLGATE_ADMIN_TOKEN", |token| token.reveal());
    let tollgate = std::env::args().next().unwrap_or_else(|| "tollgate".to_owned());
    let config = config.display();
    let Keys { demo, trial, nearly_empty, demo_id } = keys;
    let key = Some(demo.as_str());
    let (person, verify) = (PERSON.curl(gateway, key), VERIFY.curl(gateway, key));
    let (phone, account) = (PHONE.curl(gateway, key), ACCOUNT.curl(gateway, key));
    let (no_key, refused) = (VERIFY.curl(gateway, None), PERSON.curl(gateway, Some("ak_live_your_key_here")));
    format!(
        "\
Tollgate guards a sample contact-enrichment API.

gateway  http://{gateway}
health   http://{admin}/healthz
config   {config}
key      {demo}  (account demo: {credits} credits)
sign in  {customer}  (once: what a customer sees, with a week of use made for this demo)
operator {operator}  (once: what you see)
trial    {trial}  (refused at the fourth request in a minute)
dry      {nearly_empty}  (refused at the second person)

Paste into another terminal:

# find a person: 4 credits, or 1 for a name with Nobody in it (ApiOne's dialect)
{person}

# verify an address: 0.25 credits (Enrow's dialect)
{verify}

# find a phone number: 40 credits held, charged if one is found
{phone}

# the balance: free
{account}

# refused, each in its dialect: no key, a wrong key
{no_key}
{refused}

For the operator:
{tollgate} -c {config} status
{tollgate} -c {config} explain --key-id {demo_id} POST http://{gateway}{phone_path}
{tollgate} -c {config} account statement demo
{tollgate} -c {config} usage --step minute
curl -s http://{admin}/v1/accounts/demo -H 'authorization: Bearer {token}'
curl -s http://{admin}/metrics -H 'authorization: Bearer {token}'

Ctrl-C stops it and removes its folder.
",
        credits = DEMO.credits,
        customer = links.customer,
        operator = links.operator,
        phone_path = PHONE.path,
    )
}

/// The signals that end the demo.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Ends the demo when its terminal is closed. Without this it would keep running, because the gateway handles SIGHUP as
/// a reload.
async fn end_with_terminal(mut hangup: Signal) {
    if hangup.recv().await.is_some() {
        let _ = kill_process(getpid(), Number::TERM); // a process may always signal itself
    }
}
