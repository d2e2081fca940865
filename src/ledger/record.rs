//! Encodes and decodes the journal's records, which report what happens to a hold. Records have a length and a type, so
//! that later versions can add types.

use crate::policy::limit::take_array;
use crate::types::{AccountNum, Credits, KeyHash, KeyNum, RequestId, RouteNum, StatusClass, WallTime};

/// Bytes before a record's content: its length and its type.
const PREFIX: usize = 3;

/// One record of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Credits are held for a request. 39 bytes.
    Hold {
        /// The request's id.
        id: RequestId,
        /// The account that pays.
        account: AccountNum,
        /// The key of the request.
        key: KeyNum,
        /// The route of the request.
        route: RouteNum,
        /// The credits held.
        amount: Credits,
    },
    /// A hold is settled: it becomes a charge, which is 0 if the hold is released. 28 bytes.
    Settle {
        /// The request's id.
        id: RequestId,
        /// The credits that are charged.
        charge: Credits,
        /// The outcome of the request.
        outcome: StatusClass,
    },
    /// A hold is kept beyond its request: from now on a crash does not put it in doubt.
    Keep {
        /// The request's id.
        id: RequestId,
        /// The external id, deadline and charge of the kept hold.
        kept: Kept,
    },
    /// The request is the first one with its idempotency key.
    Claim {
        /// The request's id.
        id: RequestId,
        /// The account and the idempotency key, as a hash.
        repeat: KeyHash,
        /// The request, as a hash.
        request: KeyHash,
        /// Until when a repeated request gets the same answer.
        until: WallTime,
    },
    /// A part of the answer to a claimed request: at most [`Record::MAX_PART`] bytes. All parts are in one batch. An answer
    /// without a byte was not kept.
    Answer {
        /// The request's id.
        id: RequestId,
        /// As in the claim.
        repeat: KeyHash,
        /// True if no other part follows.
        is_last: bool,
        /// The bytes.
        part: Vec<u8>,
    },
    /// The claim ends: nothing was charged, and the request may be made again.
    Unclaim {
        /// The request's id.
        id: RequestId,
        /// As in the claim.
        repeat: KeyHash,
    },
}

/// The terms of a hold that outlives its request, for example until a job of the upstream is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The id by which the hold is settled later.
    pub external_id: ExternalId,
    /// When the hold is settled automatically, if it has not been settled by its external id.
    pub deadline: WallTime,
    /// The charge at the deadline.
    pub charge_at_deadline: Credits,
}

/// The upstream's id of the work that a kept hold pays for, such as a job: 1 to [`ExternalId::MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExternalId(Box<str>);

impl ExternalId {
    /// Longest external id, in bytes.
    pub const MAX: usize = 255;

    /// The id of this text; `None` if it is empty or longer than [`ExternalId::MAX`].
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (1..=Self::MAX).contains(&text.len()).then(|| Self(text.into()))
    }

    /// The id of a job of an upstream: `UPSTREAM:ID`, since other upstreams may use the same id. `None` if the upstream's id
    /// is empty, or both are longer than [`ExternalId::MAX`].
    #[must_use]
    pub fn of(upstream: &str, id: &str) -> Option<Self> {
        Self::new(&format!("{upstream}:{id}")).filter(|_| !id.is_empty())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Record {
    const HOLD: u8 = b'H';
    const SETTLE: u8 = b'S';
    const KEEP: u8 = b'K';
    const CLAIM: u8 = b'C';
    const ANSWER: u8 = b'A';
    const UNCLAIM: u8 = b'U';

    /// Longest part of an answer, in bytes.
    pub const MAX_PART: usize = if cfg!(test) { 1_000 } else { 60_000 };

    /// Appends the record's bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; PREFIX]);
        let kind = match self {
            Self::Hold { id, account, key, route, amount } => {
                out.extend_from_slice(&id.0.to_le_bytes());
                out.extend_from_slice(&account.0.to_le_bytes());
                out.extend_from_slice(&key.0.to_le_bytes());
                out.extend_from_slice(&route.0.to_le_bytes());
                out.extend_from_slice(&amount.millionths().to_le_bytes());
                Self::HOLD
            }
            Self::Settle { id, charge, outcome } => {
                out.extend_from_slice(&id.0.to_le_bytes());
                out.extend_from_slice(&charge.millionths().to_le_bytes());
                out.push(outcome.code());
                Self::SETTLE
            }
            Self::Keep { id, kept } => {
                out.extend_from_slice(&id.0.to_le_bytes());
                out.extend_from_slice(&kept.deadline.0.to_le_bytes());
                out.extend_from_slice(&kept.charge_at_deadline.millionths().to_le_bytes());
                out.extend_from_slice(kept.external_id.as_str().as_bytes());
                Self::KEEP
            }
            Self::Claim { id, repeat, request, until } => {
                out.extend_from_slice(&id.0.to_le_bytes());
                out.extend_from_slice(&repeat.0);
                out.extend_from_slice(&request.0);
                out.extend_from_slice(&until.0.to_le_bytes());
                Self::CLAIM
            }
            Self::Answer { id, repeat, is_last, part } => {
                out.extend_from_slice(&id.0.to_le_bytes());
                out.extend_from_slice(&repeat.0);
                out.push((*is_last).into());
                out.extend_from_slice(part);
                Self::ANSWER
            }
            Self::Unclaim { id, repeat } => {
                out.extend_from_slice(&id.0.to_le_bytes());
                out.extend_from_slice(&repeat.0);
                Self::UNCLAIM
            }
        };
        let length = u16::try_from(out.len() - start - PREFIX).unwrap_or(u16::MAX); // records are shorter
        out[start..start + 2].copy_from_slice(&length.to_le_bytes());
        out[start + 2] = kind;
    }

    /// The number of records in the bytes of a batch.
    #[must_use]
    pub fn count(mut bytes: &[u8]) -> u64 {
        let mut count = 0;
        while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
            let content = usize::from(u16::from_le_bytes(*length)) + PREFIX - length.len();
            bytes = rest.get(content..).unwrap_or_default();
            count += 1;
        }
        count
    }

    /// Decodes the first record and removes it from `bytes`; `None` if the bytes do not begin with a record.
    pub fn read(bytes: &mut &[u8]) -> Option<Self> {
        let length = u16::from_le_bytes(take_array(bytes)?);
        let [kind] = take_array(bytes)?;
        let (mut content, rest) = bytes.split_at_checked(length.into())?;
        *bytes = rest;
        let content = &mut content;
        let id = RequestId(u128::from_le_bytes(take_array(content)?));
        let record = match kind {
            Self::HOLD => Self::Hold {
                id,
                account: AccountNum(u32::from_le_bytes(take_array(content)?)),
                key: KeyNum(u32::from_le_bytes(take_array(content)?)),
                route: RouteNum(u32::from_le_bytes(take_array(content)?)),
                amount: take_credits(content)?,
            },
            Self::SETTLE => {
                let charge = take_credits(content)?;
                let [code] = take_array(content)?;
                Self::Settle { id, charge, outcome: StatusClass::of_code(code)? }
            }
            Self::KEEP => {
                let deadline = WallTime(i64::from_le_bytes(take_array(content)?));
                let charge_at_deadline = take_credits(content)?;
                let external_id = ExternalId::new(std::str::from_utf8(std::mem::take(content)).ok()?)?;
                Self::Keep { id, kept: Kept { external_id, deadline, charge_at_deadline } }
            }
            Self::CLAIM => Self::Claim {
                id,
                repeat: KeyHash(take_array(content)?),
                request: KeyHash(take_array(content)?),
                until: WallTime(i64::from_le_bytes(take_array(content)?)),
            },
            Self::ANSWER => {
                let (repeat, [is_last]) = (KeyHash(take_array(content)?), take_array(content)?);
                Self::Answer { id, repeat, is_last: is_last != 0, part: std::mem::take(content).to_vec() }
            }
            Self::UNCLAIM => Self::Unclaim { id, repeat: KeyHash(take_array(content)?) },
            _ => return None,
        };
        content.is_empty().then_some(record)
    }
}

fn take_credits(bytes: &mut &[u8]) -> Option<Credits> {
    take_array(bytes).map(i64::from_le_bytes).map(Credits::from_millionths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records() -> impl Strategy<Value = Record> {
        let credits = || any::<i64>().prop_map(Credits::from_millionths);
        let id = || any::<u128>().prop_map(RequestId);
        let hash = || any::<[u8; 32]>().prop_map(KeyHash);
        prop_oneof![
            (id(), any::<(u32, u32, u32)>(), credits()).prop_map(|(id, (account, key, route), amount)| {
                let (account, key, route) = (AccountNum(account), KeyNum(key), RouteNum(route));
                Record::Hold { id, account, key, route, amount }
            }),
            (id(), credits(), prop::sample::select(vec![0_u8, 2, 3, 4, 5])).prop_map(|(id, charge, code)| {
                Record::Settle { id, charge, outcome: StatusClass::of_code(code).unwrap() }
            }),
            (id(), credits(), any::<i64>(), "[a-zß]{1,120}").prop_map(|(id, charge, deadline, external)| {
                let external_id = ExternalId::new(&external).unwrap();
                let deadline = WallTime(deadline);
                Record::Keep { id, kept: Kept { external_id, deadline, charge_at_deadline: charge } }
            }),
            (id(), hash(), hash(), any::<i64>()).prop_map(|(id, repeat, request, until)| {
                Record::Claim { id, repeat, request, until: WallTime(until) }
            }),
            (id(), hash(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..40))
                .prop_map(|(id, repeat, is_last, part)| Record::Answer { id, repeat, is_last, part }),
            (id(), hash()).prop_map(|(id, repeat)| Record::Unclaim { id, repeat }),
        ]
    }

    proptest! {
        #[test]
        fn records_survive_bytes(records in prop::collection::vec(records(), 0..5)) {
            let mut bytes = Vec::new();
            records.iter().for_each(|record| record.write(&mut bytes));
            prop_assert_eq!(Record::count(&bytes), records.len() as u64);
            let mut rest = &*bytes;
            for record in records {
                prop_assert_eq!(Record::read(&mut rest), Some(record));
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let mut rest = &*bytes;
            while Record::read(&mut rest).is_some() {}
        }
    }
}
