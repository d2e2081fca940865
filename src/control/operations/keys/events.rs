//! What webhooks are told about keys.

use std::sync::Arc;

use serde_json::json;

use crate::ledger::store::{Changed, EventKind, EventRow, KeyRow, Note, Notes, OwnedKey};
use crate::types::AccountId;

fn event(kind: EventKind, row: &KeyRow, owner: &AccountId) -> Note {
    let data = json!({
        "account": owner,
        "key": row.id,
        "label": row.label,
        "shown": row.hint,
        "expires": row.expires.map(|at| at.to_string()),
    });
    Note::Event(EventRow { account: Some(owner.clone()), kind, data, once: None })
}

/// Adds `key.created` to the notes of a change.
pub(super) fn telling_of_new<T: 'static>(notes: Notes<T>, row: &KeyRow, owner: &AccountId) -> Notes<T> {
    let event = event(EventKind::KeyCreated, row, owner);
    Arc::new(move |result| {
        let mut all = notes(result);
        all.push(event.clone());
        all
    })
}

/// Adds the event that a change of a key is told by, if it is.
pub(super) fn telling_of_change(notes: Notes<Changed<OwnedKey>>, action: &str) -> Notes<Changed<OwnedKey>> {
    let kind = match action {
        "key.rotate" => EventKind::KeyRotated,
        "key.revoke" => EventKind::KeyRevoked,
        "key.report_leaked" => EventKind::KeyLeaked,
        _ => return notes,
    };
    Arc::new(move |changed| {
        let mut all = notes(changed);
        let (row, owner) = &changed.after;
        all.push(event(kind, row, owner));
        all
    })
}
