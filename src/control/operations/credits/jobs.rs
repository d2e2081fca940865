//! Jobs: credits that requests hold until the work of an upstream is done.

use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::control::Control;
use crate::control::operations::Page;
use crate::control::operations::caller::{Caller, Noted, Permission};
use crate::control::operations::error::{OperationError, Result};
use crate::control::operations::terms::Time;
use crate::ledger::record::ExternalId;
use crate::ledger::store::{JobFilter, JobRow};
use crate::types::{AccountId, Credits, KeyId, RequestId};

/// Most jobs of one id that are looked at when it is settled by id alone.
const MAX_OF_ONE_ID: usize = 100;

/// A job of an upstream, for which credits are held until it is done.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub struct JobView {
    /// The upstream's id of the job.
    pub id: String,
    /// The account that pays.
    #[schema(value_type = String)]
    pub account: AccountId,
    /// The id of the request that opened it.
    #[schema(value_type = String)]
    pub request: RequestId,
    /// The key of that request.
    #[schema(value_type = Option<String>)]
    pub key: Option<KeyId>,
    /// The route of that request.
    pub route: String,
    /// `open` or `settled`.
    pub state: &'static str,
    /// The credits that are or were held.
    #[schema(value_type = f64)]
    pub held: Credits,
    /// The credits that were charged; null while it is open.
    #[schema(value_type = Option<f64>)]
    pub charged: Option<Credits>,
    /// When it was opened.
    #[schema(value_type = String, format = DateTime)]
    pub opened: Time,
    /// When an open job is settled automatically.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deadline: Option<Time>,
    /// When it was settled.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub settled: Option<Time>,
}

impl JobView {
    fn of(row: &JobRow) -> Self {
        Self {
            id: row.external_id.clone(),
            account: row.account.clone(),
            request: row.id,
            key: row.key,
            route: row.route.clone(),
            state: if row.settled.is_some() { "settled" } else { "open" },
            held: row.amount,
            charged: row.settled.map(|settled| settled.charge),
            opened: Time(row.opened),
            deadline: row.deadline.map(Time),
            settled: row.settled.map(|settled| Time(settled.at)),
        }
    }
}

/// Settles a job.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewSettlement)]
pub struct SettlementInput {
    /// The account that opened the job. May be left out if only one account has a job with this id.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub account: Option<AccountId>,
    /// What the job costs: at most what is held; 0 releases it. A number or a string.
    #[schema(value_type = f64, example = 1.5)]
    pub credits: Credits,
}

/// A job that was settled, now or before.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = SettledJob)]
pub struct SettledView {
    /// The upstream's id of the job.
    pub id: String,
    /// The account that pays.
    #[schema(value_type = String)]
    pub account: AccountId,
    /// The credits that were charged.
    #[schema(value_type = f64)]
    pub charged: Credits,
    /// True if the job was settled before: nothing was changed.
    pub repeated: bool,
}

impl Control {
    /// Lists the jobs of an account, or of all: open ones first, then those that were settled, the last one first.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn jobs(&self, caller: &Caller, filter: JobFilter, most: usize) -> Result<Page<JobView>> {
        match &filter.account {
            Some(account) => caller.may_in(Permission::ReadAccounts, account)?,
            None => caller.may(Permission::ReadAccounts)?,
        }
        let rows = self.read_folded(move |reader| {
            if let Some(account) = &filter.account {
                reader.account(account)?.ok_or_else(|| account.clone())?;
            }
            Ok(reader.jobs(&filter, most + 1)?)
        });
        Ok(Page::of(rows.await?, most, |row: &JobRow| row.place().to_string()).map(|row| JobView::of(&row)))
    }

    /// Settles a job, once. A job that was settled before is answered as it was.
    ///
    /// # Errors
    /// If there is no such job, several accounts have one, another gateway of the fleet is settling it, or the amount is negative.
    pub async fn settle_job(
        &self,
        caller: &Caller,
        id: String,
        input: SettlementInput,
    ) -> Result<SettledView> {
        caller.may(Permission::Credits)?;
        if input.credits.is_negative() {
            return OperationError::invalid("credits", "a charge is not negative");
        }
        let account = match input.account {
            Some(account) => account,
            None => self.account_of_job(&id).await?,
        };
        let missing = || OperationError::Missing(format!("account {account} has no job {id}"));
        let external_id = ExternalId::new(&id).ok_or_else(missing)?;
        let now = self.bookkeeper.settle_job(account.clone(), external_id, Some(input.credits)).await?;
        let charged = match now {
            Some(charged) => charged,
            None => self.last_settled(&account, &id).await?.ok_or_else(missing)?,
        };
        let repeated = now.is_none();
        let (notes, output) = caller.noted("job.settle", move |_: &()| {
            let after = json!({ "job": id, "charged": charged, "repeated": repeated });
            let object = format!("account/{account}");
            let output = SettledView { id: id.clone(), account: account.clone(), charged, repeated };
            Noted { object, before: None, after: Some(after), output }
        });
        self.bookkeeper.note(notes(&())).await?;
        output.take()
    }

    /// The only account with a job of this id: an open one, or else a settled one.
    async fn account_of_job(&self, id: &str) -> Result<AccountId> {
        let filter = JobFilter { external_id: Some(id.to_owned()), ..JobFilter::default() };
        let rows = self.read_folded(move |reader| Ok(reader.jobs(&filter, MAX_OF_ONE_ID)?)).await?;
        let is_open = rows.iter().any(|row| row.settled.is_none());
        let mut accounts: Vec<AccountId> =
            rows.into_iter().filter(|row| row.settled.is_none() == is_open).map(|row| row.account).collect();
        accounts.sort();
        accounts.dedup();
        match &*accounts {
            [one] => Ok(one.clone()),
            [] => Err(OperationError::Missing(format!("there is no job {id}"))),
            _ => Err(OperationError::Conflict(format!("several accounts have a job {id}: name the account"))),
        }
    }

    /// What the last settled job of an account with this id was charged.
    async fn last_settled(&self, account: &AccountId, id: &str) -> Result<Option<Credits>> {
        let (account, external_id) = (Some(account.clone()), Some(id.to_owned()));
        let filter = JobFilter { account, external_id, after: None };
        let rows = self.read_folded(move |reader| Ok(reader.jobs(&filter, MAX_OF_ONE_ID)?)).await?;
        if rows.iter().any(|row| row.settled.is_none()) {
            let message = format!("another gateway is settling the job {id}: try again");
            return Err(OperationError::Conflict(message));
        }
        Ok(rows.into_iter().find_map(|row| row.settled).map(|settled| settled.charge))
    }
}
