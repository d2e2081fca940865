//! Writes the people who use the dashboard.

mod read;

use super::db::{Connection, Transaction, params};
use super::events::number_of;
use crate::ledger::store::{
    Invited, LedgerError, LinkRow, MemberRow, Result, SessionOf, SessionRow, UserEdit, UserRow,
};
use crate::types::{AccountId, WallTime};

/// Makes a change of people.
pub(super) fn write(tx: &Transaction<'_>, edit: &UserEdit) -> Result<()> {
    match edit {
        UserEdit::Put(row) => put_user(tx, row),
        UserEdit::SignedIn { user, at, verified } => signed_in(tx, user, *at, *verified),
        UserEdit::DropLinksOf(user) => tx.run("DELETE FROM links WHERE user_id = ?1", params![user]),
        UserEdit::DropInvitations { email, account } => {
            let account = number(tx, account.as_ref())?;
            let sql = "DELETE FROM links WHERE email = ?1 AND account IS NOT DISTINCT FROM ?2 AND purpose = 'invitation'";
            tx.run(sql, params![email, account])
        }
        UserEdit::DropLinksTo(email) => tx.run("DELETE FROM links WHERE email = ?1", params![email]),
        UserEdit::Delete(id) => tx.run("DELETE FROM users WHERE id = ?1", params![id]),
        UserEdit::PutMember(row) => put_member(tx, row),
        UserEdit::RemoveMember { user, account } => {
            let account = number_of(tx, Some(account))?.0;
            tx.run("DELETE FROM members WHERE user_id = ?1 AND account = ?2", params![user, account])
        }
        UserEdit::PutSession { row, most } => put_session(tx, row, *most),
        UserEdit::TouchSession(hash, at) => {
            tx.run("UPDATE sessions SET seen = ?2 WHERE hash = ?1", params![hash.0, at.0])
        }
        UserEdit::EndSession(hash) => tx.run("DELETE FROM sessions WHERE hash = ?1", params![hash.0]),
        UserEdit::EndSessionsOf { user, except } => {
            let sql = "DELETE FROM sessions WHERE user_id = ?1 AND hash IS DISTINCT FROM ?2";
            tx.run(sql, params![user, except.map(|hash| hash.0)])
        }
        UserEdit::PutLink(row) => put_link(tx, row),
        UserEdit::UseLink(hash) => {
            let sql = "DELETE FROM links WHERE hash = ?1";
            if tx.execute(sql, params![hash.0])? == 0 {
                return Err(LedgerError::Unknown("this link was used already".to_owned()));
            }
            Ok(())
        }
        UserEdit::Await(account) => {
            let account = number_of(tx, Some(account))?.0;
            tx.run(
                "INSERT INTO awaiting_approval (account) VALUES (?1) ON CONFLICT (account) DO NOTHING",
                params![account],
            )
        }
        UserEdit::Approve(account) => {
            let account = number_of(tx, Some(account))?.0;
            tx.run("DELETE FROM awaiting_approval WHERE account = ?1", params![account])
        }
        UserEdit::Prune { expired, idle } => {
            let sql = "DELETE FROM sessions WHERE expires < ?1 OR seen < ?2";
            tx.run(sql, params![expired.0, idle.0])?;
            tx.run("DELETE FROM links WHERE expires < ?1", params![expired.0])
        }
    }
}

fn put_user(tx: &Transaction<'_>, row: &UserRow) -> Result<()> {
    if tx.exists("SELECT 1 FROM users WHERE email = ?1 AND id <> ?2", params![row.email, row.id])? {
        return Err(LedgerError::Taken("another user has this e-mail address".to_owned()));
    }
    let recovery = row.codes.as_ref().map(|codes| {
        let hashes: Vec<String> = codes.recovery.iter().map(|hash| hex::encode(hash.0)).collect();
        serde_json::json!(hashes).to_string()
    });
    let sql = "INSERT INTO users (id, email, name, password, operator, verified, otp_secret, otp_step, recovery,
                   disabled, created, last_sign_in)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
               ON CONFLICT (id) DO UPDATE SET email = excluded.email, name = excluded.name,
                   password = excluded.password, operator = excluded.operator, verified = excluded.verified,
                   otp_secret = excluded.otp_secret, otp_step = excluded.otp_step, recovery = excluded.recovery,
                   disabled = excluded.disabled, last_sign_in = excluded.last_sign_in";
    let values = params![
        row.id,
        row.email,
        row.name,
        row.password.as_ref().map(|password| password.reveal()),
        row.operator.map(|role| role.name()),
        row.verified.map(|at| at.0),
        row.codes.as_ref().map(|codes| &codes.secret),
        row.codes.as_ref().map_or(0, |codes| codes.last_step),
        recovery,
        row.is_disabled,
        row.created.0,
        row.last_sign_in.map(|at| at.0),
    ];
    tx.run(sql, values)
}

fn signed_in(tx: &Transaction<'_>, user: &str, at: WallTime, verified: bool) -> Result<()> {
    let sql = "UPDATE users SET last_sign_in = ?2, verified = coalesce(verified, ?3) WHERE id = ?1 AND disabled = 0";
    let verified = verified.then_some(at.0);
    match tx.execute(sql, params![user, at.0, verified])? {
        0 => Err(LedgerError::Unknown("this user may not sign in".to_owned())),
        _ => Ok(()),
    }
}

fn put_member(tx: &Transaction<'_>, row: &MemberRow) -> Result<()> {
    let account = number_of(tx, Some(&row.account))?.0;
    let sql = "INSERT INTO members (account, user_id, role, since) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (account, user_id) DO UPDATE SET role = excluded.role";
    tx.run(sql, params![account, row.user, row.role.name(), row.since.0])
}

/// The number of an account, if there is one.
fn number(tx: &Connection, account: Option<&AccountId>) -> Result<Option<u32>> {
    account.map(|id| number_of(tx, Some(id)).map(|num| num.0)).transpose()
}

fn put_session(tx: &Transaction<'_>, row: &SessionRow, most: usize) -> Result<()> {
    let (user, account, role, person) = match &row.of {
        SessionOf::User(id) => (Some(id), None, None, None),
        SessionOf::Guest { account, role, person } => (None, Some(account), Some(role.name()), Some(person)),
    };
    let sql =
        "INSERT INTO sessions (hash, user_id, account, role, person, created, seen, expires, origin, agent)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    let times = (row.created.0, row.seen.0, row.expires.0);
    let account = number(tx, account)?;
    let values =
        params![row.hash.0, user, account, role, person, times.0, times.1, times.2, row.origin, row.agent];
    tx.run(sql, values)?;
    let sql = "DELETE FROM sessions WHERE hash IN
                   (SELECT hash FROM sessions WHERE user_id = ?1 ORDER BY seen DESC LIMIT 1000000 OFFSET ?2)";
    tx.run(sql, params![user, most])
}

fn put_link(tx: &Transaction<'_>, row: &LinkRow) -> Result<()> {
    let (account, role) = match &row.invited {
        Some(Invited::Member(account, role)) => (Some(account), Some(role.name())),
        Some(Invited::Operator(role)) => (None, Some(role.name())),
        None => (None, None),
    };
    let sql = "INSERT INTO links (hash, purpose, email, user_id, account, role, by, created, expires)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let account = number(tx, account)?;
    let values = params![
        row.hash.0,
        row.purpose.name(),
        row.email,
        row.user,
        account,
        role,
        row.by,
        row.created.0,
        row.expires.0
    ];
    tx.run(sql, values)
}
