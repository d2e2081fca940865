//! One request, top to bottom.
//!
//! [`handle`] owns the record and every way out. [`admit`] is the contract's table: a line per
//! step, each refusal's reason beside its line; [`answer`] is what follows at the upstream.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::ORIGIN;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::Gate;
use super::arrive::Protocol;
use super::body::Inbound;
use super::connection::Connection;
use super::exchange::Exchange;
use super::head::Seen;
use super::limits::Ask;
use super::meter::{Metered, NoResponse};
use super::outbound::Outbound;
use super::outgoing::Draft;
use super::permit::{Paid, Permit};
use super::record::Record;
use super::respond;
use super::stream::Stream;
use super::target::{self, Target};
use super::tunnel::Tunnel;
use super::visit::Visit;
use super::websocket::{self, Opening};
use crate::directory::Key;
use crate::ledger::journal::NotDurable;
use crate::policy::cors;
use crate::policy::forward;
use crate::policy::outcome::Outcome;
use crate::policy::reject::{Reason, Refusal};
use crate::policy::route::{Found, Methods};
use crate::policy::values;
use crate::snapshot::{Plan, Route, Snapshot, Standing};
use crate::types::KeyHash;

/// How long a key takes that does not work, whatever is wrong with it: more than any of them does that
/// is of usual length and found in warm memory. To find one that is disabled took 30 ns longer than to
/// find none, which would tell a guesser what was a key once.
const KEY_FAILS_IN: Duration = Duration::from_micros(1);

/// Serves one request, and logs it.
///
/// # Errors
/// Where nothing may be answered, since the request was charged and that cannot be written to disk: the
/// connection, or the stream, is cut.
pub(super) async fn handle(
    gate: Rc<Gate>,
    stream: Stream,
    seen: Option<Seen>,
    request: Request<Incoming>,
) -> Result<Response<Outbound>, NotDurable> {
    gate.stats.requests.fetch_add(1, Ordering::Relaxed);
    let is_head = request.method() == Method::HEAD && stream.connection.protocol == Protocol::Http2;
    let (record, mut visit) = Visit::begin(&gate, &stream.connection, request.headers());
    let answered = match admit(&gate, &stream, seen, &record, &mut visit, request) {
        Ok(Way::Forward(exchange, client)) => answer(exchange, client, &mut visit).await,
        Ok(Way::Answered(response)) => Ok(response),
        Err(refusal) => Err(refusal.into()),
    };
    let mut response = match answered {
        Ok(response) => response,
        Err(NoResponse::Refused(refusal)) => visit.refuse(&refusal),
        Err(NoResponse::Cut(error)) => {
            record.ended(Outcome::Cut);
            return Err(error);
        }
    };
    visit.sign(&mut response);
    if is_head {
        respond::only_head(&mut response);
    }
    if let Outbound::Whole(body) = response.body() {
        stream.gave_whole(gate.beat.now(), body.as_ref().map_or(0, Bytes::len));
    }
    Ok(response)
}

/// Where the way of a request leads.
enum Way {
    /// To the upstream; with the client's side of the upgrade that it asks for.
    Forward(Exchange, Option<OnUpgrade>),
    /// It ends here.
    Answered(Response<Outbound>),
}

/// The way of a request: the first refusal answers, and nothing before the payment costs anything.
/// Each line's refusals stand behind it. Nothing here waits.
fn admit(
    gate: &Rc<Gate>,
    stream: &Stream,
    seen: Option<Seen>,
    record: &Rc<Record>,
    visit: &mut Visit,
    mut request: Request<Incoming>,
) -> Result<Way, Refusal> {
    head_was_sound(seen)?; // bad_request, header_too_large
    let connection = &*stream.connection;
    let view = record.view();
    let client = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    visit.unfolded = websocket::unfold(&mut parts)?; // bad_request
    let (merge, max_head) = (view.settings.merge_slashes, view.settings.max_header_size);
    let target = target::read(&parts, merge, max_head, connection.secure)?; // bad_request, header_too_large
    if view.settings.account_info.as_deref() == Some(target.path.as_str()) {
        return account_info(gate, connection, record, visit, &parts).map(Way::Answered);
    }
    let route = match find_route(view, record, visit, &target, &parts)? {
        Ok(route) => route, // no_route, method_not_allowed
        Err(preflight) => return Ok(Way::Answered(preflight)),
    };
    let address = target::client(connection.peer, &parts.headers, &view.settings.trusted_proxies)?; // bad_request
    let plan = match route.public {
        true => view.keys.refuse(parts.uri.query()).map(|()| None)?, // key_in_query
        false => find_key(gate, record, visit, &parts, address)?, // missing_key, key_in_query, invalid_key, rate_limited
    };
    let key = visit.payer.as_deref();
    if let Some(key) = key {
        stream.waits.came_with(key.hash);
    }
    permit(key, route, address)?; // account_suspended, route_forbidden, address_forbidden
    websocket::may_open(visit.unfolded, route)?; // bad_request
    let body = Inbound::new(body, route.max_body_size, stream, gate, record)?; // body_too_large
    let ask = Ask { key, plan, route, method: &parts.method, address, now: record.now() };
    let pass = gate.limits.admit(&ask, &view.settings, gate.beat.wall(), &mut visit.said)?; // rate_limited, concurrency_limited
    let price = view.price(route, plan);
    let paid = Paid::take(gate, record, key, (route, &parts.method), price)?; // insufficient_credits, ledger_unavailable
    connection.may_forward(&view.settings.trusted_proxies)?; // overloaded; releases what was held
    if visit.is_call && route.upstream.http2 {
        stream.waits.converses();
    }
    let upgrade = forward::upgrade(&parts.headers).filter(|_| body.is_none());
    let opening = Opening::of(&parts.headers, upgrade.as_ref(), visit.unfolded);
    let (id, target, upgrade) = (&visit.id, &target, upgrade.as_ref());
    let draft = Draft { view, connection, route, key, plan, price, target, id, upgrade };
    let (outgoing, asks) = draft.write(&parts, body, gate.pool.spare.take())?; // bad_request
    let permit = Permit::new(gate, record, stream, pass, paid);
    let exchange = Exchange::begin(view, route, outgoing, asks, permit, opening); // see `answer`
    Ok(Way::Forward(exchange, upgrade.map(|_| client)))
}

/// Step 1, for what hyper does not tell: see [`super::head`].
fn head_was_sound(seen: Option<Seen>) -> Result<(), Refusal> {
    match seen {
        Some(Ok(())) => Ok(()),
        Some(Err(fault)) => Err(Refusal::because(fault.reason(), fault.message())),
        None => Err(Reason::BadRequest.into()),
    }
}

/// Step 2. A preflight is answered here, in the name of the method it asks for.
fn find_route<'a>(
    view: &'a Snapshot,
    record: &Record,
    visit: &mut Visit,
    target: &Target<'_>,
    parts: &Parts,
) -> Result<Result<&'a Route, Response<Outbound>>, Refusal> {
    let host = target.host.as_ref().and_then(|host| host.to_str().ok());
    let host = host.or(parts.uri.host());
    let asked = cors::preflight(&parts.method, &parts.headers);
    if let Some(asked) = &asked
        && let Found::Route(index) = view.table.find(host, target.path.as_str(), asked)
        && let Some(cors) = &view.routes[index].cors
    {
        record.route(&view.routes[index]);
        let headers = cors.preflight_headers(&parts.headers);
        return Ok(Err(respond::empty(StatusCode::NO_CONTENT, headers)));
    }
    let found = view.table.find(host, target.path.as_str(), &parts.method);
    let route = if let Found::Route(index) = found { Some(&view.routes[index]) } else { None };
    if target.path.has_encoded_slash() && !route.is_some_and(|route| route.encoded_slashes) {
        let detail = "The path has an encoded slash.";
        return Err(Refusal::because(Reason::BadRequest, detail));
    }
    match (found, route) {
        (Found::OtherMethods(allow), _) => {
            Err(Refusal { allow: Some(allow), ..Reason::MethodNotAllowed.into() })
        }
        (_, None) => Err(Reason::NoRoute.into()),
        (_, Some(route)) => {
            record.route(route);
            if let Some(cors) = &route.cors {
                visit.said.headers.extend(cors.answer_headers(parts.headers.get(ORIGIN)));
            }
            Ok(Ok(route))
        }
    }
}

/// Steps 3 and 4: the key, and the plan of its account. A key that is unknown, disabled, expired or
/// revoked, or whose account the file dropped, gets one and the same answer; an address that sends
/// many of those may try no key for a while.
fn find_key<'a>(
    gate: &Gate,
    record: &'a Record,
    visit: &mut Visit,
    parts: &Parts,
    address: IpAddr,
) -> Result<Option<&'a Plan>, Refusal> {
    let view = record.view();
    let secret = view.keys.read(&parts.headers, parts.uri.query())?;
    let (guesses, most) = (&gate.limits.guesses, view.settings.failed_keys_per_minute);
    let begun = gate.clock.now();
    let refused = |seconds| Refusal { retry_after: Some(seconds), ..Reason::RateLimited.into() };
    guesses.may_try(address, most, record.now()).map_err(refused)?;
    let failed = || {
        guesses.failed(address, most, record.now());
        gate.clock.busy_until(begun.plus(KEY_FAILS_IN));
        Reason::InvalidKey
    };
    let key = gate.directory.find_usable(&KeyHash::of(secret), gate.beat.wall()).ok_or_else(failed)?;
    let Standing::Served(plan) = view.standing(key.account.num, key.account.stored_plan()) else {
        return Err(failed().into());
    };
    record.key(key.id);
    visit.payer = Some(key);
    Ok(plan)
}

/// Step 5, but for the body's size.
fn permit(key: Option<&Key>, route: &Route, address: IpAddr) -> Result<(), Refusal> {
    let Some(key) = key else { return Ok(()) };
    if key.account.is_suspended() {
        return Err(Reason::AccountSuspended.into());
    }
    Ok(key.rules().permit(route.name.as_str(), address)?)
}

/// Steps 8 and 9: the upstream's answer goes to the client, and what is owed for it is settled.
async fn answer(
    exchange: Exchange,
    client: Option<OnUpgrade>,
    visit: &mut Visit,
) -> Result<Response<Outbound>, NoResponse> {
    let (answer, mut owed) = exchange.await?; // upstream_unreachable, upstream_timeout, overloaded
    owed.record.upstream(answer.status);
    let switches = answer.status == StatusCode::SWITCHING_PROTOCOLS;
    let tunnel = client.filter(|_| switches).map(|client| Tunnel::new(client, &mut owed));
    let ((mut status, mut headers), mut metered) = Metered::new(answer, owed);
    let upstream = if switches { metered.take_wire() } else { None };
    visit.charged = metered.open().await?; // ledger_unavailable; settles, here or at the body's end
    visit.outcome = Outcome::Proxied;
    if let (Some(tunnel), Some(upstream)) = (tunnel, upstream) {
        tunnel.dig(upstream); // from here on the connection is its own
    }
    forward::to_client(&mut headers, switches);
    if visit.protocol == Protocol::Http2 {
        values::own(&mut headers);
    }
    if visit.unfolded {
        websocket::fold(&mut status, &mut headers);
    }
    let mut response = Response::new(Outbound::Metered(Box::new(metered)));
    *response.version_mut() = Version::HTTP_11; // Tollgate's own, whatever the upstream speaks
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// `GET /account/info`: any active key may ask, whatever its scopes; free, not counted by limits.
fn account_info(
    gate: &Gate,
    connection: &Connection,
    record: &Record,
    visit: &mut Visit,
    parts: &Parts,
) -> Result<Response<Outbound>, Refusal> {
    if !Methods::Only(vec![Method::GET]).admit(&parts.method) {
        let allow = Some("GET, HEAD".to_owned());
        return Err(Refusal { allow, ..Reason::MethodNotAllowed.into() });
    }
    let proxies = &record.view().settings.trusted_proxies;
    let address = target::client(connection.peer, &parts.headers, proxies)?;
    find_key(gate, record, visit, parts, address)?;
    let key = visit.payer.as_ref().ok_or(Reason::InvalidKey)?;
    if key.account.is_suspended() {
        return Err(Reason::AccountSuspended.into());
    }
    if !key.rules().admits(address) {
        return Err(Reason::AddressForbidden.into());
    }
    Ok(respond::account_info(key.account.purse.available(), &key.account.webhooks()))
}
