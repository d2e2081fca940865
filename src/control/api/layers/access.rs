//! Authenticates requests of the admin API, and limits their rate.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};

use crate::control::api::problem::Problem;
use crate::control::api::state::ApiState;
use crate::control::listener::Peer;

/// The token that a request was authenticated with, to derive keys from.
#[derive(Clone)]
pub(in crate::control::api) struct RawToken(pub(in crate::control::api) Arc<[u8]>);

/// The token of a request: `Authorization: Bearer TOKEN`, once.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?.as_bytes(), values.next()) else { return None };
    let (scheme, token) = value.split_first_chunk::<7>()?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

fn unauthorized() -> Problem {
    let detail =
        "send a token of the admin API as Authorization: Bearer TOKEN; `tollgate token create` makes one";
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
}

/// Refuses requests without a token that works, and requests beyond the quota. Puts the caller into the request.
pub(in crate::control::api) async fn authenticate(
    State(api): State<ApiState>,
    mut request: Request,
    next: Next,
) -> Response {
    match admit(&api, &mut request).await {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

async fn admit(api: &ApiState, request: &mut Request) -> Result<(), Problem> {
    let path = request.uri().path();
    if request.method() == http::Method::GET
        && api.control.view().load().settings.admin_open.iter().any(|open| open == path)
    {
        return Ok(());
    }
    let now = api.control.now();
    let peer = request.extensions().get::<Peer>().map_or(IpAddr::from([0; 4]), |peer| peer.0);
    let Some(token) = bearer(request.headers()).map(Arc::<[u8]>::from) else { return Err(unauthorized()) };
    // A token that works is served whatever others send from its address.
    let Some(caller) = api.control.caller_of(&token, peer.to_string()).await else {
        let guessed = |seconds| Problem::too_many("too_many_failures", "too many wrong tokens", seconds);
        api.failures.take(peer, now).map_err(guessed)?;
        return Err(unauthorized());
    };
    let too_many = |seconds| Problem::too_many("rate_limited", "too many requests with this token", seconds);
    api.requests.take(caller.actor.clone(), now).map_err(too_many)?;
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(RawToken(token));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_bearer_token_is_read() {
        let headers = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            values.iter().for_each(|value| {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            });
            headers
        };
        assert_eq!(bearer(&headers(&["Bearer abc"])), Some(&b"abc"[..]));
        assert_eq!(bearer(&headers(&["bearer  abc "])), Some(&b"abc"[..]));
        for none in [&[][..], &["Basic abc"], &["Bearer "], &["Bearer"], &["Bearer a", "Bearer b"]] {
            assert_eq!(bearer(&headers(none)), None, "{none:?}");
        }
    }
}
