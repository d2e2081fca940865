//! Writes and reads payments.

use crate::ledger::sql::db::{Connection, Params, Row, SqlReader, Transaction, params, wrong};
use crate::ledger::sql::events::number_of;
use crate::ledger::sql::rows::{account_id, credits};
use crate::ledger::store::{LedgerError, Payer, PaymentReader, PaymentRow, Purchase, Result};
use crate::policy::credit::LotTerms;
use crate::types::{AccountId, BucketName, Credits, Currency, Money, WallTime};

/// How long a payment is kept of which nothing but a refund or a dispute is known, in milliseconds. It was most likely another
/// program's.
const KEEP_UNKNOWN: i64 = 90 * 24 * 3600 * 1000;

/// Writes a payment, or replaces it.
pub(super) fn write(tx: &Transaction<'_>, row: &PaymentRow) -> Result<()> {
    if row.purchase.is_none() {
        let sql = "DELETE FROM payments WHERE account IS NULL AND told < ?1";
        tx.run(sql, params![row.told.0.saturating_sub(KEEP_UNKNOWN)])?;
    }
    let sql = "INSERT INTO payments
                   (id, account, package, credits, price, currency, granted, bucket, expires, reversals, taken, missing, steps, told)
               VALUES (?1, (SELECT num FROM accounts WHERE id = ?2), ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
               ON CONFLICT (id) DO UPDATE SET account = excluded.account, package = excluded.package,
                   credits = excluded.credits, price = excluded.price, currency = excluded.currency,
                   granted = excluded.granted, bucket = excluded.bucket, expires = excluded.expires,
                   reversals = excluded.reversals, taken = excluded.taken, missing = excluded.missing,
                   steps = excluded.steps, told = excluded.told";
    let purchase = row.purchase.as_ref();
    let reversals =
        serde_json::to_string(&row.reversals).map_err(|error| LedgerError::Failed(error.to_string()))?;
    let values = params![
        row.id,
        purchase.map(|purchase| purchase.account.as_str()),
        purchase.map(|purchase| &purchase.package),
        purchase.map(|purchase| purchase.credits.millionths()),
        purchase.map(|purchase| purchase.price.minor),
        purchase.map(|purchase| purchase.price.currency.code()),
        row.granted.map(|at| at.0),
        row.lot.as_ref().map(|lot| lot.bucket.as_str()),
        row.lot.as_ref().and_then(|lot| lot.expires).map(|at| at.0),
        reversals,
        row.taken.millionths(),
        row.missing().millionths(),
        row.steps,
        row.told.0,
    ];
    tx.run(sql, values)
}

/// Writes how an account pays.
pub(super) fn write_payer(tx: &Transaction<'_>, account: &AccountId, payer: &Payer) -> Result<()> {
    let account = number_of(tx, Some(account))?;
    let sql = "INSERT INTO payers (account, payer, below, is_begun, wait) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (account) DO UPDATE SET payer = excluded.payer, below = excluded.below,
                   is_begun = excluded.is_begun, wait = excluded.wait";
    let text = serde_json::to_string(payer).map_err(|error| LedgerError::Failed(error.to_string()))?;
    let below = payer.top_up.as_ref().map(|top_up| top_up.below.millionths());
    let values = params![account.0, text, below, payer.begun.is_some(), payer.wait_until.0];
    tx.run(sql, values)
}

const PAYMENTS: &str =
    "SELECT p.id, a.id, p.package, p.credits, p.price, p.currency, p.granted, p.reversals, p.taken, p.steps, p.told, p.bucket, p.expires
     FROM payments p LEFT JOIN accounts a ON a.num = p.account";

fn payment_row(row: &Row<'_>) -> Result<PaymentRow> {
    let has_purchase = row.text_or_null(1)?.is_some();
    let purchase = has_purchase.then(|| -> Result<Purchase> {
        let code: String = row.get(5)?;
        let currency = Currency::parse(&code).ok_or_else(|| wrong(5, format!("{code} is no currency")))?;
        Ok(Purchase {
            account: account_id(row, 1)?,
            package: row.get(2)?,
            credits: credits(row, 3)?,
            price: Money { minor: row.get(4)?, currency },
        })
    });
    let reversals: String = row.get(7)?;
    let bucket: Option<String> = row.get(11)?;
    let lot = bucket.map(|name| -> Result<LotTerms> {
        let bucket = name.parse::<BucketName>().map_err(|error| wrong(11, error.to_string()))?;
        let expires = row.get::<Option<i64>>(12)?.map(WallTime);
        Ok(LotTerms { bucket, expires, of_refill: false })
    });
    Ok(PaymentRow {
        id: row.get(0)?,
        purchase: purchase.transpose()?,
        granted: row.get::<Option<i64>>(6)?.map(WallTime),
        lot: lot.transpose()?,
        reversals: serde_json::from_str(&reversals).map_err(|error| wrong(7, error.to_string()))?,
        taken: Credits::from_millionths(row.get(8)?),
        steps: row.get(9)?,
        told: WallTime(row.get(10)?),
    })
}

fn select(connection: &Connection, filter: &str, values: Params<'_>) -> Result<Vec<PaymentRow>> {
    connection.all(&format!("{PAYMENTS} {filter}"), values, payment_row)
}

impl PaymentReader for SqlReader {
    fn payment(&mut self, id: &str) -> Result<Option<PaymentRow>> {
        Ok(select(self.db()?, "WHERE p.id = ?1", params![id])?.pop())
    }

    fn payments(&mut self, account: &AccountId, most: usize) -> Result<Vec<PaymentRow>> {
        let num: Option<u32> =
            self.db()?.find("SELECT num FROM accounts WHERE id = ?1", params![account.as_str()], |row| {
                row.get(0)
            })?;
        select(self.db()?, "WHERE p.account = ?1 ORDER BY p.told DESC, p.id LIMIT ?2", params![num, most])
    }

    fn payer(&mut self, account: &AccountId) -> Result<Option<Payer>> {
        let sql = "SELECT p.payer FROM payers p JOIN accounts a ON a.num = p.account WHERE a.id = ?1";
        let text: Option<String> = self.db()?.find(sql, params![account.as_str()], |row| row.get(0))?;
        let read = |text: String| serde_json::from_str(&text).map_err(|error| wrong(0, error.to_string()));
        text.map(read).transpose()
    }

    fn seller(&mut self) -> Result<String> {
        self.db()?.one("SELECT id FROM seller", params![], |row| row.get(0))
    }

    fn missing(&mut self, since: WallTime, now: WallTime, most: usize) -> Result<Vec<String>> {
        let sql = "SELECT p.id FROM payments p JOIN accounts a ON a.num = p.account
                   WHERE p.missing > 0 AND p.told >= ?1 AND a.balance > 0 AND a.closed IS NULL
                       AND (p.expires IS NULL OR p.expires > ?2) ORDER BY p.told LIMIT ?3";
        self.db()?.all(sql, params![since.0, now.0, most], |row| row.get(0))
    }

    fn due_top_ups(&mut self, now: WallTime, most: usize) -> Result<Vec<AccountId>> {
        let sql = "SELECT a.id FROM payers p JOIN accounts a ON a.num = p.account
                   WHERE (p.below IS NOT NULL OR p.is_begun = 1) AND p.wait <= ?1
                       AND (p.is_begun = 1 OR a.balance < p.below AND a.state = 'active' AND a.closed IS NULL)
                   ORDER BY p.wait LIMIT ?2";
        self.db()?.all(sql, params![now.0, most], |row| account_id(row, 0))
    }
}
