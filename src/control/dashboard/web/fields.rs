//! The fields of a form.

use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};

use super::Failure;
use crate::control::operations::OperationError;
use crate::types::Secret;

/// Longest form, in bytes.
const MAX_FORM: usize = 64 * 1024;
/// Longest time for a browser to send a form.
const FORM_TIME: Duration = Duration::from_secs(10);

/// The fields of a form, or of a query.
pub(in crate::control::dashboard) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Parses `application/x-www-form-urlencoded`.
    pub(in crate::control::dashboard) fn parse(text: &[u8]) -> Self {
        Self(form_urlencoded::parse(text).into_owned().collect())
    }

    /// The parameters of a query.
    pub(in crate::control::dashboard) fn of(query: Option<&str>) -> Self {
        Self::parse(query.unwrap_or_default().as_bytes())
    }

    /// A field without surrounding spaces; empty if it is absent.
    pub(in crate::control::dashboard) fn get(&self, name: &str) -> &str {
        self.raw(name).trim()
    }

    fn raw(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// A field, if it is not empty.
    pub(in crate::control::dashboard) fn some(&self, name: &str) -> Option<&str> {
        Some(self.get(name)).filter(|value| !value.is_empty())
    }

    /// A secret, exactly as it was typed.
    pub(in crate::control::dashboard) fn secret(&self, name: &str) -> Secret<String> {
        Secret::new(self.raw(name).to_owned())
    }

    /// All values of a field.
    pub(in crate::control::dashboard) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// True if a box is checked.
    pub(in crate::control::dashboard) fn is_checked(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }
}

impl<S: Sync> FromRequest<S> for Fields {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let body = tokio::time::timeout(FORM_TIME, to_bytes(request.into_body(), MAX_FORM)).await;
        let unread =
            || OperationError::Invalid { field: "form", message: "the form did not arrive".to_owned() };
        let body = body.ok().and_then(Result::ok).ok_or_else(unread)?;
        Ok(Self::parse(&body))
    }
}
