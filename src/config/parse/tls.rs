//! Parses `[server.tls]` and reads its certificates and keys. Their files are watched like the configuration files.

use std::net::SocketAddr;

use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};

use super::context::Context;
use super::values::listen;
use crate::config::raw::{At, Tls as Raw};
use crate::tls;
use crate::tls::server::{Clients, Offer, Tls, ciphers as known_ciphers, is_of_1_3, server};
use crate::types::KeyHash;

/// The TLS configuration, and the addresses of its own; `None` if the addresses of `[server]` use TLS.
pub(super) struct BuiltTls {
    pub(super) tls: Option<Tls>,
    pub(super) listen: Option<Vec<SocketAddr>>,
}

pub(super) fn build(context: &mut Context, raw: Option<&At<Raw>>) -> Option<BuiltTls> {
    let At { value: raw, span } = raw?;
    let listen = listen(context, raw.listen.as_ref());
    let mut made_from = Sha256::new();
    let mut pairs = Vec::new();
    match (&raw.certificate, &raw.private_key) {
        (Some(certificate), Some(key)) => pairs.extend(pair(context, &mut made_from, certificate, key)),
        (Some(certificate), None) => context.error(&certificate.span, "`private_key` is missing beside this"),
        (None, Some(key)) => context.error(&key.span, "`certificate` is missing beside this"),
        (None, None) if raw.certificates.is_empty() => {
            context.error(span, "TLS needs a `certificate` and its `private_key`, files in PEM");
        }
        (None, None) => {}
    }
    for item in &raw.certificates {
        pairs.extend(pair(context, &mut made_from, &item.value.certificate, &item.value.private_key));
    }
    let with_1_2 = pick(context, raw.min_version.as_ref(), "TLS version", ["1.3", "1.2"]);
    let ciphers = ciphers(context, &raw.ciphers, with_1_2);
    let optional = pick(context, raw.client_certificate.as_ref(), "choice", ["required", "optional"]);
    if let (Some(choice), None) = (&raw.client_certificate, &raw.client_ca) {
        context.error(&choice.span, "`client_certificate` needs a `client_ca`");
    }
    let clients = raw.client_ca.as_ref().and_then(|path| {
        let text = pem(context, &mut made_from, path)?;
        let authorities = context.check(&path.span, tls::certificates(&text))?;
        Some(Clients { authorities, required: !optional })
    });
    made_from.update([u8::from(with_1_2), u8::from(optional)]);
    made_from.update(ciphers.join(" "));
    if context.report.errors() > 0 || pairs.is_empty() {
        return Some(BuiltTls { tls: None, listen });
    }
    let offer = Offer { with_1_2, ciphers };
    let made = server(pairs, &offer, clients, KeyHash(made_from.finalize().into()));
    Some(BuiltTls { tls: context.check(span, made), listen })
}

/// The offered cipher suites, in order of preference. Each supported TLS version needs at least one.
fn ciphers(context: &mut Context, list: &[At<String>], with_1_2: bool) -> Vec<String> {
    let known = known_ciphers();
    let Some(first) = list.first() else { return known };
    let mut ciphers: Vec<String> = Vec::new();
    for item in list {
        if !known.contains(&item.value) {
            context.unknown("cipher suite", item, known.iter().map(String::as_str));
        } else if ciphers.contains(&item.value) {
            context.error(&item.span, "this cipher suite is listed twice");
        } else if !with_1_2 && !is_of_1_3(&item.value) {
            let help = "set `min_version = \"1.2\"`, or leave it out";
            context.error_with(&item.span, "this cipher suite is for TLS 1.2, which is not enabled", help);
        }
        ciphers.push(item.value.clone());
    }
    for (version, serves) in [("1.3", true), ("1.2", with_1_2)] {
        let of_version = |cipher: &String| is_of_1_3(cipher) == (version == "1.3");
        if serves && !ciphers.iter().any(of_version) {
            context.error(&first.span, format!("no cipher suite of this list is for TLS {version}"));
        }
    }
    ciphers
}

/// True if the value is the second of the two choices.
fn pick(context: &mut Context, value: Option<&At<String>>, what: &str, choices: [&str; 2]) -> bool {
    let Some(value) = value else { return false };
    if !choices.contains(&value.value.as_str()) {
        context.unknown(what, value, choices.into_iter());
    }
    value.value == choices[1]
}

pub(super) fn pair(
    context: &mut Context,
    made_from: &mut Sha256,
    certificate: &At<String>,
    key: &At<String>,
) -> Option<CertifiedKey> {
    let chain = pem(context, made_from, certificate);
    let secret = pem(context, made_from, key)?;
    let chain = tls::certificates(&chain?).map_err(|error| format!("{}: {error}", certificate.value));
    let chain = context.check(&certificate.span, chain)?;
    let pair = tls::pair(chain, &secret).map_err(|error| format!("{}: {error}", key.value));
    context.check(&key.span, pair)
}

/// Reads a PEM file, adds it to the watched files, and adds its content to the hash `made_from`.
pub(super) fn pem(context: &mut Context, made_from: &mut Sha256, path: &At<String>) -> Option<String> {
    let read = context.secret(&path.span, &format!("file:{}", path.value));
    made_from.update(read.as_deref().unwrap_or_default());
    read
}
