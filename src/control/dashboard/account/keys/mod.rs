//! The keys of an account.

mod change;
mod create;
mod groups;
mod key;
mod list;
mod secret;
mod terms;

pub(in crate::control::dashboard) use change::{
    change, disable, edit_page, enable, end_overlap, revoke, revoke_page, rotate, rotate_page,
};
pub(in crate::control::dashboard) use create::{create, create_page};
pub(in crate::control::dashboard) use groups::{delete_group, groups, put_group};
pub(in crate::control::dashboard) use key::key;
pub(in crate::control::dashboard) use list::keys;
pub(in crate::control::dashboard) use secret::secret;
pub(in crate::control::dashboard::account) use terms::amount;
