//! Parses `tls` of an upstream and reads its certificates and keys. Their files are watched like the configuration files.

use rustls::pki_types::ServerName;
use sha2::{Digest, Sha256};

use super::context::Context;
use super::tls::{pair, pem};
use crate::config::raw::{At, Place, Texts, UpstreamTls};
use crate::tls;
use crate::tls::client::{self, ClientTls};
use crate::types::KeyHash;

/// `servers`: where the servers of the upstream are listed, for mistakes of the defaults.
pub(super) fn build(
    context: &mut Context,
    raw: Option<&At<UpstreamTls>>,
    servers: &Place,
) -> Option<ClientTls> {
    let mut made_from = Sha256::new();
    let settings = raw.map(|raw| raw.value.clone()).unwrap_or_default();
    let place = raw.map_or(servers, |raw| &raw.span);
    let authorities = authorities(context, &mut made_from, settings.ca.as_ref(), place);
    let server_name = settings.server_name.as_ref().map(|name| {
        made_from.update(&name.value);
        let parsed = ServerName::try_from(name.value.clone());
        context.check(&name.span, parsed.map_err(|_| "a server name is a host name or an address"))
    });
    let own = match (&settings.certificate, &settings.private_key) {
        (Some(certificate), Some(key)) => Some(pair(context, &mut made_from, certificate, key)),
        (Some(certificate), None) => {
            context.error(&certificate.span, "`private_key` is missing beside this");
            return None;
        }
        (None, Some(key)) => {
            context.error(&key.span, "`certificate` is missing beside this");
            return None;
        }
        (None, None) => None,
    };
    let (server_name, own) = (transposed(server_name)?, transposed(own)?);
    let made_from = KeyHash(made_from.finalize().into());
    context.check(place, client::client(authorities?, own, server_name, made_from))
}

/// `None` if a value was set and is wrong.
fn transposed<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        Some(None) => None,
        Some(value) => Some(value),
        None => Some(None),
    }
}

/// The trusted authorities: the system's, those of PEM files, or both.
fn authorities(
    context: &mut Context,
    made_from: &mut Sha256,
    raw: Option<&At<Texts>>,
    place: &Place,
) -> Option<Vec<rustls::pki_types::CertificateDer<'static>>> {
    let system = At { value: "system".to_owned(), span: place.clone() };
    let texts: Vec<At<String>> = match raw {
        None => vec![system],
        Some(At { value: Texts(texts), span }) if texts.len() == 1 => {
            vec![At { value: texts[0].value.clone(), span: span.clone() }]
        }
        Some(At { value: Texts(texts), .. }) => texts.clone(),
    };
    if let (true, Some(raw)) = (texts.is_empty(), raw) {
        context.error(&raw.span, "no certificate authority: \"system\", a PEM file, or both");
        return None;
    }
    let mut all = Vec::new();
    let mut is_complete = true;
    for text in &texts {
        let found = match text.value.as_str() {
            "system" => {
                let read = context.system_authorities();
                context.check(&text.span, read)
            }
            path => pem(context, made_from, text).and_then(|pem| {
                let read = tls::certificates(&pem).map_err(|error| format!("{path}: {error}"));
                context.check(&text.span, read)
            }),
        };
        is_complete &= found.is_some();
        all.extend(found.into_iter().flatten());
    }
    all.iter().for_each(|certificate| made_from.update(certificate));
    is_complete.then_some(all)
}
