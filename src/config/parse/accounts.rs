//! Parses `[accounts]`: customers and the hashes of their keys.

use std::collections::HashMap;
use std::sync::Arc;

use toml::value::{Datetime, Offset};

use super::context::{Context, Known, named};
use super::limits::{self, LimitOwner};
use super::operating::webhooks;
use super::plans;
use crate::config::loaded::{FileAccount, FileKey};
use crate::config::raw::{self, At};
use crate::policy::key::Scopes;
use crate::snapshot::Plan;
use crate::types::{AccountId, KeyHash, KeyId, NameId, NumberMap, WallTime};

/// Longest label of a key, in characters.
const MAX_LABEL: usize = 100;

pub(super) fn build(
    context: &mut Context,
    files: &[raw::File],
    known: &Known,
    known_plans: &NumberMap<NameId, Plan>,
) -> (Vec<FileAccount>, Vec<FileKey>) {
    let mut accounts = Vec::new();
    let mut keys: Vec<FileKey> = Vec::new();
    let mut seen = Seen::default();
    for (name, raw) in named(context, files, "account", |file| &file.accounts) {
        context.file = raw.file;
        let Some(id) = context.check(&name.span, name.value.parse::<AccountId>()) else { continue };
        let raw = &raw.item.value;
        if let Some(plan) = &raw.plan
            && !known_plans.contains_key(&NameId::of(&plan.value))
            && !context.is_cut("plans")
        {
            context.unknown("plan", plan, known_plans.values().map(|plan| plan.name.as_str()));
        }
        let credits = raw.credits.as_ref().and_then(|credits| context.credits(credits));
        let too_much = credits.is_some_and(|credits| credits > crate::policy::credit::MAX_BALANCE);
        if let (Some(amount), true) = (&raw.credits, too_much) {
            context
                .error(&amount.span, format!("a balance is at most {}", crate::policy::credit::MAX_BALANCE));
        }
        let urls = raw.webhooks.iter().filter_map(|url| webhooks::url(context, url)).collect();
        for key in &raw.keys {
            keys.extend(one_key(context, &id, &key.value, known, &mut seen));
        }
        let plan = raw.plan.as_ref().map(|plan| plan.value.clone());
        let spend_limit = raw.spend_limit.as_ref().and_then(|limit| plans::spend_limit(context, limit));
        accounts.push(FileAccount { id, plan, credits, spend_limit, webhooks: urls });
    }
    (accounts, keys)
}

#[derive(Default)]
struct Seen {
    hashes: HashMap<KeyHash, String>,
    ids: HashMap<KeyId, ()>,
}

fn one_key(
    context: &mut Context,
    account: &AccountId,
    raw: &raw::Key,
    known: &Known,
    seen: &mut Seen,
) -> Option<FileKey> {
    let label = &raw.label.value;
    if label.is_empty() || label.chars().count() > MAX_LABEL || label.chars().any(char::is_control) {
        context.error(&raw.label.span, format!("a label is 1 to {MAX_LABEL} characters on one line"));
    }
    let scopes = raw.scopes.as_ref().map(|scopes| Scopes {
        routes: context.route_patterns(&scopes.value.routes, known.names()).into(),
        shadow: scopes.value.shadow,
    });
    let allow_from = raw.allow_from.as_ref().map(|list| context.networks(&list.value));
    let limits =
        raw.limits.as_ref().map(|list| limits::build(context, list, LimitOwner::Plan, known.names()));
    let expires = raw.expires.as_ref().and_then(|expires| expiry(context, expires));
    let hash = context.sha256(&raw.sha256)?;
    let mine = format!("{account}/{label}");
    if let Some(other) = seen.hashes.insert(hash, mine) {
        context.error(&raw.sha256.span, format!("this hash stands at key {other} already"));
    } else if seen.ids.insert(KeyId::of_hash(&hash), ()).is_some() {
        context.error(&raw.sha256.span, "another key's hash begins with the same 16 digits; make a new key");
    }
    Some(FileKey {
        hash,
        account: account.clone(),
        label: label.clone(),
        scopes,
        expires,
        allow_from,
        limits: limits.map(Arc::from),
    })
}

/// Parses an expiry: a date-time with an offset, or a date, which means the start of that day in UTC.
fn expiry(context: &mut Context, value: &At<Datetime>) -> Option<WallTime> {
    let Datetime { date, time, offset } = value.value;
    let help = "an expiry looks like 2027-01-01T00:00:00Z or 2027-01-01";
    let Some(date) = date else {
        context.error_with(&value.span, "an expiry needs a date", help);
        return None;
    };
    if time.is_some() && offset.is_none() {
        context.error_with(
            &value.span,
            "this time has no offset from UTC, so it does not name one moment",
            help,
        );
        return None;
    }
    let time = time.map_or((0, 0, 0, 0), |time| {
        (time.hour, time.minute, time.second.unwrap_or(0), time.nanosecond.unwrap_or(0))
    });
    let narrow = |value: u8| i8::try_from(value).unwrap_or(i8::MAX);
    let nanosecond = i32::try_from(time.3).unwrap_or(0);
    let civil = jiff::civil::Date::new(
        i16::try_from(date.year).unwrap_or(i16::MAX),
        narrow(date.month),
        narrow(date.day),
    )
    .and_then(|date| {
        jiff::civil::Time::new(narrow(time.0), narrow(time.1), narrow(time.2).min(59), nanosecond)
            .map(|time| date.to_datetime(time))
    });
    let minutes = match offset {
        Some(Offset::Custom { minutes }) => i32::from(minutes),
        Some(Offset::Z) | None => 0,
    };
    let moment = civil
        .and_then(|civil| {
            civil.to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::Offset::from_seconds(minutes * 60)?))
        })
        .map(|zoned| WallTime(zoned.timestamp().as_millisecond()));
    context.check(&value.span, moment.map_err(|_| "this date or time does not exist"))
}
