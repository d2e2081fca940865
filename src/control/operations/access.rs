//! Who may use the control plane: tokens of the admin API, and people who sign in to the dashboard.

mod codes;
mod email;
mod invitations;
mod links;
mod members;
mod password;
mod people;
mod portal;
mod sessions;
mod sign_in;
mod sign_up;
mod tokens;
mod use_link;
mod users;

use std::net::SocketAddr;

use serde::Serialize;

pub use codes::{CodesSetup, RecoveryCodes};
pub use email::Email;
pub use invitations::InvitationInput;
pub use links::{LinkView, OpenLink};
pub use members::{MemberChange, MemberRoleName, MemberView};
pub use people::Origin;
pub use portal::PortalInput;
pub use sessions::{NewSession, Person, SessionView, Visitor};
pub use sign_in::SignIn;
pub use sign_up::{SignUpInput, SignedUp};
pub use tokens::{MAX_TOKENS, RoleName, TokenInput, TokenView};
pub use use_link::LinkUse;
pub use users::{UserInput, UserPatch, UserView};

pub(in crate::control) use people::People;
pub(in crate::control) use tokens::Tokens;

use super::caller::{Caller, Noted};
use super::error::{OperationError, Result};
use crate::control::{Control, random};
use crate::ledger::store::{Note, UserEdit, UserReader};
use crate::snapshot::dashboard::Dashboard;
use crate::types::Secret;

/// Random bytes of a secret in a link or a cookie.
const SECRET: usize = 32;

/// A secret for a link or a cookie: 256 bits from the operating system.
fn secret() -> Result<Secret<String>> {
    Ok(Secret::new(hex::encode(random::<SECRET>()?)))
}

/// A new id: a prefix and 64 random bits.
fn new_id(prefix: &str) -> Result<String> {
    Ok(format!("{prefix}_{:016x}", u64::from_be_bytes(random()?)))
}

impl Control {
    /// The settings of the dashboard.
    ///
    /// # Errors
    /// If the configuration has none.
    pub fn dashboard(&self) -> Result<std::sync::Arc<Dashboard>> {
        let none = || {
            let message = "there is no [dashboard] in the configuration: people cannot sign in";
            OperationError::Conflict(message.to_owned())
        };
        self.snapshot().settings.dashboard.clone().ok_or_else(none)
    }

    /// Tells at which address the dashboard listens, for links to it.
    pub fn dashboard_listens_at(&self, address: SocketAddr) {
        let _ = self.people.address.set(address); // it is told once
    }

    /// Tells at which address clients of the API connect, for the lines of the docs.
    pub fn api_listens_at(&self, address: SocketAddr, is_tls: bool) {
        let _ = self.people.api_address.set((address, is_tls)); // it is told once
    }

    /// The dashboard's address as people see it, without a path.
    ///
    /// # Errors
    /// If the configuration has no dashboard.
    pub fn dashboard_url(&self) -> Result<String> {
        let dashboard = self.dashboard()?;
        let listens = self.people.address.get().copied();
        let listens = listens.or(dashboard.listen).unwrap_or(self.snapshot().settings.admin_listen);
        Ok(dashboard.url.clone().unwrap_or_else(|| format!("http://{listens}")))
    }

    /// Reads people on a blocking thread.
    pub(super) async fn read_users<R: Send + 'static>(
        &self,
        read: impl FnOnce(&mut dyn UserReader) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let none = || OperationError::Unavailable("this ledger keeps no users".to_owned());
        self.read(move |reader| read(reader.users().ok_or_else(none)?)).await
    }

    /// Writes changes of people, with their audit entry and the answer to keep.
    async fn change_people<V: Serialize>(
        &self,
        caller: &Caller,
        action: &str,
        noted: Noted<V>,
        edits: Vec<UserEdit>,
    ) -> Result<V> {
        let mut notes: Vec<Note> = edits.into_iter().map(Note::User).collect();
        notes.push(caller.audit(action, &noted));
        notes.extend(caller.answer(&noted.output));
        self.bookkeeper.note(notes).await?;
        Ok(noted.output)
    }
}
