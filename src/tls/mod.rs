//! Builds TLS configurations from certificates, keys and settings: for clients ([`server`]) and for upstreams
//! ([`client`]). Uses rustls with aws-lc-rs.

pub mod client;
pub mod server;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// Reads the certificates of a PEM file.
///
/// # Errors
/// If the text is not PEM, or has no certificate.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let read = read.map_err(|error| format!("it is not a PEM file: {error}"))?;
    if read.is_empty() {
        return Err("it has no certificate".to_owned());
    }
    Ok(read)
}

/// Combines a certificate chain and its private key.
///
/// # Errors
/// If the key cannot be read, is of an unsupported type, or does not belong to the certificate. The message
/// contains no part of the key.
pub fn pair(chain: Vec<CertificateDer<'static>>, key: &str) -> Result<CertifiedKey, String> {
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| "it has no private key (PEM: PKCS #8, PKCS #1 or SEC 1)".to_owned())?;
    let key = aws_lc_rs::sign::any_supported_type(&key)
        .map_err(|_| "its private key is of a kind that is not supported".to_owned())?;
    let pair = CertifiedKey::new(chain, key);
    pair.keys_match().map_err(|_| "it does not belong to the certificate".to_owned())?;
    Ok(pair)
}
