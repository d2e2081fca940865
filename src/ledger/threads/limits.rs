//! Sets the spending limits of accounts, and begins the periods of all spending limits.

use super::books::BooksThread;
use crate::ledger::caps::SpendCap;
use crate::ledger::store::Result;
use crate::policy::credit::SpendLimit;
use crate::types::AccountNum;

/// Most keys, and most accounts, whose period begins in one transaction.
const MAX_BEGUN_AT_ONCE: usize = 10_000;
/// Most such transactions after a fold. The rest follows after the next one.
const MAX_ROUNDS: usize = 5;

impl BooksThread {
    /// Sets the spending limits of accounts. What an account has in flight when it gets its first limit counts once it is
    /// charged.
    pub(in crate::ledger) fn limit_accounts(
        &mut self,
        limits: &[(AccountNum, Option<SpendLimit>)],
    ) -> Result<()> {
        self.fold()?; // so that the rows say what was spent
        let changed = self.books.limit_accounts(limits, self.clock.wall())?;
        for (num, before, after) in changed {
            let Some(purse) = self.shared.purses.get(num) else { continue };
            match (before.left().zip(purse.cap()), after.limit.zip(after.left())) {
                (_, None) => purse.set_cap(None),
                (Some((old, cap)), Some((limit, new))) => {
                    cap.set_limit(limit, new.checked_sub(old).unwrap_or_default());
                }
                (None, Some((limit, left))) => {
                    let held = self.returning(|hold| hold.account == num);
                    purse.set_cap(Some(SpendCap::new(limit, left.checked_sub(held).unwrap_or_default())));
                }
            }
        }
        Ok(())
    }

    /// Begins the periods of spending limits that are over. Charges that are not folded yet count in the new period.
    pub(super) fn begin_periods(&mut self) -> Result<()> {
        for _ in 0..MAX_ROUNDS {
            if self.begin_some_periods()? < MAX_BEGUN_AT_ONCE {
                break;
            }
        }
        Ok(())
    }

    /// Begins at most [`MAX_BEGUN_AT_ONCE`] periods of keys and of accounts. Returns the larger number.
    fn begin_some_periods(&mut self) -> Result<usize> {
        let begun = self.books.begin_periods(self.clock.wall(), MAX_BEGUN_AT_ONCE)?;
        let count = begun.keys.len().max(begun.accounts.len());
        for (key, more) in begun.keys {
            self.shared.caps.get(key).iter().for_each(|cap| cap.change(more));
        }
        for (account, more) in begun.accounts {
            let purse = self.shared.purses.get(account);
            purse.and_then(|purse| purse.cap()).iter().for_each(|cap| cap.change(more));
        }
        Ok(count)
    }
}
