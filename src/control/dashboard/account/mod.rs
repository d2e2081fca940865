//! The pages of an account.

mod audit;
mod billing;
mod buy;
mod credits;
mod docs;
mod keys;
mod logs;
mod overview;
mod requests;
mod team;
mod usage;
mod webhooks;

pub(super) use audit::audit;
pub(super) use billing::{mail_me, save_alerts, save_renewal};
pub(super) use buy::{buy, manage_payments, save_top_up, stripe};
pub(super) use credits::{credits, credits_csv};
pub(super) use docs::{docs, openapi};
pub(super) use keys::{
    change, create, create_page, delete_group, disable, edit_page, enable, end_overlap, groups, key, keys,
    put_group, revoke, revoke_page, rotate, rotate_page, secret,
};
pub(super) use logs::logs;
pub(super) use overview::overview;
pub(super) use team::{
    change_member, invite, invite_form, remove_member, remove_member_page, team, uninvite,
};
pub(super) use usage::{usage, usage_csv};
pub(super) use webhooks::{
    change_endpoint, create_endpoint, delete_endpoint, delete_page, deliveries_table, endpoint, resend,
    rotate_endpoint, test_endpoint, webhooks,
};

use super::html::{Frame, Place};
use super::web::{InAccount, Notice};
use crate::control::dashboard::site::Site;
use crate::control::operations::Permission;

impl InAccount {
    /// True if the person may do this in the account.
    fn may(&self, permission: Permission) -> bool {
        self.caller.may_in(permission, &self.account).is_ok()
    }

    /// The frame of a page.
    fn frame<'a>(&'a self, site: &'a Site, page: &'static str, title: &'a str, about: &'a str) -> Frame<'a> {
        let place = Place::Account(&self.account, page);
        Frame { site, visitor: &self.visitor, place, title, about, action: None, notice: None }
    }

    /// The address of a page.
    fn at(&self, page: &str) -> String {
        format!("/accounts/{}/{page}", self.account)
    }
}

impl Frame<'_> {
    fn with_notice(mut self, query: Option<&str>) -> Self {
        self.notice = Notice::of(query);
        self
    }
}
