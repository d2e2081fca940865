//! Sets how an account is renewed: by asking the operator's billing for credits.

use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::config::parse_duration;
use crate::control::Control;
use crate::control::operations::caller::{Caller, Noted, Permission};
use crate::control::operations::error::{OperationError, Result};
use crate::control::operations::terms::Time;
use crate::ledger::store::RenewalRow;
use crate::types::{AccountId, Credits, WallTime};

/// Shortest time between two renewals, in milliseconds: a day.
const SHORTEST: i64 = 24 * 3600 * 1000;
/// Longest time between two renewals, in milliseconds: two years.
const LONGEST: i64 = 2 * 365 * SHORTEST;

/// How an account is renewed. Each is asked for by a webhook, `billing.top_up_requested`, and arrives once the operator's
/// billing grants it with the reference in that message.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Renewal {
    /// Credits that are asked for when the balance is low; null for none.
    #[serde(default)]
    pub top_up: Option<TopUp>,
    /// Credits that are asked for again and again; null for none.
    #[serde(default)]
    pub auto_renew: Option<AutoRenew>,
}

/// Credits that are asked for when the balance falls below another amount.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TopUp {
    /// Below which balance.
    #[schema(value_type = f64, example = 100)]
    pub below: Credits,
    /// How many credits.
    #[schema(value_type = f64, example = 1000)]
    pub credits: Credits,
}

/// Credits that are asked for again and again.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AutoRenew {
    /// How often, such as `30d`: from a day to two years.
    #[schema(example = "30d")]
    pub every: String,
    /// How many credits.
    #[schema(value_type = f64, example = 1000)]
    pub credits: Credits,
    /// When they are asked for next; first after `every`.
    #[serde(default, skip_deserializing)]
    #[schema(value_type = Option<String>, format = DateTime, read_only)]
    pub next: Option<Time>,
}

impl From<RenewalRow> for Renewal {
    fn from(row: RenewalRow) -> Self {
        let every = |millis: i64| match millis % SHORTEST {
            0 => format!("{}d", millis / SHORTEST),
            _ => format!("{}s", millis / 1000),
        };
        Self {
            top_up: row.top_up.map(|(below, credits)| TopUp { below, credits }),
            auto_renew: row.renew.map(|(credits, millis, next)| AutoRenew {
                every: every(millis),
                credits,
                next: Some(Time(next)),
            }),
        }
    }
}

fn row(renewal: &Renewal, before: &RenewalRow, now: WallTime) -> Result<RenewalRow> {
    let positive = |field, credits: Credits| match credits > Credits::ZERO {
        true => Ok(credits),
        false => OperationError::invalid(field, "this is more than 0 credits"),
    };
    let top_up = match renewal.top_up {
        Some(TopUp { below, credits }) => Some((positive("below", below)?, positive("top_up", credits)?)),
        None => None,
    };
    let renew = match &renewal.auto_renew {
        Some(AutoRenew { every, credits, .. }) => {
            let millis = parse_duration(every).ok().and_then(|every| i64::try_from(every.as_millis()).ok());
            let Some(millis) = millis.filter(|millis| (SHORTEST..=LONGEST).contains(millis)) else {
                return OperationError::invalid("every", "this is a duration from 1d to 730d, such as 30d");
            };
            // What only changes the amount does not put the next renewal off.
            let next = before.renew.filter(|(_, every, _)| *every == millis).map(|(_, _, next)| next);
            Some((
                positive("renew", *credits)?,
                millis,
                next.unwrap_or(WallTime(now.0.saturating_add(millis))),
            ))
        }
        None => None,
    };
    Ok(RenewalRow { top_up, renew })
}

impl Control {
    /// Reads how an account is renewed.
    ///
    /// # Errors
    /// If there is no such account.
    pub async fn renewal(&self, caller: &Caller, account: AccountId) -> Result<Renewal> {
        Ok(self.renewal_row(caller, account).await?.into())
    }

    async fn renewal_row(&self, caller: &Caller, account: AccountId) -> Result<RenewalRow> {
        caller.may_in(Permission::ReadAccounts, &account)?;
        if self.directory.account(&account).is_none() {
            return Err(account.into());
        }
        self.read_webhooks(move |webhooks| Ok(webhooks.renewal(&account)?)).await
    }

    /// Sets how an account is renewed.
    ///
    /// # Errors
    /// If there is no such account, or an amount or a time is not accepted.
    pub async fn set_renewal(
        &self,
        caller: &Caller,
        account: AccountId,
        renewal: Renewal,
    ) -> Result<Renewal> {
        caller.may_in(Permission::Alerts, &account)?;
        let _alone = self.changes.lock().await;
        let before = self.renewal_row(&Caller::command(), account.clone()).await?;
        let row = row(&renewal, &before, self.clock.wall())?;
        let (object, output) = (format!("account/{account}"), Renewal::from(row));
        let terms = |renewal: &Renewal| Some(json!(renewal));
        let (earlier, later) = (terms(&before.into()), terms(&output));
        let (notes, output) = caller.noted("account.renewal", move |()| Noted {
            object: object.clone(),
            before: earlier.clone(),
            after: later.clone(),
            output: output.clone(),
        });
        let change =
            self.bookkeeper.webhooks(move |webhooks, at| webhooks.set_renewal(&account, &row, &notes, at));
        change.await?;
        self.doorbell.ring();
        output.take()
    }
}
