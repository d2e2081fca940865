//! The operations of the control plane: one function each, with typed input and output, for commands, the admin API and
//! pages alike. Each checks the role of its caller, and writes an audit entry in the transaction of its change.

mod access;
mod accounts;
mod audit;
mod caller;
mod check;
mod credits;
mod describe;
mod error;
mod explain;
mod gateway;
mod keys;
mod ledger;
mod repeat;
mod terms;
mod usage;
mod webhooks;

pub use access::{
    CodesSetup, Email, InvitationInput, LinkUse, LinkView, MAX_TOKENS, MemberChange, MemberRoleName,
    MemberView, NewSession, OpenLink, Origin, Person, PortalInput, RecoveryCodes, RoleName, SessionView,
    SignIn, SignUpInput, SignedUp, TokenInput, TokenView, UserInput, UserPatch, UserView, Visitor,
};
pub use accounts::{AccountInput, AccountLine, AccountPatch, AccountView, Exported, ExportedKey};
pub use audit::AuditView;
pub use caller::{Authority, Caller, Permission};
pub use check::{ChargeInput, CheckInput, Verdict};
pub(in crate::control) use credits::{Answer, money};
pub use credits::{
    BookingInput, BookingView, ChargedView, ChargesQuery, DoubtView, EntryView, GivenBack, JobView,
    MAX_REFERENCE, PaymentView, PaymentsView, SettledView, SettlementInput,
};
pub use error::{OperationError, Result};
pub use explain::LimitGauge;
pub use explain::{Decision, ExplainInput, Explanation, Rehearsal, RehearsalInput, RequestView, RuleChange};
pub use gateway::{ChargeView, ConfigView, PlanView, PriceView, Reloaded, RouteView};
pub use gateway::{PublicRoute, Refusals};
pub use keys::{
    GroupInput, GroupView, GroupsView, KeyInput, KeyLine, KeyPatch, KeyPattern, KeyView, LeakInput, ShownKey,
};
pub use ledger::{Backup, Verification};
pub use repeat::{MAX_IDEMPOTENCY_KEY, Repeat, Stored};
pub use terms::{
    DEFAULT_LIMIT, Imported, LimitAlgorithm, LimitScope, LimitTerms, MAX_IMPORTED, MAX_LIMIT, Page, Patch,
    RefusedLine, SpendTerms, Time,
};

pub use crate::ledger::store::{MemberRole, Role};
pub use usage::{DaySums, KeyDays, Summary};
pub use usage::{Grouping, MAX_USAGE_ROWS, Quantiles, RefusalView, Step, UsageQuery, UsageReport, UsageView};

pub use webhooks::{Alerts, AutoRenew, Renewal, TopUp};
pub use webhooks::{DeliveryView, EndpointInput, EndpointPatch, EndpointView, Sent};

pub(super) use access::{People, Tokens};
pub(super) use caller::Noted;
pub(super) use terms::restored;
pub(super) use webhooks::MAILTO;

use super::Control;
use crate::config::{self, Defined};
use crate::ledger::store::{AccountState, BooksReader, KeyRow, LedgerError, Source};
use crate::types::{AccountId, WallTime};

/// How long the answer to a request with an idempotency key is kept, in milliseconds.
const KEEP_ANSWERS: i64 = 24 * 3600 * 1000;
/// Most transactions in which old answers are deleted each minute, and as many for old requests. The rest waits.
const MAX_PRUNED: usize = 2_000;
/// How long settled jobs are kept, in milliseconds. Until then they are found by their account.
const KEEP_JOBS: i64 = 90 * 24 * 3600 * 1000;

/// True if more is left to delete. A failure is logged; the next minute tries again.
fn has_more(what: &str, pruned: std::result::Result<bool, LedgerError>) -> bool {
    pruned.unwrap_or_else(|error| {
        tracing::warn!(%error, "{what} could not be deleted");
        false
    })
}

impl Control {
    /// Reads accounts, keys and other rows of the ledger on a blocking thread. Entries and balances are those of the
    /// last fold.
    pub(super) async fn read<R: Send + 'static>(
        &self,
        read: impl FnOnce(&mut dyn BooksReader) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let reader = self.bookkeeper.view()?;
        aside(reader, read).await
    }

    /// Folds all records, then reads the ledger on a blocking thread.
    pub(super) async fn read_folded<R: Send + 'static>(
        &self,
        read: impl FnOnce(&mut dyn BooksReader) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let reader = self.bookkeeper.reader().await?;
        aside(reader, read).await
    }

    /// Opens a reader for a page. The ledger folds for it if that takes at most a small part of its time; otherwise the page
    /// shows the state of the ledger's own last fold.
    async fn page_reader(&self) -> Result<Box<dyn BooksReader>> {
        let started = self.clock.now();
        if !self.page_reads.folds(started) {
            return Ok(self.bookkeeper.view()?);
        }
        let reader = self.bookkeeper.usage_reader().await?;
        self.page_reads.folded(started, self.clock.now());
        Ok(reader)
    }

    /// Reads for a page of the dashboard, which sees one moment. Few pages are read at a time: they share the cores with
    /// requests.
    pub(super) async fn read_page<R: Send + 'static>(
        &self,
        read: impl FnOnce(&mut dyn BooksReader) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let busy = || OperationError::Unavailable("too many pages are read just now; try again".to_owned());
        let place = self.page_reads.place().await.ok_or_else(busy)?;
        let reader = self.page_reader().await?;
        let read = move |reader: &mut dyn BooksReader| {
            let _place = place; // until the read is done, also if nobody waits for it any more
            reader.freeze()?;
            read(reader)
        };
        aside(reader, read).await
    }

    /// The answer that was given to a request before. `None` if it was not made, or by another client.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn stored_answer(&self, repeat: &Repeat) -> Result<Option<Stored>> {
        let id = *repeat.id();
        let row = self.read(move |reader| Ok(reader.answer(&id)?)).await?;
        Ok(row.and_then(|row| repeat.open(&row)))
    }

    /// Deletes the answers that are older than [`KEEP_ANSWERS`].
    pub async fn prune_answers(&self) {
        let oldest = WallTime(self.clock.wall().0.saturating_sub(KEEP_ANSWERS));
        if let Err(error) = self.bookkeeper.prune_answers(oldest).await {
            tracing::warn!(%error, "old answers could not be deleted");
        }
    }

    /// Deletes the answers to requests with an idempotency key whose time is over.
    pub async fn prune_repeats(&self) {
        for _ in 0..MAX_PRUNED {
            if !has_more("answers whose time is over", self.bookkeeper.prune_repeats().await) {
                return;
            }
        }
    }

    /// Deletes what requests were charged that are no longer to be listed.
    pub async fn prune_requests(&self) {
        let kept = self.snapshot().settings.requests_kept;
        let millis = |kept: std::time::Duration| i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
        let before = kept
            .map_or(WallTime(i64::MAX), |kept| WallTime(self.clock.wall().0.saturating_sub(millis(kept))));
        for _ in 0..MAX_PRUNED {
            if !has_more("charges of old requests", self.bookkeeper.prune_requests(before).await) {
                return;
            }
        }
    }

    /// Deletes the jobs that were settled longer ago than [`KEEP_JOBS`].
    pub async fn prune_jobs(&self) {
        let oldest = WallTime(self.clock.wall().0.saturating_sub(KEEP_JOBS));
        if let Err(error) = self.bookkeeper.prune_jobs(oldest).await {
            tracing::warn!(%error, "old jobs could not be deleted");
        }
    }

    /// Refuses a change of an account that the configuration file defines, with the place in the file.
    async fn refuse_file_account(&self, id: &AccountId) -> Result<()> {
        let (wanted, unknown) = (id.clone(), id.clone());
        let row = self.read(move |reader| Ok(reader.account(&wanted)?)).await?.ok_or(unknown)?;
        match row.source {
            Source::Store => Ok(()),
            Source::File => self.in_file(&format!("account {id}"), Defined::Account(id.clone())).await,
        }
    }

    /// Refuses to add something to an account that was deleted.
    async fn refuse_closed_account(&self, id: &AccountId) -> Result<()> {
        let wanted = id.clone();
        match self.read(move |reader| Ok(reader.account(&wanted)?)).await? {
            Some(row) if row.state == AccountState::Closed => {
                Err(OperationError::Conflict(format!("account {id} was deleted")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a change of a key that the configuration file defines, with the place in the file.
    async fn refuse_file_key(&self, row: &KeyRow) -> Result<()> {
        let hash = self.in_force.load().keys.get(&row.id).map(|listed| listed.hash);
        match (row.source, hash) {
            (Source::Store, _) => Ok(()),
            (Source::File, Some(hash)) => self.in_file(&row.id.to_string(), Defined::Key(hash)).await,
            (Source::File, None) => {
                let message =
                    format!("{} was defined in the configuration file, which has dropped it", row.id);
                Err(OperationError::InFile(message))
            }
        }
    }

    async fn in_file(&self, what: &str, defined: Defined) -> Result<()> {
        let path = self.path.clone();
        let place = tokio::task::spawn_blocking(move || config::locate(&path, &defined)).await;
        let place = match place.ok().flatten() {
            Some(place) => format!("{what} is defined in the configuration file: change it in {place}"),
            None => format!(
                "{what} is defined in the configuration file {}: change it there",
                self.path.display()
            ),
        };
        Err(OperationError::InFile(place))
    }
}

/// Runs a read on a blocking thread, so that it delays nothing else of the control plane.
async fn aside<R: Send + 'static>(
    mut reader: Box<dyn BooksReader>,
    read: impl FnOnce(&mut dyn BooksReader) -> Result<R> + Send + 'static,
) -> Result<R> {
    blocking(move || read(&mut *reader)).await
}

/// Runs work on a blocking thread.
async fn blocking<R: Send + 'static>(work: impl FnOnce() -> Result<R> + Send + 'static) -> Result<R> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(OperationError::Unavailable(format!("an operation was aborted: {error}"))),
    }
}
