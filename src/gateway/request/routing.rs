//! Finds the route of a request (step 2), or the response to a CORS preflight.

use http::Method;
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;

use super::jobs::callback::{CallbackPlace, find_callback};
use super::target::Target;
use crate::policy::cors;
use crate::policy::reject::{Reason, Refusal};
use crate::policy::route::Lookup;
use crate::snapshot::{Route, Snapshot};

/// The result of routing a request.
pub(super) enum RouteMatch<'a> {
    /// The route to which the request is forwarded.
    Route(&'a Route),
    /// The request is a CORS preflight. The gateway responds with these headers, which are those of the
    /// route for the requested method.
    Preflight(&'a Route, Vec<(HeaderName, HeaderValue)>),
    /// An upstream tells about a job.
    Callback(CallbackPlace),
}

/// Finds the route of a request.
///
/// # Errors
/// [`Reason::NoRoute`]; [`Reason::MethodNotAllowed`] with the allowed methods; [`Reason::BadRequest`] for an
/// encoded slash that the route does not accept.
pub(super) fn match_route<'a>(
    view: &'a Snapshot,
    target: &Target<'_>,
    parts: &Parts,
) -> Result<RouteMatch<'a>, Refusal> {
    if !view.callbacks.list.is_empty()
        && let Some(callback) = find_callback(view, target, parts)?
    {
        return Ok(RouteMatch::Callback(callback));
    }
    let host = target.host.as_ref().and_then(|host| host.to_str().ok());
    let host = host.or(parts.uri.host());
    let find = |method: &Method| view.table.find(host, target.path.as_str(), method);
    if let Some(requested) = cors::preflight(&parts.method, &parts.headers)
        && let Lookup::Route(index) = find(&requested)
        && let Some(cors) = &view.routes[index].cors
    {
        return Ok(RouteMatch::Preflight(&view.routes[index], cors.preflight_headers(&parts.headers)));
    }
    let found = find(&parts.method);
    let route = if let Lookup::Route(index) = found { Some(&*view.routes[index]) } else { None };
    if target.path.has_encoded_slash() && !route.is_some_and(|route| route.encoded_slashes) {
        return Err(Refusal::because(Reason::BadRequest, "The path has an encoded slash."));
    }
    match (found, route) {
        (Lookup::OtherMethods(allow), _) => {
            Err(Refusal { allow: Some(allow), ..Reason::MethodNotAllowed.into() })
        }
        (_, None) => Err(Reason::NoRoute.into()),
        (_, Some(route)) => Ok(RouteMatch::Route(route)),
    }
}
