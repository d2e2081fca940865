//! Creates the people of the demo, and the links that sign them in.

use super::config::DEMO;
use super::{Failed, Result};
use crate::app::App;
use crate::control::operations::{Caller, MemberRole, Role, ShownKey, UserInput};

/// Links that sign in once.
pub(super) struct Links {
    pub(super) customer: String,
    pub(super) operator: String,
}

async fn link(app: &App, input: UserInput) -> Result<String> {
    let (control, caller) = (app.control(), Caller::command());
    let user = control.create_user(&caller, input).await?;
    let made = control.sign_in_link(&caller, &user.id).await?;
    match made.link {
        Some(ShownKey::Whole(link)) => Ok(link.reveal().clone()),
        _ => Err(Failed("error: no sign-in link was made".to_owned())),
    }
}

impl Links {
    pub(super) async fn make(app: &App) -> Result<Self> {
        let customer = UserInput {
            email: "customer@example.com".parse().map_err(|error: &str| Failed(error.to_owned()))?,
            name: "Casey Customer".to_owned(),
            account: Some(DEMO.id.parse()?),
            role: Some(MemberRole::Owner),
            operator: None,
        };
        let operator = UserInput {
            email: "operator@example.com".parse().map_err(|error: &str| Failed(error.to_owned()))?,
            name: "Olivia Operator".to_owned(),
            account: None,
            role: None,
            operator: Some(Role::Owner),
        };
        Ok(Self { customer: link(app, customer).await?, operator: link(app, operator).await? })
    }
}
