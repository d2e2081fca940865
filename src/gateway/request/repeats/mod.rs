//! Makes requests repeatable: of several charged requests of an account with the same `Idempotency-Key`, one is forwarded
//! and charged, and the others get its response (draft-ietf-httpapi-idempotency-key-header).
//!
//! The request body is read completely, since the request is compared with the first one by its hash. Then the key is
//! claimed, the price is held, and both are on disk before a byte is forwarded.

pub(super) mod answer;
pub(super) mod claimed;
pub(super) mod keeping;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST};
use http::request::Parts;
use sha2::{Digest, Sha256};

use answer::Answer;
use claimed::Claimed;

use super::items::MAX_READING;
use super::limits;
use super::permit::waiting_payment::{PaymentFuture, Unpaid, WaitingPayment};
use super::services::Services;
use crate::directory::Key;
use crate::ledger::{Claim, Found, JobSlot, NotFound, Repeatable};
use crate::policy::reject::{Reason, Refusal};
use crate::policy::{forward, grpc};
use crate::snapshot::{Idempotency, Plan, Route, Snapshot};
use crate::types::seal::{SealKey, derive};
use crate::types::{AccountNum, KeyHash, RequestId};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Longest idempotency key, in bytes.
const MAX_KEY: usize = 255;

/// The idempotency key of a request that can be forwarded once for all its repeats.
#[derive(Clone, Copy)]
pub(super) struct RepeatKey<'a> {
    text: &'a [u8],
    settings: &'a Idempotency,
    /// Most open jobs of the account, if the request opens one.
    jobs: Option<Option<u32>>,
}

/// The idempotency key of a request, if it has one and is repeatable: it is charged, and its response is one of HTTP, not of
/// gRPC or a tunnel.
///
/// # Errors
/// [`Reason::BadRequest`] if it has two, or the key is empty, too long, or has other characters than visible ASCII.
#[inline]
pub(super) fn repeat_key<'a>(
    view: &'a Snapshot,
    key: Option<&Key>,
    plan: Option<&Plan>,
    route: &Route,
    parts: &'a Parts,
) -> Result<Option<RepeatKey<'a>>, Refusal> {
    match (&view.settings.idempotency, key) {
        (Some(settings), Some(_)) => read_key(view, settings, plan, route, parts),
        _ => Ok(None),
    }
}

fn read_key<'a>(
    view: &Snapshot,
    settings: &'a Idempotency,
    plan: Option<&Plan>,
    route: &Route,
    parts: &'a Parts,
) -> Result<Option<RepeatKey<'a>>, Refusal> {
    let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let price = view.price(route, plan);
    let is_charged =
        (!price.is_free() || price.per_item.is_some()) && !price.shadow && route.settles.is_none();
    if !is_charged || grpc::is_call(&parts.headers) || forward::upgrade(&parts.headers).is_some() {
        return Ok(None);
    }
    let text = value.as_bytes();
    if values.next().is_some()
        || !(1..=MAX_KEY).contains(&text.len())
        || !text.iter().all(u8::is_ascii_graphic)
    {
        let detail = format!(
            "The request's Idempotency-Key must be one value of 1 to {MAX_KEY} visible ASCII characters."
        );
        return Err(Refusal::because(Reason::BadRequest, detail));
    }
    let jobs = route.price.opens.is_some().then(|| plan.and_then(|plan| plan.jobs));
    Ok(Some(RepeatKey { text, settings, jobs }))
}

/// The payment of a request with an idempotency key: `paid` pays for it if it is the first one. `id`: the request's.
///
/// # Errors
/// [`Reason::Overloaded`] if the bodies of [`MAX_READING`] requests are being read; [`Reason::LedgerUnavailable`] if the
/// cryptographic library fails.
pub(super) fn payment(
    (services, id): (&Rc<Services>, RequestId),
    key: &Arc<Key>,
    parts: &Parts,
    repeat: RepeatKey<'_>,
    paid: WaitingPayment,
) -> Result<WaitingPayment, Refusal> {
    let reading = Rc::clone(&services.reading);
    // A request that is charged per item counts there.
    if paid.needed_body.is_none() && Rc::strong_count(&reading) > MAX_READING + 1 {
        return Err(Reason::Overloaded.into());
    }
    let secrets = Secrets::derive(key.account.num, repeat.text).ok_or(Reason::LedgerUnavailable)?;
    let started = secrets.start_request(parts);
    let RepeatKey { settings, jobs, .. } = repeat;
    let (services, key, settings) = (Rc::clone(services), Arc::clone(key), settings.clone());
    let (reads_body, max_body) = (paid.reads_body, settings.max_body);
    let is_of_fleet = services.spender.is_of_fleet();
    let pay = async move |body: Bytes| {
        let _reading = reading; // until the payment is made
        let request = KeyHash(started.chain_update(&body).finalize().into());
        let claim = match find(&services, &secrets, (request, id), settings.keep).await? {
            First::Claim(claim) => claim,
            First::Answer(answer) => return Err(Unpaid::Replayed(Box::new(answer))),
        };
        let job = jobs.map(|most| reserve_job(&services, &key, most)).transpose()?;
        let claimed = Claimed { claim, settings, seal: secrets.seal, job };
        let payment = paid.pay(body, Some(claimed)).await?;
        payment.committed().await.map_err(|_| Reason::LedgerUnavailable)?;
        Ok(payment)
    };
    let pay = move |body: Bytes, _| Box::pin(async move { pay(body).await }) as PaymentFuture;
    let of_body = (max_body, "A request with an Idempotency-Key");
    Ok(WaitingPayment::of_body(reads_body, of_body, pay).leasing(is_of_fleet))
}

/// What becomes of a request with an idempotency key.
enum First {
    /// It is the first one.
    Claim(Claim),
    /// The first one was answered so.
    Answer(Answer),
}

/// Finds the first request with an idempotency key.
async fn find(
    services: &Services,
    secrets: &Secrets,
    (request, id): (KeyHash, RequestId),
    keep: Duration,
) -> Result<First, Refusal> {
    let (repeatable, now) = (Repeatable { id: secrets.id, request }, services.connections.clock.wall());
    Err(match Claim::find(&services.spender, (repeatable, id), (now, now.plus(keep))).await {
        Ok(Found::First(claim)) => return Ok(First::Claim(claim)),
        Ok(Found::Answered(sealed)) => {
            match secrets.seal.open(&sealed).and_then(|text| Answer::decode(&text)) {
                Some(answer) => return Ok(First::Answer(answer)),
                None => Reason::ResponseNotKept.into(), // written by a later version
            }
        }
        Ok(Found::InProgress) => Refusal { retry_after: Some(1), ..Reason::IdempotencyInProgress.into() },
        Ok(Found::Other) => Reason::IdempotencyKeyReused.into(),
        Ok(Found::Lost) => Reason::ResponseNotKept.into(),
        Err(NotFound::Full) => Reason::Overloaded.into(),
        Err(NotFound::Unavailable) => Reason::LedgerUnavailable.into(),
    })
}

/// Reserves the place of the job that the request opens. A repeated request needs none.
fn reserve_job(services: &Services, key: &Key, most: Option<u32>) -> Result<JobSlot, Refusal> {
    if services.spender.is_full_of_jobs() {
        return Err(Reason::Overloaded.into());
    }
    limits::reserve_job(key, most)
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
