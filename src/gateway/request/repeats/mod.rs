//! Makes requests repeatable: of several charged requests of an account with the same `Idempotency-Key`, one is forwarded
//! and charged, and the others get its response (draft-ietf-httpapi-idempotency-key-header).
//!
//! The request body is read completely, since the request is compared with the first one by its hash. Then the key is
//! claimed, the price is held, and both are on disk before a byte is forwarded.

pub(super) mod answer;
pub(super) mod claimed;
pub(super) mod keeping;

use std::rc::Rc;

use bytes::Bytes;
use http::HeaderName;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST};
use http::request::Parts;
use sha2::{Digest, Sha256};

use answer::Answer;
use claimed::Claimed;

use super::items::MAX_READING;
use super::permit::waiting_payment::{PaymentFuture, Unpaid, WaitingPayment};
use super::services::Services;
use crate::directory::Key;
use crate::ledger::{Claim, Found, NotFound, Repeatable};
use crate::policy::price::Price;
use crate::policy::reject::{Reason, Refusal};
use crate::policy::{forward, grpc};
use crate::snapshot::Idempotency;
use crate::types::seal::{SealKey, derive};
use crate::types::{AccountNum, KeyHash};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Longest idempotency key, in bytes.
const MAX_KEY: usize = 255;

/// True for a request that can be forwarded once for all its repeats: it is charged, and its response is one of HTTP, not
/// of gRPC or a tunnel.
pub(super) fn is_repeatable(price: &Price, parts: &Parts) -> bool {
    (!price.is_free() || price.per_item.is_some())
        && !price.shadow
        && !grpc::is_call(&parts.headers)
        && forward::upgrade(&parts.headers).is_none()
}

/// The idempotency key of a request, if it has one.
///
/// # Errors
/// [`Reason::BadRequest`] if it has two, or the key is empty, too long, or has other characters than visible ASCII.
pub(super) fn idempotency_key(parts: &Parts) -> Result<Option<&[u8]>, Refusal> {
    let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.as_bytes();
    if values.next().is_some() || !(1..=MAX_KEY).contains(&key.len()) || !key.iter().all(u8::is_ascii_graphic)
    {
        let detail = format!(
            "The request's Idempotency-Key must be one value of 1 to {MAX_KEY} visible ASCII characters."
        );
        return Err(Refusal::because(Reason::BadRequest, detail));
    }
    Ok(Some(key))
}

/// The payment of a request with an idempotency key: `paid` pays for it if it is the first one.
///
/// # Errors
/// [`Reason::Overloaded`] if the bodies of [`MAX_READING`] requests are being read; [`Reason::LedgerUnavailable`] if the
/// cryptographic library fails.
pub(super) fn payment(
    services: &Rc<Services>,
    key: &Key,
    parts: &Parts,
    (idempotency_key, settings): (&[u8], &Idempotency),
    paid: WaitingPayment,
) -> Result<WaitingPayment, Refusal> {
    let reading = Rc::clone(&services.reading);
    if Rc::strong_count(&reading) > MAX_READING + 1 {
        return Err(Reason::Overloaded.into());
    }
    let secrets = Secrets::derive(key.account.num, idempotency_key).ok_or(Reason::LedgerUnavailable)?;
    let started = secrets.start_request(parts);
    let (services, settings) = (Rc::clone(services), settings.clone());
    let (reads_body, max_body) = (paid.reads_body, settings.max_body);
    let pay = async move |body: Bytes| {
        let request = KeyHash(started.chain_update(&body).finalize().into());
        drop(reading);
        let repeatable = Repeatable { id: secrets.id, request };
        let now = services.connections.clock.wall();
        let claim = match Claim::find(&services.spender, repeatable, now).await {
            Ok(Found::First(claim)) => claim,
            Ok(Found::Answered(sealed)) => {
                let answer = secrets.seal.open(&sealed).and_then(|text| Answer::decode(&text));
                return Err(
                    answer.map_or(Reason::ResponseNotKept.into(), |it| Unpaid::Replayed(Box::new(it)))
                );
            }
            Ok(Found::InProgress) => {
                return Err(Refusal { retry_after: Some(1), ..Reason::IdempotencyInProgress.into() }.into());
            }
            Ok(Found::Other) => return Err(Reason::IdempotencyKeyReused.into()),
            Ok(Found::Lost) => return Err(Reason::ResponseNotKept.into()),
            Err(NotFound::Full) => return Err(Reason::Overloaded.into()),
            Err(NotFound::Unavailable) => return Err(Reason::LedgerUnavailable.into()),
        };
        let claimed = Claimed { claim, settings, seal: secrets.seal };
        Ok(paid.pay(body).await?.claim(claimed, &services).await?)
    };
    let pay = move |body: Bytes| Box::pin(async move { pay(body).await }) as PaymentFuture;
    Ok(WaitingPayment::of_body(reads_body, (max_body, "A request with an Idempotency-Key"), pay))
}

/// What follows from an account and an idempotency key. The stored hashes tell neither the key nor the request.
struct Secrets {
    /// Identifies account and key.
    id: KeyHash,
    /// Encrypts the answer.
    seal: SealKey,
    /// Begins the hash of the request, so that it cannot be guessed from what is stored.
    salt: [u8; 32],
}

impl Secrets {
    /// `None` if the cryptographic library fails.
    fn derive(account: AccountNum, key: &[u8]) -> Option<Self> {
        const PURPOSE: &[u8] = b"tollgate repeated requests";
        let account = account.0.to_le_bytes();
        Some(Self {
            id: KeyHash(derive(PURPOSE, key, &[b"id", &account])?),
            seal: SealKey::derive(PURPOSE, key, &[b"answer", &account])?,
            salt: derive(PURPOSE, key, &[b"request", &account])?,
        })
    }

    /// Hashes everything of the request but its body.
    fn start_request(&self, parts: &Parts) -> Sha256 {
        let header = |name| parts.headers.get(name).map_or(&b""[..], |value| value.as_bytes());
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        let host = parts.uri.authority().map_or(header(HOST), |host| host.as_str().as_bytes());
        let fields = [
            parts.method.as_str().as_bytes(),
            host,
            target.as_bytes(),
            header(CONTENT_TYPE),
            header(CONTENT_ENCODING),
        ];
        let mut hash = Sha256::new().chain_update(self.salt);
        for field in fields {
            hash.update(field.len().to_le_bytes());
            hash.update(field);
        }
        hash
    }
}
