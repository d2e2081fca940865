//! Writes the notes of changes, and tokens of the admin API.

mod payments;

use super::db::{Transaction, params};
use super::{events, leases, users};
use crate::ledger::store::{LedgerError, Note, Result, TokenRow};
use crate::types::{AccountId, WallTime};

/// Writes the notes of a change.
pub(super) fn write(tx: &Transaction<'_>, notes: &[Note], at: WallTime) -> Result<()> {
    for note in notes {
        match note {
            Note::Audit(row) => {
                let sql = "INSERT INTO audit (at, actor, origin, action, object, before, after, account)
                           VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, (SELECT num FROM accounts WHERE id = ?8))";
                let account = row.account.as_ref().map(AccountId::as_str);
                let values = params![
                    at.0, row.actor, row.origin, row.action, row.object, row.before, row.after, account
                ];
                tx.run(sql, values)?;
            }
            Note::Event(event) => events::emit_for(tx, event, at)?,
            Note::Payment(row) => payments::write(tx, row)?,
            Note::Payer(account, payer) => payments::write_payer(tx, account, payer)?,
            Note::User(edit) => users::write(tx, edit)?,
            Note::Answer(row) => {
                let sql = "INSERT INTO answers (id, request, answer, at) VALUES (?1, ?2, ?3, ?4)
                           ON CONFLICT (id) DO NOTHING";
                let values = params![row.id.0, row.request.0, row.answer, at.0];
                let added = tx.execute(sql, values)?;
                if added == 0 {
                    let message = "a request with this idempotency key was made at the same time".to_owned();
                    return Err(LedgerError::Taken(message));
                }
            }
        }
    }
    Ok(())
}

/// Creates a token, or replaces the one with the same name. That a token was used, or revoked, is written only to itself: a
/// gateway that knows an older state does not make a revoked one valid again, and changes none that replaced it.
pub(super) fn put_token(tx: &Transaction<'_>, token: &TokenRow) -> Result<()> {
    let sql = "INSERT INTO tokens (name, hash, role, created, expires, last_used, revoked)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
               ON CONFLICT (name) DO UPDATE SET hash = excluded.hash, role = excluded.role,
                   created = excluded.created, expires = excluded.expires, last_used = excluded.last_used,
                   revoked = CASE WHEN tokens.hash = excluded.hash THEN coalesce(tokens.revoked, excluded.revoked)
                       ELSE excluded.revoked END
               WHERE tokens.hash = excluded.hash OR (excluded.last_used IS NULL AND excluded.revoked IS NULL)";
    let (expires, last_used) = (token.expires.map(|at| at.0), token.last_used.map(|at| at.0));
    let (role, revoked) = (token.role.name(), token.revoked.map(|at| at.0));
    let values = params![token.name, token.hash.0, role, token.created.0, expires, last_used, revoked];
    tx.run(sql, values)?;
    leases::tokens_changed(tx)
}
