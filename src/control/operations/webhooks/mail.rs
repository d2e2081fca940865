//! E-mail when something happens: endpoints whose URL is `mailto:` and the address of somebody with access.

use super::{EventKind, MAX_ENDPOINTS};
use crate::control::Control;
use crate::control::operations::access::Email;
use crate::control::operations::caller::{Caller, Permission};
use crate::control::operations::error::{OperationError, Result};
use crate::ledger::store::{EndpointRow, Source};
use crate::types::AccountId;

/// What the URL of such an endpoint begins with.
pub(in crate::control) const MAILTO: &str = "mailto:";
/// What somebody who asks for alerts is told about.
const ALERTS: [EventKind; 2] = [EventKind::CreditsLow, EventKind::CreditsExhausted];

impl Control {
    /// True if somebody with this address has access to an account, or is an operator if there is none.
    pub(in crate::control) async fn may_get_mail(
        &self,
        account: Option<&AccountId>,
        address: &str,
    ) -> Result<bool> {
        let (account, address) = (account.cloned(), address.to_owned());
        self.read_users(move |users| {
            let Some(user) = users.user_named(&address)?.filter(|user| !user.is_disabled) else {
                return Ok(false);
            };
            Ok(match account {
                Some(account) => users.membership(&user.id, &account)?.is_some(),
                None => user.operator.is_some(),
            })
        })
        .await
    }

    /// Checks the address of a new endpoint.
    pub(super) async fn check_mail(&self, account: Option<&AccountId>, address: &str) -> Result<()> {
        if self.dashboard()?.smtp.is_none() {
            return OperationError::invalid("url", "e-mail is not configured: see [dashboard] smtp");
        }
        let is_email = address.parse::<Email>().is_ok_and(|email| email.as_str() == address);
        if !is_email || !self.may_get_mail(account, address).await? {
            let message = "e-mail goes only to people with access, by the address that they sign in with";
            return OperationError::invalid("url", message);
        }
        Ok(())
    }

    /// The endpoint that somebody who asked for alerts has.
    async fn mail_endpoint(&self, account: &AccountId, email: &str) -> Result<Option<EndpointRow>> {
        let (account, url) = (account.clone(), format!("{MAILTO}{email}"));
        let rows = self.read_webhooks(move |webhooks| Ok(webhooks.endpoints(Some(Some(&account)))?)).await?;
        let is_it = |row: &EndpointRow| row.url == url && row.events.as_deref() == Some(&ALERTS);
        Ok(rows.into_iter().find(|row| is_it(row) && row.disabled.is_none()))
    }

    /// True if a person gets alerts of an account by e-mail. `None` if nobody can.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn mails_alerts(
        &self,
        caller: &Caller,
        account: &AccountId,
        email: &str,
    ) -> Result<Option<bool>> {
        caller.may_in(Permission::ReadAccounts, account)?;
        let can = self.dashboard()?.smtp.is_some() && self.may_get_mail(Some(account), email).await?;
        match can {
            true => Ok(Some(self.mail_endpoint(account, email).await?.is_some())),
            false => Ok(None),
        }
    }

    /// Begins or stops to tell a person about low credits of their account by e-mail. `email`: the person's own address.
    ///
    /// # Errors
    /// If e-mail is not configured, or they have no access.
    pub async fn mail_alerts(
        &self,
        caller: &Caller,
        account: AccountId,
        email: &str,
        on: bool,
    ) -> Result<()> {
        caller.may_in(Permission::ReadAccounts, &account)?;
        self.check_mail(Some(&account), email).await?;
        let _alone = self.changes.lock().await;
        match (self.mail_endpoint(&account, email).await?, on) {
            (None, true) => {
                if self.endpoints(caller, Some(account.clone())).await?.len() >= MAX_ENDPOINTS {
                    return Err(OperationError::Conflict("there are too many endpoints".to_owned()));
                }
                let row = self.endpoint_row(Some(account), format!("{MAILTO}{email}"), Source::Store)?;
                let row = EndpointRow { events: Some(ALERTS.to_vec()), ..row };
                self.put_endpoint(caller, "webhook.create", None, row, false).await?;
                self.doorbell.ring();
                Ok(())
            }
            (Some(row), false) => self.drop_endpoint(caller, row.id).await.map(drop),
            _ => Ok(()),
        }
    }
}
