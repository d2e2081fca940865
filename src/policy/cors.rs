//! Builds the response headers of cross-origin requests (CORS; the Fetch standard, section 3.2), per route.

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{HeaderName, Method};

/// CORS settings of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Allowed origins, as browsers send them in `Origin`; `None` for every origin.
    pub origins: Option<Vec<HeaderValue>>,
    /// The value of `Access-Control-Allow-Methods`.
    pub methods: HeaderValue,
    /// The value of `Access-Control-Allow-Headers`.
    pub headers: HeaderValue,
    /// The value of `Access-Control-Expose-Headers`; `None` if that header is not sent.
    pub expose: Option<HeaderValue>,
    /// True if browsers may send credentials; never true if every origin is allowed.
    pub credentials: bool,
    /// How long a browser may cache the response to a preflight (`Access-Control-Max-Age`).
    pub max_age: Duration,
}

/// The method that a preflight requests; `None` if the request is not a preflight.
#[must_use]
pub fn preflight(method: &Method, headers: &HeaderMap) -> Option<Method> {
    if method != Method::OPTIONS || !headers.contains_key(header::ORIGIN) {
        return None;
    }
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(asked.as_bytes()).ok()
}

impl Cors {
    /// Headers for the response to a preflight.
    #[must_use]
    pub fn preflight_headers(&self, request: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = self.answer_headers(request.get(header::ORIGIN));
        if headers.iter().any(|(name, _)| name == header::ACCESS_CONTROL_ALLOW_ORIGIN) {
            headers.push((header::ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone()));
            headers.push((header::ACCESS_CONTROL_ALLOW_HEADERS, self.headers.clone()));
            headers.push((header::ACCESS_CONTROL_MAX_AGE, self.max_age.as_secs().into()));
        }
        headers
    }

    /// Headers for any other response. Refusals get them too, so that a script can read why it was refused.
    #[must_use]
    pub fn answer_headers(&self, origin: Option<&HeaderValue>) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        let allowed = match (&self.origins, origin) {
            (None, _) => Some(HeaderValue::from_static("*")),
            (Some(list), origin) => {
                headers.push((header::VARY, HeaderValue::from_static("origin")));
                origin.filter(|origin| list.contains(origin)).cloned()
            }
        };
        if let Some(allowed) = allowed {
            headers.push((header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed));
            if self.credentials {
                let yes = HeaderValue::from_static("true");
                headers.push((header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes));
            }
            if let Some(expose) = &self.expose {
                headers.push((header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone()));
            }
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_origins_are_allowed() {
        let cors = Cors {
            origins: Some(vec![HeaderValue::from_static("https://app.example")]),
            methods: HeaderValue::from_static("GET"),
            headers: HeaderValue::from_static("x-api-key"),
            expose: None,
            credentials: true,
            max_age: Duration::from_secs(600),
        };
        let mut request = HeaderMap::new();
        request.insert(header::ORIGIN, HeaderValue::from_static("https://app.example"));
        request.insert(header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PUT"));
        assert_eq!(preflight(&Method::OPTIONS, &request), Some(Method::PUT));
        assert_eq!(preflight(&Method::GET, &request), None);
        assert_eq!(cors.preflight_headers(&request).len(), 6);
        request.insert(header::ORIGIN, HeaderValue::from_static("https://evil.example"));
        let refused = cors.preflight_headers(&request);
        assert_eq!(refused, [(header::VARY, HeaderValue::from_static("origin"))]);
    }
}
