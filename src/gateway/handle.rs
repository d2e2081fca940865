//! One request, top to bottom.
//!
//! [`handle`] owns the id, the record and every way out. [`serve`] is the contract's table: a
//! line per step, each refusal's reason beside its line.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{HeaderMap, HeaderName, HeaderValue, ORIGIN};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::Gate;
use super::body::Inbound;
use super::connection::Connection;
use super::exchange::{Answer, Exchange};
use super::limits::Ask;
use super::meter::{Metered, Outbound};
use super::outgoing::Outgoing;
use super::permit::{Owed, Paid, Permit};
use super::record::Record;
use super::respond::{self, header};
use super::target::{self, Target};
use super::tunnel::Tunnel;
use crate::directory::Key;
use crate::policy::cors;
use crate::policy::forward;
use crate::policy::reject::{Dialect, Reason, Refusal};
use crate::policy::route::{Found, Methods};
use crate::snapshot::{Plan, Route, Snapshot, Standing};
use crate::types::{Credits, KeyHash};

/// Longest request id that is taken over from a trusted proxy.
const MAX_FOREIGN_ID: usize = 128;

/// What the way out needs to know of a request, wherever that way begins.
struct Visit {
    record: Rc<Record>,
    id: HeaderValue,
    dialect: Arc<Dialect>,
    /// What limits and CORS add to the answer, refusals too.
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Who pays, once that is known: their balance stands in the answer.
    payer: Option<Arc<Key>>,
    charged: Option<Credits>,
}

/// Serves one request: never fails, always answers, always logs.
pub(super) async fn handle(
    gate: Rc<Gate>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Response<Outbound> {
    gate.stats.requests.fetch_add(1, Ordering::Relaxed);
    let view = gate.view.load();
    let record = Record::new(gate.next_id(), &gate.clock);
    record.log_as(view.settings.log);
    let mut visit = Visit {
        id: request_id(&record, &connection, request.headers(), &view),
        dialect: Arc::clone(&view.dialect),
        headers: Vec::new(),
        payer: None,
        charged: Some(Credits::ZERO),
        record,
    };
    let mut response = match serve(&gate, &connection, &view, &mut visit, request).await {
        Ok(response) => response,
        Err(refusal) => {
            gate.stats.refused.fetch_add(1, Ordering::Relaxed);
            visit.charged = Some(Credits::ZERO);
            respond::refuse(&visit.dialect, &refusal, &visit.id)
        }
    };
    visit.sign(&mut response, view.settings.credit_headers);
    if let Outbound::Whole(_) = response.body() {
        connection.end(gate.clock.now());
    }
    response
}

/// The way of a request: the first refusal answers, and nothing before the payment costs anything.
/// Each line's refusals stand behind it.
async fn serve(
    gate: &Rc<Gate>,
    connection: &Arc<Connection>,
    view: &Arc<Snapshot>,
    visit: &mut Visit,
    mut request: Request<Incoming>,
) -> Result<Response<Outbound>, Refusal> {
    head_was_sound(connection)?; // bad_request
    let client = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    let target = target::read(&parts, view.settings.merge_slashes)?; // bad_request
    if view.settings.account_info.as_deref() == Some(&*target.path) {
        return account_info(gate, connection, view, visit, &parts);
    }
    let route = match find_route(view, visit, &target, &parts)? {
        Way::On(route) => route, // no_route, method_not_allowed
        Way::Answered(response) => return Ok(response),
    };
    let address = target::client(connection.peer, &parts.headers, &view.settings.trusted_proxies);
    let found = match route.public {
        true => view.keys.refuse(parts.uri.query()).map(|()| None)?, // key_in_query
        false => Some(find_key(gate, view, visit, &parts)?),         // missing_key, key_in_query, invalid_key
    };
    let (key, plan) = found.as_ref().map_or((None, None), |(key, plan)| (Some(&**key), *plan));
    permit(key, &route, address)?; // account_suspended, route_forbidden, address_forbidden
    let (body, progress) = Inbound::new(body, route.max_body_size, connection, &gate.clock)?; // body_too_large
    let ask = Ask { key, plan, route: &route, method: &parts.method, address, now: visit.record.now() };
    let pass = gate.limits.admit(&ask, &view.settings, gate.clock.wall(), &mut visit.headers)?; // rate_limited, concurrency_limited
    let price = view.price(&route, plan);
    let paid = Paid::take(gate, &visit.record, key, &route, price)?; // insufficient_credits, ledger_unavailable
    let upgrade = forward::upgrade(&parts.headers).filter(|_| body.is_end_stream());
    let client = upgrade.as_ref().map(|_| client);
    let outgoing = Outgoing { view, connection, route: &route, key, plan, price, target: &target };
    outgoing.rewrite(&mut parts, &visit.id, upgrade)?; // bad_request
    let permit = Permit::new(gate, &visit.record, connection, pass, paid);
    let request = Request::from_parts(parts, body);
    let exchange = Exchange::begin(&route, request, progress, permit);
    let (answer, owed) = exchange.await?; // upstream_unreachable, upstream_timeout, overloaded
    visit.record.upstream(answer.0.status());
    answer_with(answer, owed, visit, client).await // ledger_unavailable; settles, here or at the body's end
}

/// Step 1, for what hyper does not tell: see [`super::head`].
fn head_was_sound(connection: &Connection) -> Result<(), Refusal> {
    match connection.begin() {
        Some(Ok(())) => Ok(()),
        Some(Err(fault)) => Err(Refusal::because(Reason::BadRequest, fault.message())),
        None => Err(Reason::BadRequest.into()),
    }
}

/// Where the way of a request leads after its route was looked for.
enum Way {
    On(Arc<Route>),
    Answered(Response<Outbound>),
}

/// Step 2. A preflight is answered here, in the name of the method it asks for.
fn find_route(view: &Snapshot, visit: &mut Visit, target: &Target, parts: &Parts) -> Result<Way, Refusal> {
    let host = target.host.as_ref().and_then(|host| host.to_str().ok());
    let host = host.or(parts.uri.host());
    let asked = cors::preflight(&parts.method, &parts.headers);
    if let Some(asked) = &asked
        && let Found::Route(index) = view.table.find(host, &target.path, asked)
        && let Some(cors) = &view.routes[index].cors
    {
        visit.record.route(&view.routes[index]);
        let headers = cors.preflight_headers(&parts.headers);
        return Ok(Way::Answered(respond::empty(StatusCode::NO_CONTENT, headers)));
    }
    let found = view.table.find(host, &target.path, &parts.method);
    let route = if let Found::Route(index) = found { Some(&view.routes[index]) } else { None };
    if target.encoded_slash && !route.is_some_and(|route| route.encoded_slashes) {
        let detail = "The path has an encoded slash.";
        return Err(Refusal::because(Reason::BadRequest, detail));
    }
    match (found, route) {
        (Found::OtherMethods(allow), _) => {
            Err(Refusal { allow: Some(allow), ..Reason::MethodNotAllowed.into() })
        }
        (_, None) => Err(Reason::NoRoute.into()),
        (_, Some(route)) => {
            visit.record.route(route);
            visit.dialect = Arc::clone(&route.dialect);
            if let Some(cors) = &route.cors {
                visit.headers.extend(cors.answer_headers(parts.headers.get(ORIGIN)));
            }
            Ok(Way::On(Arc::clone(route)))
        }
    }
}

/// Steps 3 and 4: the key, and the plan of its account. A key that is unknown, disabled, expired or
/// revoked, or whose account the file dropped, gets one and the same answer.
fn find_key<'a>(
    gate: &Gate,
    view: &'a Snapshot,
    visit: &mut Visit,
    parts: &Parts,
) -> Result<(Arc<Key>, Option<&'a Plan>), Refusal> {
    let secret = view.keys.read(&parts.headers, parts.uri.query())?;
    let key = gate.directory.find(&KeyHash::of(secret));
    let key = key.filter(|key| key.rules().is_usable(gate.clock.wall())).ok_or(Reason::InvalidKey)?;
    let Standing::Served(plan) = view.standing(key.account.num, key.account.stored_plan()) else {
        return Err(Reason::InvalidKey.into());
    };
    visit.record.key(key.id);
    visit.payer = Some(Arc::clone(&key));
    Ok((key, plan))
}

/// Step 5, but for the body's size.
fn permit(key: Option<&Key>, route: &Route, address: IpAddr) -> Result<(), Refusal> {
    let Some(key) = key else { return Ok(()) };
    if key.account.is_suspended() {
        return Err(Reason::AccountSuspended.into());
    }
    Ok(key.rules().permit(route.name.as_str(), address)?)
}

/// Step 9: the upstream's answer goes to the client, and what is owed for it is settled.
async fn answer_with(
    (mut response, lease): Answer,
    mut owed: Owed,
    visit: &mut Visit,
    client: Option<OnUpgrade>,
) -> Result<Response<Outbound>, Refusal> {
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let mut tunnel = None;
    if switches {
        // An upstream that switches without being asked to speaks no HTTP any more.
        let client = client.ok_or(Reason::UpstreamUnreachable)?;
        owed.connection.upgraded();
        let gate = Rc::clone(&owed.gate);
        let ends = Tunnel {
            client,
            upstream: hyper::upgrade::on(&mut response),
            pass: std::mem::take(&mut owed.pass),
            record: Rc::clone(&owed.record),
            connection: Arc::clone(&owed.connection),
        };
        tunnel = Some((ends, gate));
    }
    let (mut parts, mut metered) = Metered::new(response, Some(lease).filter(|_| !switches), owed);
    visit.charged = metered.open().await?;
    if let Some((tunnel, gate)) = tunnel {
        tunnel.dig(&gate);
    }
    forward::to_client(&mut parts.headers, switches);
    parts.version = http::Version::HTTP_11; // Tollgate's own, whatever the upstream speaks
    Ok(Response::from_parts(parts, Outbound::Metered(Box::new(metered))))
}

/// `GET /account/info`: any active key may ask, whatever its scopes; free, not counted by limits.
fn account_info(
    gate: &Gate,
    connection: &Connection,
    view: &Snapshot,
    visit: &mut Visit,
    parts: &Parts,
) -> Result<Response<Outbound>, Refusal> {
    if !Methods::Only(vec![Method::GET]).admit(&parts.method) {
        let allow = Some("GET, HEAD".to_owned());
        return Err(Refusal { allow, ..Reason::MethodNotAllowed.into() });
    }
    let (key, _) = find_key(gate, view, visit, parts)?;
    let address = target::client(connection.peer, &parts.headers, &view.settings.trusted_proxies);
    if key.account.is_suspended() {
        return Err(Reason::AccountSuspended.into());
    }
    if !key.rules().admits(address) {
        return Err(Reason::AddressForbidden.into());
    }
    Ok(respond::account_info(key.account.purse.available(), &key.account.webhooks()))
}

impl Visit {
    /// What every answer carries.
    fn sign(&mut self, response: &mut Response<Outbound>, credits: bool) {
        self.record.answered(response.status());
        let headers = response.headers_mut();
        for (name, value) in self.headers.drain(..) {
            headers.insert(name, value);
        }
        headers.insert(forward::REQUEST_ID, self.id.clone());
        if let (true, Some(key)) = (credits, &self.payer) {
            if let Some(charged) = self.charged {
                headers.insert(forward::CREDITS_USED, header(&charged));
            }
            headers.insert(forward::CREDITS_REMAINING, header(&key.account.purse.available()));
        }
    }
}

/// Tollgate's own id, or that of a trusted proxy.
fn request_id(record: &Record, connection: &Connection, headers: &HeaderMap, view: &Snapshot) -> HeaderValue {
    let trusted = target::is_trusted(connection.peer.ip(), &view.settings.trusted_proxies);
    let theirs = headers.get(forward::REQUEST_ID).filter(|_| trusted);
    let plain = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        !bytes.is_empty() && bytes.len() <= MAX_FOREIGN_ID && bytes.iter().all(u8::is_ascii_graphic)
    };
    theirs.filter(plain).cloned().unwrap_or_else(|| header(&record.id))
}
