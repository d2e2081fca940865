//! The control plane's handle on the ledger: it books and reads, and holds nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{mpsc, oneshot};

use super::purse::Purse;
use super::record::ExternalId;
use super::store::{
    AccountRow, AccountState, Booked, Booking, BooksReader, KeyChange, KeyRow, LedgerError, Registered,
    Registration, Result,
};
use super::threads::{BooksThread, Counters, Job, LimitSource, Shared};
use crate::types::{AccountId, AccountNum, Credits, KeyId, KeyNum, RequestId};

/// Accounts or keys that are registered in one transaction: some 10 ms of the books thread.
const REGISTERED_AT_ONCE: usize = 1_000;

/// The control plane's handle on the ledger: it books and reads, and holds nothing.
#[derive(Clone, Debug)]
pub struct Bookkeeper {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
}

impl Bookkeeper {
    pub(super) fn new(shared: Arc<Shared>, jobs: mpsc::Sender<Job>) -> Self {
        Self { shared, jobs }
    }

    /// Runs a job on the books thread.
    async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut BooksThread) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let (answer, wait) = oneshot::channel();
        let job: Job = Box::new(move |books| {
            let _ = answer.send(job(books)); // the caller may be gone
        });
        self.jobs.send(job).await.map_err(|_| LedgerError::Closed)?;
        self.shared.job_added();
        wait.await.map_err(|_| LedgerError::Closed)?
    }

    /// Gives numbers to what a configuration names, and opening grants to new accounts: a part at
    /// a time, so that charges do not wait for a long list.
    ///
    /// # Errors
    /// Where the store fails. Parts before that stay, which changes nothing: a number that is not
    /// used costs nothing, and an opening grant is given once.
    pub async fn register(&self, wanted: Registration) -> Result<Registered> {
        let Registration { accounts, keys, routes } = wanted;
        let first = Registration { routes, ..Registration::default() };
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

    /// Makes an account of the store.
    ///
    /// # Errors
    /// Where it exists already, or the store fails.
    pub async fn create_account(&self, id: AccountId, plan: Option<String>) -> Result<AccountRow> {
        self.run(move |thread| thread.create_account(&id, plan.as_deref())).await
    }

    /// Suspends or resumes an account in the books.
    ///
    /// # Errors
    /// Where there is no such account, or the store fails.
    pub async fn set_account_state(&self, id: AccountId, state: AccountState) -> Result<()> {
        self.run(move |thread| thread.books().set_account_state(&id, state)).await
    }

    /// Grants or adjusts; in force when this returns.
    ///
    /// # Errors
    /// Where the account is unknown, less than that is available, the reference stands for
    /// another amount, or the store fails.
    pub async fn book(&self, booking: Booking) -> Result<Booked> {
        self.run(move |thread| thread.book(&booking)).await
    }

    /// Makes keys of the store, all or none.
    ///
    /// # Errors
    /// Where a hash or id exists already, or the store fails.
    pub async fn create_keys(&self, rows: Vec<KeyRow>) -> Result<Vec<KeyNum>> {
        self.run(move |thread| thread.books().create_keys(&rows)).await
    }

    /// Changes a key in the books.
    ///
    /// # Errors
    /// Where there is no such key, or the store fails.
    pub async fn change_key(&self, id: KeyId, change: KeyChange) -> Result<()> {
        self.run(move |thread| thread.books().change_key(id, &change)).await
    }

    /// Returns a hold in doubt, once.
    ///
    /// # Errors
    /// Where there is no such hold, or the store fails.
    pub async fn give_back(&self, id: RequestId) -> Result<Booked> {
        self.run(move |thread| thread.give_back(id)).await
    }

    /// Opens a view of accounts, keys and limit states: entries and balances are in it as of some fold.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn view(&self) -> Result<Box<dyn BooksReader>> {
        self.run(|thread| thread.books().reader()).await
    }

    /// Folds every record so far, and opens a view for long reads.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn reader(&self) -> Result<Box<dyn BooksReader>> {
        self.run(|thread| {
            thread.fold()?;
            thread.books().reader()
        })
        .await
    }

    /// Sets the source of the limit states that are saved once a second and at the end.
    ///
    /// # Errors
    /// Where the ledger is closed.
    pub async fn save_limits_from(&self, source: LimitSource) -> Result<()> {
        self.run(move |thread| {
            thread.set_limits(source);
            Ok(())
        })
        .await
    }

    /// Settles the kept hold of an account that has an external id; on disk when this returns. False if there is none.
    ///
    /// # Errors
    /// If there is no such account, or the store fails.
    pub async fn settle_external(
        &self,
        account: AccountId,
        external_id: ExternalId,
        charge: Credits,
    ) -> Result<bool> {
        self.run(move |thread| thread.settle_external(&account, external_id, charge)).await
    }

    /// What an account can spend.
    #[must_use]
    pub fn purse(&self, account: AccountNum) -> Option<Arc<Purse>> {
        self.shared.purses.get(account)
    }

    /// Whether the last commit succeeded.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.shared.is_healthy.load(Ordering::SeqCst)
    }

    /// What the ledger counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}
