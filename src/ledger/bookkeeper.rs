//! Implements the control plane's handle on the ledger. It can book and read, but cannot hold credits.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{mpsc, oneshot};

use super::adoption::Settlement;
use super::caps::KeyCaps;
use super::purse::Purse;
use super::record::{ExternalId, Record};
use super::store::{
    AccountChange, AccountRow, Booked, Booking, BooksReader, Changed, EndpointRow, GroupRow, KeyEdit, KeyRow,
    LedgerError, NewAccount, Note, Notes, OwnedKey, Readers, Registered, Registration, Result, TokenRow,
    Webhooks,
};
use super::threads::{BooksThread, Counters, Job, LimitSource, RefillOrder, Shared, UsageSource};
use crate::policy::credit::SpendLimit;
use crate::types::{AccountId, AccountNum, Credits, GroupName, KeyId, KeyNum, RequestId, WallTime};

/// Most accounts or keys that are registered in one transaction, which takes the books thread about 10 ms.
const REGISTERED_AT_ONCE: usize = 1_000;

/// Most answers that are deleted in one transaction; each may have 1 MiB.
const ANSWERS_PRUNED_AT_ONCE: usize = 50;
/// Most requests that are deleted in one transaction.
const PRUNED_AT_ONCE: usize = 1_000;

/// The control plane's handle on the ledger. It can book and read, but cannot hold credits.
#[derive(Clone, Debug)]
pub struct Bookkeeper {
    pub(super) shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    readers: Readers,
}

impl Bookkeeper {
    pub(super) fn new(shared: Arc<Shared>, jobs: mpsc::Sender<Job>, readers: Readers) -> Self {
        Self { shared, jobs, readers }
    }

    /// Runs a job on the books thread.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut BooksThread) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let (answer, wait) = oneshot::channel();
        let job: Job = Box::new(move |books| {
            let _ = answer.send(job(books)); // fails if the caller was dropped
        });
        self.jobs.send(job).await.map_err(|_| LedgerError::Closed)?;
        self.shared.job_added();
        wait.await.map_err(|_| LedgerError::Closed)?
    }

    /// Assigns ledger numbers to the accounts, keys and routes of a configuration, and books the opening grants of new
    /// accounts. Works in parts, so that a long list does not delay other jobs of the books thread.
    ///
    /// # Errors
    /// If the store fails. Parts that were written before stay, which does no harm: an unused number costs nothing, an
    /// opening grant is booked only once, and an account that was put on a plan is put back by the next registration.
    pub async fn register(&self, wanted: Registration) -> Result<Registered> {
        let Registration { accounts, buckets, refills, lists_requests, keys, routes } = wanted;
        let first = Registration { routes, buckets, refills, lists_requests, ..Registration::default() };
        let mut registered = self.register_part(first).await?;
        for part in accounts.chunks(REGISTERED_AT_ONCE) {
            let part = Registration { accounts: part.to_vec(), ..Registration::default() };
            registered.accounts.extend(self.register_part(part).await?.accounts);
        }
        for part in keys.chunks(REGISTERED_AT_ONCE) {
            let part = Registration { keys: part.to_vec(), ..Registration::default() };
            registered.keys.extend(self.register_part(part).await?.keys);
        }
        Ok(registered)
    }

    async fn register_part(&self, wanted: Registration) -> Result<Registered> {
        self.run(move |thread| thread.register(&wanted)).await
    }

    /// Creates accounts by command, all or none, and books their opening grants.
    ///
    /// # Errors
    /// If an account exists already, a grant is too large, or the store fails.
    pub async fn create_accounts(
        &self,
        new: Vec<NewAccount>,
        notes: Notes<Vec<AccountRow>>,
    ) -> Result<Vec<AccountRow>> {
        self.run(move |thread| thread.create_accounts(&new, &notes)).await
    }

    /// Changes an account in the ledger.
    ///
    /// # Errors
    /// If there is no such account, it was changed since the version of the change, or the store fails.
    pub async fn change_account(
        &self,
        id: AccountId,
        change: AccountChange,
        notes: Notes<Changed<AccountRow>>,
    ) -> Result<Changed<AccountRow>> {
        self.run(move |thread| thread.write(|books, at| books.change_account(&id, &change, &notes, at))).await
    }

    /// Books a grant or an adjustment. It is in effect when this returns.
    ///
    /// # Errors
    /// If the account is unknown, less than the amount is available, the reference was used for another amount, or the
    /// store fails.
    pub async fn book(&self, booking: Booking, notes: Notes<Booked>) -> Result<Booked> {
        self.run(move |thread| thread.book(&booking, &notes)).await
    }

    /// Refills accounts, all or none. An account that was refilled for its period before is left as it is.
    ///
    /// # Errors
    /// If the ledger does not balance, or the store fails.
    pub async fn refill(&self, orders: Vec<RefillOrder>) -> Result<()> {
        self.run(move |thread| thread.refill(&orders)).await
    }

    /// Sets the spending limits of accounts.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn limit_accounts(&self, limits: Vec<(AccountNum, Option<SpendLimit>)>) -> Result<()> {
        self.run(move |thread| thread.limit_accounts(&limits)).await
    }

    /// Sets the spending limit of a group of keys, creates it or deletes it.
    ///
    /// # Errors
    /// If the account is unknown, there is no such group to delete or keys are in it, there are too many groups, or the
    /// store fails.
    pub async fn change_group(
        &self,
        account: AccountId,
        name: GroupName,
        limit: Option<SpendLimit>,
        notes: Notes<Changed<Option<GroupRow>>>,
    ) -> Result<Changed<Option<GroupRow>>> {
        self.run(move |thread| thread.change_group(&account, &name, limit, &notes)).await
    }

    /// Creates keys by command: all of them or none.
    ///
    /// # Errors
    /// If a hash or id exists already, or the store fails.
    pub async fn create_keys(&self, rows: Vec<KeyRow>, notes: Notes<Vec<KeyNum>>) -> Result<Vec<KeyNum>> {
        self.run(move |thread| thread.create_keys(&rows, &notes)).await
    }

    /// Changes a key in the ledger.
    ///
    /// # Errors
    /// If there is no such key, it was changed since the version of the change, or the store fails.
    pub async fn change_key(
        &self,
        id: KeyId,
        edit: KeyEdit,
        notes: Notes<Changed<OwnedKey>>,
    ) -> Result<Changed<OwnedKey>> {
        self.run(move |thread| thread.change_key(id, &edit, &notes)).await
    }

    /// Returns the credits of a hold in doubt, once.
    ///
    /// # Errors
    /// If there is no such hold, or the store fails.
    pub async fn give_back(&self, id: RequestId, actor: String, notes: Notes<Booked>) -> Result<Booked> {
        self.run(move |thread| thread.give_back(id, &actor, &notes)).await
    }

    /// Creates a token of the admin API, or replaces the one with the same name.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn put_token(&self, token: TokenRow, notes: Notes<TokenRow>) -> Result<()> {
        self.run(move |thread| thread.write(|books, at| books.put_token(&token, &notes, at))).await
    }

    /// Writes notes that belong to no change of the ledger.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn note(&self, notes: Vec<Note>) -> Result<()> {
        self.run(move |thread| thread.write(|books, at| books.note(&notes, at))).await
    }

    /// Deletes endpoints of the configuration file with these ids, and creates new ones. Does nothing if the ledger has
    /// no webhooks.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn change_file_endpoints(&self, gone: Vec<String>, new: Vec<EndpointRow>) -> Result<()> {
        for part in gone.chunks(REGISTERED_AT_ONCE) {
            self.change_some_endpoints(part.to_vec(), Vec::new()).await?;
        }
        for part in new.chunks(REGISTERED_AT_ONCE) {
            self.change_some_endpoints(Vec::new(), part.to_vec()).await?;
        }
        Ok(())
    }

    async fn change_some_endpoints(&self, gone: Vec<String>, new: Vec<EndpointRow>) -> Result<()> {
        self.run(move |thread| {
            thread.write(|books, _| {
                books.webhooks().map_or(Ok(()), |webhooks| webhooks.change_file_endpoints(&gone, &new))
            })
        })
        .await
    }

    /// Changes the webhooks of the ledger.
    ///
    /// # Errors
    /// If the change is refused, the store fails, or it has no webhooks.
    pub async fn webhooks<R: Send + 'static>(
        &self,
        change: impl FnOnce(&mut dyn Webhooks, WallTime) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let none = || LedgerError::Refused("this ledger has no webhooks".to_owned());
        self.run(move |thread| thread.write(|books, at| change(books.webhooks().ok_or_else(none)?, at))).await
    }

    /// Deletes the stored answers of requests before a time.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn prune_answers(&self, before: WallTime) -> Result<()> {
        self.run(move |thread| thread.write(|books, _| books.prune_answers(before))).await
    }

    /// Opens a reader for accounts, keys and limit states. Its entries and balances are those of the last fold. Waits for
    /// nothing that the books thread does.
    ///
    /// # Errors
    /// If the store fails.
    pub fn view(&self) -> Result<Box<dyn BooksReader>> {
        self.readers.open()
    }

    /// Folds all records that were added before this call, and opens a reader for long reads.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn reader(&self) -> Result<Box<dyn BooksReader>> {
        self.run(|thread| {
            thread.fold()?;
            thread.books().reader()
        })
        .await
    }

    /// Folds all records that were added before this call, counts them as usage, and opens a reader for long reads.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn usage_reader(&self) -> Result<Box<dyn BooksReader>> {
        self.run(|thread| {
            thread.count_usage()?;
            thread.books().reader()
        })
        .await
    }

    /// Sets the source of what workers count. It is counted in the ledger after each fold, and when the ledger is closed.
    ///
    /// # Errors
    /// If the ledger is closed.
    pub async fn count_usage_from(&self, source: Box<dyn UsageSource>) -> Result<()> {
        self.run(move |thread| {
            thread.set_usage(source);
            Ok(())
        })
        .await
    }

    /// Sets the function that returns changed limit states. They are saved once a second and when the ledger is closed.
    ///
    /// # Errors
    /// If the ledger is closed.
    pub async fn save_limits_from(&self, source: LimitSource) -> Result<()> {
        self.run(move |thread| {
            thread.set_limits(source);
            Ok(())
        })
        .await
    }

    /// Settles the open job of an account, at most at what is held for it; `None` charges that. The settlement is on disk
    /// when this returns. `None` if there is no such job.
    ///
    /// # Errors
    /// If there is no such account, or the store fails.
    pub async fn settle_job(
        &self,
        account: AccountId,
        external_id: ExternalId,
        charge: Option<Credits>,
    ) -> Result<Option<Credits>> {
        self.run(move |thread| thread.settle_external(&account, &external_id, charge)).await
    }

    /// Deletes requests with an idempotency key whose time is over, some of them. True if there may be more.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn prune_repeats(&self) -> Result<bool> {
        self.run(|thread| thread.write(|books, now| books.prune_repeats(now, ANSWERS_PRUNED_AT_ONCE))).await
    }

    /// Deletes what requests before a time were charged, some of it. True if there may be more.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn prune_requests(&self, before: WallTime) -> Result<bool> {
        self.run(move |thread| thread.write(|books, _| books.prune_requests(before, PRUNED_AT_ONCE))).await
    }

    /// Deletes jobs that were settled before a time.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn prune_jobs(&self, before: WallTime) -> Result<()> {
        self.run(move |thread| thread.write(|books, _| books.prune_jobs(before))).await
    }

    /// Settles or keeps a hold of the process that handed the ledger over. It is on disk when this returns. False if
    /// there is no such hold.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn settle_adopted(&self, id: RequestId, settlement: Settlement) -> Result<bool> {
        self.run(move |thread| thread.settle_adopted(id, settlement)).await
    }

    /// Puts the rest of the holds of the process that handed the ledger over in doubt, since that process is gone.
    /// Returns their number.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn abandon_adopted(&self) -> Result<usize> {
        self.run(BooksThread::abandon_adopted).await
    }

    /// What a key, and its group, may still spend.
    #[must_use]
    pub fn key_caps(&self, key: KeyNum) -> KeyCaps {
        self.shared.caps.get(key)
    }

    /// The purse of an account: the credits that it can spend. `None` if the account is unknown.
    #[must_use]
    pub fn purse(&self, account: AccountNum) -> Option<Arc<Purse>> {
        self.shared.purses.get(account)
    }

    /// True if the last commit succeeded.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.shared.is_healthy.load(Ordering::SeqCst)
    }

    /// Number of records that wait to be committed.
    #[must_use]
    pub fn waiting_records(&self) -> u64 {
        self.shared.outboxes.iter().map(|outbox| Record::count(&outbox.lock().bytes)).sum()
    }

    /// Counters since the ledger was opened.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}
