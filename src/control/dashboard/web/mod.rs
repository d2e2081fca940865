//! What all pages share of HTTP: sessions in cookies, forms, errors, and what every response carries.

mod cookies;
mod extract;
mod failure;
mod fields;
mod guard;
mod notice;

pub(super) use cookies::{clear, keep, session};
pub(super) use extract::{AsOperator, From, InAccount, Signed};
pub(super) use failure::{Failure, See};
pub(super) use fields::Fields;
pub(super) use guard::guard;
pub(super) use notice::Notice;
