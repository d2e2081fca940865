//! Makes a week of use before the demo starts: real requests through a real gateway whose clock stands in the past. So the
//! dashboard shows what customers see, and every number of it is one of the ledger.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::cases::{ACCOUNT, PERSON, PHONE, UNKNOWN_PERSON, VERIFY};
use super::client::SampleCall;
use super::config::DEMO;
use super::{Failed, Result, client};
use crate::app::App;
use crate::clock::Clock;
use crate::control::operations::{BookingInput, Caller, KeyInput, LimitTerms, ShownKey, UsageQuery};
use crate::policy::key::Scopes;
use crate::types::{Credits, WallTime};

/// Hours before now at which the first requests are sent.
const HOURS: u64 = 7 * 24;
/// Hours between requests.
const STEP: u64 = 3;
/// How often a request is tried.
const TRIES: u32 = 5;
/// How far the clock goes in a millisecond.
const TICK: Duration = Duration::from_millis(19);
const HOUR: Duration = Duration::from_secs(3600);

/// The keys of the week, by what each is for.
struct Keys {
    app: String,
    import: String,
    old: String,
}

async fn key(app: &App, input: KeyInput) -> Result<String> {
    let made = app.control().create_key(&Caller::command(), DEMO.id.parse()?, input).await?;
    match made.key {
        ShownKey::Whole(key) => Ok(key.reveal().clone()),
        ShownKey::Hint(_) => Err(Failed("error: no key was created for the past week".to_owned())),
    }
}

impl Keys {
    async fn make(app: &App) -> Result<Self> {
        let limit = LimitTerms::adding("per-minute", 4, "60s");
        let import = KeyInput { limits: Some(vec![limit]), ..KeyInput::labelled("Nightly import") };
        let scopes = Scopes::of(vec!["email.verify".to_owned()]);
        let old = KeyInput { scopes, ..KeyInput::labelled("Sign-up form") };
        Ok(Self {
            app: key(app, KeyInput::labelled("Web app")).await?,
            import: key(app, import).await?,
            old: key(app, old).await?,
        })
    }

    /// What is sent in one step: more by day than by night, and less each weekend.
    fn calls(&self, at: WallTime) -> Vec<(&str, SampleCall)> {
        let hours = at.0.div_euclid(3_600_000);
        let (hour, day) = (hours.rem_euclid(24), hours.div_euclid(24).rem_euclid(7));
        let is_weekend = matches!(day, 2 | 3); // the Unix epoch was a Thursday
        let busy = if (6..20).contains(&hour) && !is_weekend { 9 } else { 2 };
        let mut calls = Vec::new();
        for number in 0..busy {
            calls.push((self.app.as_str(), if number % 5 == 4 { UNKNOWN_PERSON } else { PERSON }));
            calls.push((self.app.as_str(), VERIFY));
            calls.push((self.old.as_str(), VERIFY));
        }
        if busy > 2 {
            calls.extend([(self.app.as_str(), PHONE), (self.app.as_str(), ACCOUNT)]);
        }
        if hour < 3 {
            calls.extend(std::iter::repeat_n((self.import.as_str(), VERIFY), 7)); // more than its limit
            calls.push((self.old.as_str(), PERSON)); // outside its scopes
        }
        calls
    }
}

/// Sends a request. When the clock has jumped, a connection may be taken for one that was idle for hours.
async fn send(call: SampleCall, gateway: SocketAddr, key: &str) -> Result {
    let mut failure = String::new();
    for _ in 0..TRIES {
        match call.send(gateway, Some(key)).await {
            Ok(_) => return Ok(()),
            Err(error) => failure = error,
        }
    }
    Err(Failed(format!("error: the past week: {failure}")))
}

/// Lets requests take some time by a clock that stands still otherwise.
async fn tick(clock: Clock) {
    loop {
        tokio::time::sleep(Duration::from_millis(1)).await;
        clock.advance(TICK);
    }
}

/// Grants what was used, as after a paid invoice. So the account has its opening credits when the demo starts.
async fn pay(app: &App) -> Result {
    let (control, caller, account) = (app.control(), Caller::command(), DEMO.id.parse()?);
    let opening: Credits = DEMO.credits.parse()?;
    let left = control.account(&caller, DEMO.id.parse()?).await?.available;
    if let Some(credits) = opening.checked_sub(left).filter(|used| *used > Credits::ZERO) {
        control
            .grant(
                &caller,
                account,
                BookingInput { credits, reference: "invoice-1001".to_owned(), ..BookingInput::default() },
            )
            .await?;
    }
    Ok(())
}

/// Makes a week of use in the ledger of a configuration.
///
/// # Errors
/// If the gateway cannot start, or a request gets no response.
pub(super) async fn week(path: &Path, listen: SocketAddr) -> Result {
    let now = Clock::system().wall();
    let start = now.0.saturating_sub(i64::try_from(HOURS * 3_600_000).unwrap_or_default());
    let clock = Clock::test(WallTime(start));
    let loaded = crate::config::load(path).map_err(|report| Failed(report.to_string()))?;
    let app = App::start(path, loaded, clock.clone(), None)
        .await
        .map_err(|error| super::hinted(error.message()))?;
    let keys = Keys::make(&app).await?;
    let gateway = client::reachable(app.public.first().map_or(listen, |public| public.address));
    let ticking = tokio::spawn(tick(clock.clone()));
    for _ in 0..HOURS / STEP {
        for (key, call) in keys.calls(clock.wall()) {
            send(call, gateway, key).await?;
        }
        // Counts what was used before the clock goes on.
        app.control().usage(&Caller::command(), UsageQuery::default()).await?;
        clock.advance(HOUR * u32::try_from(STEP).unwrap_or(1));
    }
    ticking.abort();
    pay(&app).await?;
    app.stop().await?;
    Ok(())
}
