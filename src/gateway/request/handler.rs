//! Handles one request, from its head to its response.
//!
//! [`Handler::handle`] returns every response, or the error that aborts the connection. [`admit`] has the steps
//! before the upstream, one line each with the possible refusals. [`forward_response`] has the steps after the
//! upstream's response.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::ORIGIN;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::access_log::AccessRecord;
use super::authentication::{authenticate, authorize, authorize_account_info};
use super::call::{CallStart, PreparedCall};
use super::jobs::callback::{CallbackRequest, MAX_BODY};
use super::jobs::{AskedJob, find_job};
use super::limits::{Pass, Subject};
use super::permit::InFlight;
use super::permit::progress::PaymentProgress;
use super::repeats::repeat_key;
use super::request_body::RequestBody;
use super::response::body::{NoResponse, OutboundBody, ResponseBody};
use super::response::context::ResponseContext;
use super::response::respond;
use super::response::settlement::Settlement;
use super::routing::{RouteMatch, match_route};
use super::services::Services;
use super::target::Target;
use super::tunnel::start_tunnel;
use super::upstream_request::{UpstreamPool, UpstreamRequest, framing};
use super::websocket::{self, ExpectedUpgrade};
use crate::directory::Key;
use crate::gateway::connection::{Connection, HeadVerdict, Protocol, RequestHandler, Stream};
use crate::ledger::outbox::NotDurable;
use crate::policy::client_address::client_address;
use crate::policy::forward;
use crate::policy::outcome::Outcome;
use crate::policy::reject::{Reason, Refusal};
use crate::policy::route::Methods;
use crate::policy::values;
use crate::snapshot::{Plan, Route};
use crate::telemetry::routes::MethodIndex;
use crate::types::Moment;

/// Serves the requests of a worker.
#[derive(Clone, Debug)]
pub(in crate::gateway) struct Handler {
    services: Rc<Services>,
    /// Connections to upstreams.
    pool: Rc<UpstreamPool>,
}

impl Handler {
    pub(in crate::gateway) fn new(services: &Rc<Services>) -> Self {
        let pool = UpstreamPool::new(services.connections.clock.clone(), fastrand::u64(..));
        Self { services: Rc::clone(services), pool: Rc::new(pool) }
    }

    /// Closes connections to upstreams that were idle for too long.
    pub(in crate::gateway) fn sweep_upstreams(&self) {
        self.pool.sweep(self.services.connections.clock.now());
    }
}

impl RequestHandler for Handler {
    type Body = OutboundBody;
    type Error = NotDurable;

    async fn handle(
        self,
        stream: Stream,
        head: Option<HeadVerdict>,
        request: Request<Incoming>,
    ) -> Result<Response<OutboundBody>, NotDurable> {
        let Self { services, pool } = self;
        services.stats.requests.fetch_add(1, Ordering::Relaxed);
        let is_http2_head = request.method() == Method::HEAD && stream.connection.protocol == Protocol::Http2;
        let (method, headers) = (request.method(), request.headers());
        let (record, mut context) = ResponseContext::start(&services, &stream.connection, method, headers);
        let responded = match admit((&services, &pool), &stream, head, &record, &mut context, request) {
            Ok(Admission::Forward(call, upgrade)) => {
                forward_response(call, upgrade, &record, &mut context).await
            }
            Ok(Admission::Waiting(request)) => {
                match Box::pin(request.admit((&services, &pool), &stream, &record, &mut context)).await {
                    Ok((call, upgrade)) => forward_response(call, upgrade, &record, &mut context).await,
                    Err(refusal) => Err(refusal.into()),
                }
            }
            Ok(Admission::Respond(response)) => Ok(response),
            Ok(Admission::Callback(callback)) => callback.answer().await.map_err(NoResponse::from),
            Err(refusal) => Err(refusal.into()),
        };
        let mut response = match responded {
            Ok(response) => response,
            Err(NoResponse::Refused(refusal)) => context.refuse(&refusal),
            Err(NoResponse::Replayed(answer)) => context.replay(*answer),
            Err(NoResponse::Aborted(error)) => {
                record.set_outcome(Outcome::Cut);
                return Err(error);
            }
        };
        context.finish(&mut response);
        if is_http2_head {
            respond::remove_body(&mut response);
        }
        if let OutboundBody::Whole(body) = response.body() {
            let length = body.as_ref().map_or(0, Bytes::len);
            record.add_bytes_out(length);
            stream.response_given(services.now(), length);
        }
        Ok(response)
    }

    fn refused_by_hyper(&self, reason: Reason) {
        let Self { services, .. } = self;
        services.stats.requests.fetch_add(1, Ordering::Relaxed);
        let record =
            AccessRecord::start(services, services.connections.views.load(), MethodIndex::OTHER, None, None);
        record.set_response(reason.status(), Outcome::Refused(reason)); // logged when it is dropped
    }
}

/// How a request that was not refused continues.
enum Admission<'a> {
    /// It is forwarded. With the client's side of the upgrade, if it requests one.
    Forward(CallStart, Option<OnUpgrade>),
    /// It waits for its gateway's share of a limit.
    Waiting(Box<Countable<'a>>),
    /// The gateway responds itself.
    Respond(Response<OutboundBody>),
    /// An upstream tells about a job.
    Callback(Box<CallbackRequest>),
}

/// A request that its limits may count.
struct Countable<'a> {
    route: &'a Route,
    plan: Option<&'a Plan>,
    parts: Parts,
    path: Option<String>,
    host: Option<HeaderValue>,
    body: Option<RequestBody>,
    address: IpAddr,
    job: AskedJob,
    is_repeatable: bool,
    upgrade: OnUpgrade,
}

/// Admits a request, synchronously. The first refusal is the response, and no step before the payment costs
/// anything. Only the limits or the payment may still be waiting when this returns.
fn admit<'a>(
    (services, pool): (&Rc<Services>, &Rc<UpstreamPool>),
    stream: &Stream,
    head: Option<HeadVerdict>,
    record: &'a Rc<AccessRecord>,
    context: &mut ResponseContext,
    mut request: Request<Incoming>,
) -> Result<Admission<'a>, Refusal> {
    let (connection, view) = (&*stream.connection, record.view());
    head.ok_or(Reason::BadRequest)??; // bad_request, header_too_large
    let upgrade = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    context.is_extended_connect = websocket::convert_connect(&mut parts)?; // bad_request
    let (merge_slashes, max_head) = (view.settings.merge_slashes, view.settings.max_header_size);
    let target = Target::read(&parts, merge_slashes, max_head, connection.is_tls)?; // bad_request, header_too_large
    if view.settings.account_info.as_deref() == Some(target.path.as_str()) {
        return account_info(services, connection, record, context, &parts).map(Admission::Respond);
    }
    let route = match match_route(view, &target, &parts)? {
        RouteMatch::Route(route) => route, // no_route, method_not_allowed
        RouteMatch::Callback(place) => {
            let body = RequestBody::new(body, MAX_BODY, stream, services, record)?; // body_too_large
            let callback = CallbackRequest::new(services, record, place, parts, body)?; // invalid_key, overloaded
            return Ok(Admission::Callback(Box::new(callback)));
        }
        RouteMatch::Preflight(route, headers) => {
            record.set_route(route);
            return Ok(Admission::Respond(respond::empty(StatusCode::NO_CONTENT, headers)));
        }
    };
    record.set_route(route);
    if let Some(cors) = &route.cors {
        context.headers.headers.extend(cors.answer_headers(parts.headers.get(ORIGIN)));
    }
    let address = read_address(connection, record, &parts)?; // bad_request
    let plan = identify(services, record, stream, context, (route, &parts), address)?; // key_in_query, missing_key … rate_limited
    let key = context.caller.as_deref();
    if let Some(key) = key {
        record.note_shadow_scope(authorize(key, route, address)?); // account_suspended, route_forbidden, address_forbidden
    }
    let job = find_job(services, key, route, &target, &parts)?; // no_job
    websocket::check_upstream(context.is_extended_connect, route)?; // bad_request
    let body = RequestBody::new(body, route.max_body_size, stream, services, record)?; // body_too_large
    let is_repeatable = repeat_key(view, key, plan, route, &parts)?.is_some(); // bad_request
    let (path, host) = (target.path.into_changed(), target.host.map(Cow::into_owned));
    let request = Countable { route, plan, parts, path, host, body, address, job, is_repeatable, upgrade };
    let subject = request.subject(context.caller.as_deref(), record.started());
    let wall = services.connections.time.wall();
    let admitted = services.limits.admit(&subject, &view.settings, wall, true, &mut context.headers)?; // rate_limited, concurrency_limited, overloaded
    match admitted {
        Some(pass) => {
            let (call, upgrade) = request.pay((services, pool), stream, record, context, pass)?;
            Ok(Admission::Forward(call, upgrade))
        }
        None => Ok(Admission::Waiting(Box::new(request))),
    }
}

impl<'a> Countable<'a> {
    fn subject<'s>(&'s self, key: Option<&'s Key>, now: Moment) -> Subject<'s> {
        let Self { route, plan, parts, address, is_repeatable, .. } = self;
        let (address, is_repeatable) = (*address, *is_repeatable);
        Subject { key, plan: *plan, route, method: &parts.method, address, now, is_repeatable }
    }

    /// Admits a request once its gateway has its share of the limits.
    async fn admit(
        self,
        (services, pool): (&Rc<Services>, &Rc<UpstreamPool>),
        stream: &Stream,
        record: &Rc<AccessRecord>,
        context: &mut ResponseContext,
    ) -> Result<(CallStart, Option<OnUpgrade>), Refusal> {
        let settings = &record.view().settings;
        let mut subject = self.subject(context.caller.as_deref(), record.started());
        let admitted = services.limits.admit_later(services, &mut subject, settings, &mut context.headers);
        let pass = admitted.await?; // rate_limited, concurrency_limited, overloaded
        self.pay((services, pool), stream, record, context, pass)
    }

    /// Pays for a request that passed its limits, and prepares its call.
    #[inline]
    fn pay(
        self,
        (services, pool): (&Rc<Services>, &Rc<UpstreamPool>),
        stream: &Stream,
        record: &Rc<AccessRecord>,
        context: &ResponseContext,
        pass: Pass,
    ) -> Result<(CallStart, Option<OnUpgrade>), Refusal> {
        let Self { route, plan, parts, path, host, body, job, is_repeatable, upgrade, .. } = self;
        let (view, connection) = (record.view(), &*stream.connection);
        record.note_shadow_limit(pass.shadowed());
        let repeat = match is_repeatable {
            true => repeat_key(view, context.caller.as_deref(), plan, route, &parts)?,
            false => None,
        };
        let caller = context.caller.as_ref().map(|key| (key, plan));
        let payment = PaymentProgress::start(services, record, caller, (job, repeat), (route, &parts))?; // bad_request, insufficient_credits, ledger_unavailable
        let reads_body = payment.reads_body(); // a payment that is dropped by a refusal releases its hold
        connection.may_forward(&view.settings.trusted_proxies)?; // overloaded
        if context.is_grpc && route.upstream.may_use_http2() && !payment.needs_request_body() {
            stream.deadlines.allow_silent_body();
        }
        let upgrade_to = forward::upgrade(&parts.headers).filter(|_| body.is_none());
        let upgrade_to = upgrade_to.as_ref();
        let expected = ExpectedUpgrade::of(&parts.headers, upgrade_to, context.is_extended_connect);
        let outgoing = Box::new(UpstreamRequest {
            request: InFlight::new(services, record, stream, pass),
            route: route.index,
            path,
            host,
            key: context.caller.clone(),
            plan: plan.and_then(|plan| plan.header.clone()),
            id: context.request_id.clone(),
            upgrade_to: upgrade_to.cloned(),
            reads_body,
            framing: framing(&parts.headers, body.as_ref()),
            parts,
            body,
            progress: None,
            replay: None,
        });
        let upgrade = outgoing.upgrade_to.is_some().then_some(upgrade);
        let call = PreparedCall { pool: Rc::clone(pool), outgoing, expected }.start(payment); // see `forward_response`
        Ok((call, upgrade))
    }
}

/// Finds the caller of a request (steps 3 and 4), and the plan of its account. A public route has no caller.
fn identify<'a>(
    services: &Rc<Services>,
    record: &'a AccessRecord,
    stream: &Stream,
    context: &mut ResponseContext,
    (route, parts): (&Route, &Parts),
    address: IpAddr,
) -> Result<Option<&'a Plan>, Refusal> {
    let view = record.view();
    if route.public {
        view.keys.refuse(parts.uri.query())?;
        return Ok(None);
    }
    let caller = authenticate(services, view, parts, address, record.started())?;
    record.set_caller(&caller.key);
    stream.deadlines.set_key(caller.key.hash);
    context.caller = Some(caller.key);
    Ok(caller.plan)
}

/// Reads the client's address, for the request and its record.
#[inline]
fn read_address(connection: &Connection, record: &AccessRecord, parts: &Parts) -> Result<IpAddr, Refusal> {
    let proxies = &record.view().settings.trusted_proxies;
    let address = client_address(connection.peer, &parts.headers, proxies)?;
    record.set_address(address);
    Ok(address)
}

/// Forwards the upstream's response, and settles its charge (steps 8 and 9).
async fn forward_response(
    call: CallStart,
    client: Option<OnUpgrade>,
    record: &AccessRecord,
    context: &mut ResponseContext,
) -> Result<Response<OutboundBody>, NoResponse> {
    let call = match call {
        CallStart::Ready(call) => call,
        CallStart::Waiting(call) => call.await?, // insufficient_credits, ledger_unavailable, body_too_large, idempotency_…
    };
    record.note_sent();
    let (response, permit) = call.await?; // upstream_unreachable, upstream_timeout, overloaded
    record.note_answered();
    let ((mut status, mut headers), mut settlement) = Settlement::new(response, permit);
    let is_switch = status == StatusCode::SWITCHING_PROTOCOLS;
    let upstream = if is_switch { settlement.take_upstream() } else { None };
    let tunnel_charge = if is_switch { settlement.take_tunnel_charge().await? } else { None }; // ledger_unavailable
    let request = Rc::clone(settlement.request());
    let (body, charged) = ResponseBody::open(settlement).await?; // ledger_unavailable
    (context.charged, context.outcome) = (charged.filter(|_| tunnel_charge.is_none()), Outcome::Proxied);
    if let (Some(client), Some(upstream)) = (client, upstream) {
        start_tunnel(request, client, upstream, tunnel_charge);
    }
    forward::to_client(&mut headers, is_switch);
    if context.protocol == Protocol::Http2 {
        values::own(&mut headers);
    }
    if context.is_extended_connect {
        websocket::convert_switch(&mut status, &mut headers);
    }
    let mut response = Response::new(OutboundBody::Upstream(Box::new(body)));
    *response.version_mut() = Version::HTTP_11; // the gateway's own version, not the upstream's
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// `GET /account/info`: free, for any active key whatever its routes, and not counted by limits.
fn account_info(
    services: &Services,
    connection: &Connection,
    record: &AccessRecord,
    context: &mut ResponseContext,
    parts: &Parts,
) -> Result<Response<OutboundBody>, Refusal> {
    if !Methods::Only(vec![Method::GET]).admit(&parts.method) {
        let allow = Some("GET, HEAD".to_owned());
        return Err(Refusal { allow, ..Reason::MethodNotAllowed.into() });
    }
    let view = record.view();
    let address = read_address(connection, record, parts)?;
    let caller = authenticate(services, view, parts, address, record.started())?;
    record.set_caller(&caller.key);
    let key = context.caller.insert(caller.key);
    authorize_account_info(key, address)?;
    Ok(respond::account_info(key.account.purse.available(), &key.account.webhooks()))
}
