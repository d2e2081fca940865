//! The settings of the dashboard.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::types::{Credits, Secret};

/// Who may create an account on the dashboard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignUp {
    /// Nobody.
    #[default]
    Off,
    /// Everybody.
    Open,
    /// Everybody; until an operator approves, an account has the sandbox plan and no credits.
    Approval,
    /// Whom an operator invites.
    Invite,
}

/// An accent colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rgb(pub [u8; 3]);

/// A picture in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Its media type.
    pub media_type: &'static str,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
}

/// How e-mail is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smtp {
    /// The server, with user and password: `smtps://user:password@host`.
    pub url: Secret<String>,
    /// The sender.
    pub from: String,
}

/// The settings of the dashboard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dashboard {
    /// The listening address; `None` for that of operators. Takes effect at a restart.
    pub listen: Option<SocketAddr>,
    /// The address as people see it, without a path; `None` for the listening address.
    pub url: Option<String>,
    /// The API's base URL as customers see it; `None` for that of the dashboard's page.
    pub api_url: Option<String>,
    /// Who may create an account.
    pub sign_up: SignUp,
    /// The plan of accounts that sign up.
    pub plan: Option<String>,
    /// The plan of accounts that an operator has not approved yet.
    pub sandbox_plan: Option<String>,
    /// The opening grant of accounts that sign up.
    pub credits: Credits,
    /// The name of the API.
    pub name: String,
    /// The logo.
    pub logo: Option<Picture>,
    /// The accent colour.
    pub accent: Option<Rgb>,
    /// The operator's OpenAPI description of the API, as JSON.
    pub openapi: Option<Arc<str>>,
    /// How e-mail is sent; `None` if links are shown to those who make them.
    pub smtp: Option<Smtp>,
}
