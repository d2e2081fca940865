//! Reads the people who use the dashboard.

use crate::ledger::sql::db::SqlReader;
use crate::ledger::sql::db::{Row, params};
use crate::ledger::sql::rows::{account_id, parsed_text};
use crate::ledger::store::{
    Invited, LinkPurpose, LinkRow, MemberRole, MemberRow, OneTimeCodes, Result, Role, SessionOf, SessionRow,
    UserFilter, UserReader, UserRow,
};
use crate::types::{AccountId, KeyHash, Secret, WallTime};

const USERS: &str =
    "SELECT u.id, u.email, u.name, u.password, u.operator, u.verified, u.otp_secret, u.otp_step,
    u.recovery, u.disabled, u.created, u.last_sign_in";
const USER_COLUMNS: usize = 12;
const MEMBERS: &str =
    "SELECT m.user_id, a.id, m.role, m.since FROM members m JOIN accounts a ON a.num = m.account";
const SESSIONS: &str =
    "SELECT s.hash, s.user_id, a.id, s.role, s.person, s.created, s.seen, s.expires, s.origin, s.agent
    FROM sessions s LEFT JOIN accounts a ON a.num = s.account";
const LINKS: &str = "SELECT l.hash, l.purpose, l.email, l.user_id, a.id, l.role, l.by, l.created, l.expires
    FROM links l LEFT JOIN accounts a ON a.num = l.account";

fn time(row: &Row<'_>, at: usize) -> Result<Option<WallTime>> {
    row.get::<Option<i64>>(at).map(|at| at.map(WallTime))
}

fn user_row(row: &Row<'_>) -> Result<UserRow> {
    let secret: Option<Vec<u8>> = row.get(6)?;
    let recovery: Option<String> = row.get(8)?;
    let hashes: Vec<String> = recovery.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let last_step = row.get(7)?;
    let codes = secret.map(|secret| OneTimeCodes {
        secret,
        last_step,
        recovery: hashes.iter().filter_map(|text| text.parse().ok()).collect(),
    });
    Ok(UserRow {
        id: row.get(0)?,
        email: row.get(1)?,
        name: row.get(2)?,
        password: row.get::<Option<String>>(3)?.map(Secret::new),
        operator: if row.is_null(4)? { None } else { Some(parsed_text(row, 4, Role::named)?) },
        verified: time(row, 5)?,
        codes,
        is_disabled: row.get(9)?,
        created: WallTime(row.get(10)?),
        last_sign_in: time(row, 11)?,
    })
}

fn member_row(row: &Row<'_>, from: usize) -> Result<MemberRow> {
    Ok(MemberRow {
        user: row.get(from)?,
        account: account_id(row, from + 1)?,
        role: parsed_text(row, from + 2, MemberRole::named)?,
        since: WallTime(row.get(from + 3)?),
    })
}

fn session_row(row: &Row<'_>) -> Result<SessionRow> {
    let of = match row.get::<Option<String>>(1)? {
        Some(user) => SessionOf::User(user),
        None => SessionOf::Guest {
            account: account_id(row, 2)?,
            role: parsed_text(row, 3, MemberRole::named)?,
            person: row.get(4)?,
        },
    };
    Ok(SessionRow {
        hash: KeyHash(row.get(0)?),
        of,
        created: WallTime(row.get(5)?),
        seen: WallTime(row.get(6)?),
        expires: WallTime(row.get(7)?),
        origin: row.get(8)?,
        agent: row.get(9)?,
    })
}

fn link_row(row: &Row<'_>) -> Result<LinkRow> {
    let invited = match (row.is_null(4)?, row.is_null(5)?) {
        (_, true) => None,
        (true, false) => Some(Invited::Operator(parsed_text(row, 5, Role::named)?)),
        (false, false) => Some(Invited::Member(account_id(row, 4)?, parsed_text(row, 5, MemberRole::named)?)),
    };
    Ok(LinkRow {
        hash: KeyHash(row.get(0)?),
        purpose: parsed_text(row, 1, LinkPurpose::named)?,
        email: row.get(2)?,
        user: row.get(3)?,
        invited,
        by: row.get(6)?,
        created: WallTime(row.get(7)?),
        expires: WallTime(row.get(8)?),
    })
}

impl UserReader for SqlReader {
    fn user(&mut self, id: &str) -> Result<Option<UserRow>> {
        self.db()?.find(&format!("{USERS} FROM users u WHERE u.id = ?1"), params![id], user_row)
    }

    fn user_named(&mut self, email: &str) -> Result<Option<UserRow>> {
        self.db()?.find(&format!("{USERS} FROM users u WHERE u.email = ?1"), params![email], user_row)
    }

    fn users(&mut self, filter: &UserFilter, most: usize) -> Result<Vec<UserRow>> {
        let which = if filter.operators { "AND u.operator IS NOT NULL" } else { "" };
        let sql = format!("{USERS} FROM users u WHERE u.email > ?1 {which} ORDER BY u.email LIMIT ?2");
        self.db()?.all(&sql, params![filter.after.as_deref().unwrap_or_default(), most], user_row)
    }

    fn memberships(&mut self, user: &str, most: usize) -> Result<Vec<MemberRow>> {
        let sql = format!("{MEMBERS} WHERE m.user_id = ?1 ORDER BY a.id LIMIT ?2");
        self.db()?.all(&sql, params![user, most], |row| member_row(row, 0))
    }

    fn membership(&mut self, user: &str, account: &AccountId) -> Result<Option<MemberRow>> {
        let sql = format!("{MEMBERS} WHERE m.user_id = ?1 AND a.id = ?2");
        self.db()?.find(&sql, params![user, account.as_str()], |row| member_row(row, 0))
    }

    fn members(&mut self, account: &AccountId, most: usize) -> Result<Vec<(MemberRow, UserRow)>> {
        let sql = format!(
            "{USERS}, m.user_id, a.id, m.role, m.since FROM members m JOIN accounts a ON a.num = m.account
             JOIN users u ON u.id = m.user_id WHERE a.id = ?1 ORDER BY u.email LIMIT ?2"
        );
        let both = |row: &Row<'_>| Ok((member_row(row, USER_COLUMNS)?, user_row(row)?));
        self.db()?.all(&sql, params![account.as_str(), most], both)
    }

    fn session(&mut self, hash: &KeyHash) -> Result<Option<SessionRow>> {
        self.db()?.find(&format!("{SESSIONS} WHERE s.hash = ?1"), params![hash.0], session_row)
    }

    fn sessions(&mut self, user: &str, most: usize) -> Result<Vec<SessionRow>> {
        let sql = format!("{SESSIONS} WHERE s.user_id = ?1 ORDER BY s.seen DESC LIMIT ?2");
        self.db()?.all(&sql, params![user, most], session_row)
    }

    fn link(&mut self, hash: &KeyHash) -> Result<Option<LinkRow>> {
        self.db()?.find(&format!("{LINKS} WHERE l.hash = ?1"), params![hash.0], link_row)
    }

    fn invitations(&mut self, account: Option<&AccountId>, most: usize) -> Result<Vec<LinkRow>> {
        let which = match account {
            Some(_) => "a.id = ?1",
            None => "l.account IS NULL AND CAST(?1 AS TEXT) IS NULL",
        };
        let sql = format!(
            "{LINKS} WHERE {which} AND l.purpose = 'invitation' ORDER BY l.created DESC, l.hash LIMIT ?2"
        );
        self.db()?.all(&sql, params![account.map(AccountId::as_str), most], link_row)
    }

    fn is_awaiting(&mut self, account: &AccountId) -> Result<bool> {
        let sql = "SELECT 1 FROM awaiting_approval w JOIN accounts a ON a.num = w.account WHERE a.id = ?1";
        Ok(self.db()?.find(sql, params![account.as_str()], |_| Ok(()))?.is_some())
    }

    fn awaiting(&mut self, most: usize) -> Result<Vec<AccountId>> {
        let sql = "SELECT a.id FROM awaiting_approval w CROSS JOIN accounts a WHERE a.num = w.account ORDER BY w.account LIMIT ?1";
        self.db()?.all(sql, params![most], |row| account_id(row, 0))
    }
}
