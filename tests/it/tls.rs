//! Tests TLS for clients: certificates by server name, their reload, protocol versions, and client certificates.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion, version};

use super::disk::can_trace;
use crate::support::{Authority, Gateway, Upstream, config, eventually};

/// A self-signed certificate in its own folder, in which a gateway is started.
pub struct Certificate {
    folder: Arc<tempfile::TempDir>,
    pub pem: String,
    pub key: String,
}

impl Certificate {
    pub fn of(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let (folder, key) = (Arc::new(tempfile::tempdir().unwrap()), key.serialize_pem());
        let made = Self { folder, pem, key };
        made.write("cert");
        made
    }

    fn write(&self, name: &str) {
        self.put(name, &self.pem, &self.key);
    }

    fn put(&self, name: &str, pem: &str, key: &str) {
        std::fs::write(self.folder.path().join(format!("{name}.pem")), pem).unwrap();
        std::fs::write(self.folder.path().join(format!("{name}.key")), key).unwrap();
    }

    pub fn path(&self) -> String {
        self.folder.path().join("cert.pem").display().to_string()
    }

    pub fn gateway(&self, config: &str, upstream: &Upstream) -> Gateway {
        let text = config.replace("{upstream}", &upstream.address.to_string());
        std::fs::write(self.folder.path().join("config.toml"), text).unwrap();
        Gateway::start_in(Arc::clone(&self.folder))
    }
}

/// Adds a TLS listener with its own address to a configuration; `more` is added to `[server.tls]`.
pub fn tls_config(config: &str, more: &str) -> String {
    let tls = format!(
        "[server.tls]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"cert.pem\"\nprivate_key = \"cert.key\"\n{more}\n[admin]"
    );
    config.replacen("[admin]", &tls, 1)
}

static ONLY_1_3: &[&SupportedProtocolVersion] = &[&version::TLS13];
static ONLY_1_2: &[&SupportedProtocolVersion] = &[&version::TLS12];

struct Asks<'a> {
    name: &'static str,
    trusts: &'a str,
    alpn: &'a [&'a [u8]],
    versions: &'a [&'static SupportedProtocolVersion],
    shows: Option<(&'a str, &'a str)>,
}

impl<'a> Asks<'a> {
    fn new(name: &'static str, trusts: &'a Certificate) -> Self {
        Self { name, trusts: &trusts.pem, alpn: &[], versions: ONLY_1_3, shows: None }
    }

    fn connect(&self, address: SocketAddr) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.trusts.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut client = match self.shows {
            None => builder.with_no_client_auth(),
            Some((pem, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
                builder
                    .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
                    .unwrap()
            }
        };
        client.alpn_protocols = self.alpn.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from(self.name).unwrap();
        let connection = ClientConnection::new(Arc::new(client), name).unwrap();
        let stream = StreamOwned::new(connection, TcpStream::connect(address).unwrap());
        stream.sock.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends a request over TLS. Returns the response and the protocol that was negotiated.
    fn get(&self, address: SocketAddr) -> Result<(String, Option<Vec<u8>>), String> {
        let mut stream = self.connect(address);
        let request = format!(
            "GET /one HTTP/1.1\r\nhost: {}\r\nx-api-key: good-key\r\nconnection: close\r\n\r\n",
            self.name
        );
        stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        let mut response = String::new();
        stream.read_to_string(&mut response).map_err(|error| error.to_string())?;
        Ok((response, stream.conn.alpn_protocol().map(<[u8]>::to_vec)))
    }

    fn is_served(&self, address: SocketAddr) -> bool {
        self.get(address).is_ok_and(|(response, _)| response.starts_with("HTTP/1.1 200 "))
    }
}

#[test]
fn the_name_that_is_asked_for_chooses_the_certificate() {
    let (first, second, wild) =
        (Certificate::of("first.test"), Certificate::of("second.test"), Certificate::of("*.wild.test"));
    first.put("second", &second.pem, &second.key);
    first.put("wild", &wild.pem, &wild.key);
    let more = "certificates = [\n{ certificate = \"second.pem\", private_key = \"second.key\" },\n\
                { certificate = \"wild.pem\", private_key = \"wild.key\" }]";
    let upstream = Upstream::start();
    let gateway = first.gateway(&tls_config(&config(""), more), &upstream);
    let address = gateway.tls();
    for (name, trusts) in
        [("first.test", &first), ("second.test", &second), ("SECOND.test", &second), ("a.wild.test", &wild)]
    {
        assert!(Asks::new(name, trusts).is_served(address), "{name}");
    }
    assert!(!Asks::new("other.test", &first).is_served(address), "its name is not other.test");
    let told = Asks::new("other.test", &first).get(address).unwrap_err();
    assert!(told.contains("not valid for name"), "the first certificate is for who asks for another: {told}");
    let alpn = |names: &[&[u8]]| {
        Asks { alpn: names, ..Asks::new("first.test", &first) }.get(address).map(|(_, agreed)| agreed)
    };
    assert_eq!(alpn(&[b"http/1.1"]), Ok(Some(b"http/1.1".to_vec())));
    assert_eq!(alpn(&[]), Ok(None));
    assert!(alpn(&[b"spdy/3"]).is_err(), "no protocol in common");
}

#[test]
fn certificates_are_reloaded_and_a_wrong_pair_changes_nothing() {
    let (old, new) = (Certificate::of("first.test"), Certificate::of("first.test"));
    let upstream = Upstream::start();
    let mut gateway = old.gateway(&tls_config(&config(""), ""), &upstream);
    let address = gateway.tls();
    assert!(Asks::new("first.test", &old).is_served(address));
    old.put("cert", &new.pem, &old.key);
    gateway.line_with("does not belong to the certificate");
    assert!(Asks::new("first.test", &old).is_served(address), "the old pair is kept");
    let refused = gateway.cli(&["reload"]);
    assert!(!refused.status.success());
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("cert.key: it does not belong to the certificate"), "{told}");
    assert!(!told.contains("PRIVATE KEY"), "{told}");
    old.put("cert", &new.pem, &new.key);
    eventually("the new pair", || Asks::new("first.test", &new).is_served(address));
    assert!(!Asks::new("first.test", &old).is_served(address));
}

#[test]
fn versions_are_as_asked_for() {
    let certificate = Certificate::of("first.test");
    let upstream = Upstream::start();
    let old = Asks { versions: ONLY_1_2, ..Asks::new("first.test", &certificate) };
    let gateway = certificate.gateway(&tls_config(&config(""), ""), &upstream);
    let told = old.get(gateway.tls()).unwrap_err();
    assert!(told.contains("alert") && told.contains("ProtocolVersion"), "{told}");
    drop(gateway);
    let gateway = certificate.gateway(&tls_config(&config(""), "min_version = \"1.2\""), &upstream);
    assert!(old.is_served(gateway.tls()));
    assert!(Asks::new("first.test", &certificate).is_served(gateway.tls()));
}

/// A client's kernel may hold a request back until the last part of the handshake is acknowledged (RFC 896). Therefore
/// the gateway sends that part immediately, and does not keep it for the response.
#[test]
fn a_handshakes_last_part_comes_before_any_request() {
    let certificate = Certificate::of("first.test");
    let upstream = Upstream::start();
    let gateway = certificate.gateway(&tls_config(&config(""), ""), &upstream);
    let (mut connection, mut socket) =
        Asks::new("first.test", &certificate).connect(gateway.tls()).into_parts();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).unwrap();
    }
    while connection.tls13_tickets_received() == 0 {
        assert!(connection.read_tls(&mut socket).expect("a ticket within five seconds") > 0);
        connection.process_new_packets().unwrap();
    }
}

/// The gateway ends an unused TLS connection with a close_notify alert, because an attacker could cause a bare end (RFC
/// 8446, section 6.1).
#[test]
fn an_idle_connection_ends_with_a_notice() {
    let certificate = Certificate::of("first.test");
    let text = tls_config(&config(""), "").replacen("[server]\n", "[server]\nidle_timeout = \"3s\"\n", 1);
    let gateway = certificate.gateway(&text, &Upstream::start());
    let mut stream = Asks::new("first.test", &certificate).connect(gateway.tls());
    stream.write_all(b"GET /one HTTP/1.1\r\nhost: first.test\r\nx-api-key: good-key\r\n\r\n").unwrap();
    let (begun, mut came) = (Instant::now(), String::new());
    stream.read_to_string(&mut came).expect("a notice, not just the end");
    assert!(came.starts_with("HTTP/1.1 200 "), "{came}");
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
}

/// Bytes that a connection writes in one event loop iteration are sent together. A connection with one request takes
/// three writes: two for the handshake, and one for the response with the closing alert.
#[test]
fn an_answer_and_the_end_of_its_connection_are_one_write() {
    if !can_trace() {
        return;
    }
    let certificate = Certificate::of("first.test");
    let upstream = Upstream::start();
    let (_, folder) = certificate.gateway(&tls_config(&config(""), ""), &upstream).stop();
    let calls = folder.path().join("calls");
    let into = calls.display().to_string();
    let traced = ["strace", "-D", "-f", "-o", &into, "-e", "trace=sendto,write,writev"];
    let gateway = Gateway::restart_by(&traced, folder);
    assert!(Asks::new("first.test", &certificate).is_served(gateway.tls()));
    let _folder = gateway.stop();
    let calls = std::fs::read_to_string(calls).unwrap();
    // The first bytes of TLS records as strace prints them: of handshake records and of encrypted records.
    let writes =
        calls.lines().filter(|call| [r#""\26\3\3"#, r#""\27\3\3"#].iter().any(|begin| call.contains(begin)));
    assert_eq!(writes.count(), 3, "{calls}");
}

/// AES-256-GCM is chosen first, whatever the client prefers. An operator's own order takes precedence over that.
#[test]
fn the_cipher_is_the_first_of_the_gateways_that_a_client_offers() {
    let certificate = Certificate::of("first.test");
    let upstream = Upstream::start();
    let (all, aes) =
        ("TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384", "ECDHE+AESGCM");
    let swift = "ciphers = [\"TLS_AES_128_GCM_SHA256\", \"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256\"]";
    let start = |more: &str| {
        certificate.gateway(&tls_config(&config(""), &format!("min_version = \"1.2\"\n{more}")), &upstream)
    };
    let table = [
        ("", "-tls1_3", all, "TLS_AES_256_GCM_SHA384"),
        (
            "",
            "-tls1_3",
            "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256",
            "TLS_CHACHA20_POLY1305_SHA256",
        ),
        ("", "-tls1_3", "TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
        ("", "-tls1_2", aes, "ECDHE-ECDSA-AES256-GCM-SHA384"),
        (swift, "-tls1_3", all, "TLS_AES_128_GCM_SHA256"),
        (swift, "-tls1_3", "TLS_AES_256_GCM_SHA384", "(NONE)"),
        (swift, "-tls1_2", aes, "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ];
    for (more, version, offered, chosen) in table {
        let gateway = start(more); // one gateway at a time, because they share a folder
        let kind = if version == "-tls1_3" { "-ciphersuites" } else { "-cipher" };
        let address = gateway.tls().to_string();
        let output = std::process::Command::new("openssl")
            .args(["s_client", "-connect", &address, version, kind, offered])
            .stdin(std::process::Stdio::null())
            .output()
            .expect("openssl (Debian: openssl)");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(&format!("Cipher is {chosen}")), "{offered}: {said}");
    }
}

#[test]
fn clients_show_certificates_where_that_is_asked_for() {
    let certificate = Certificate::of("first.test");
    let authority = Authority::new();
    let own = authority.issue(&["client"]);
    certificate.put("ca", &authority.pem, "");
    let upstream = Upstream::start();
    let stranger = Certificate::of("client");
    let bare = Asks::new("first.test", &certificate);
    let known = Asks { shows: Some((&own.certificate, &own.key)), ..Asks::new("first.test", &certificate) };
    let unknown =
        Asks { shows: Some((&stranger.pem, &stranger.key)), ..Asks::new("first.test", &certificate) };
    for (choice, without) in [("required", false), ("optional", true)] {
        let more = format!("client_ca = \"ca.pem\"\nclient_certificate = \"{choice}\"");
        let gateway = certificate.gateway(&tls_config(&config(""), &more), &upstream);
        assert_eq!(bare.is_served(gateway.tls()), without, "{choice}");
        assert!(known.is_served(gateway.tls()), "{choice}");
        assert!(!unknown.is_served(gateway.tls()), "{choice}: another authority's");
    }
}

#[test]
fn mistakes_in_the_settings_are_told_with_their_place() {
    let certificate = Certificate::of("first.test");
    let upstream = Upstream::start();
    let text = tls_config(&config(""), "").replace("{upstream}", &upstream.address.to_string());
    let table = [
        ("private_key = \"cert.key\"\n", "", "`private_key` is missing beside this"),
        ("\"cert.key\"", "\"cert.pem\"", "it has no private key"),
        ("\"cert.pem\"", "\"cert.key\"", "it has no certificate"),
        ("\"cert.pem\"", "\"gone.pem\"", "gone.pem cannot be read"),
        ("[admin]", "min_version = \"1.1\"\n[admin]", "there is no TLS version `1.1`"),
        ("[admin]", "ciphers = [\"TLS_AES_256\"]\n[admin]", "there is no cipher suite `TLS_AES_256`"),
        (
            "[admin]",
            "ciphers = [\"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\"]\n[admin]",
            "no cipher suite of this list is for TLS 1.3",
        ),
        ("[admin]", "client_certificate = \"required\"\n[admin]", "`client_certificate` needs a `client_ca`"),
    ];
    for (from, to, expected) in table {
        let path = certificate.folder.path().join("config.toml");
        std::fs::write(path, text.replacen(from, to, 1)).unwrap();
        let output = crate::support::cli(certificate.folder.path(), &["check"]);
        let told =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(expected), "{expected}: {told}");
        assert!(told.contains("config.toml:"), "{told}");
    }
}

#[test]
fn a_handshake_has_the_heads_deadline() {
    let certificate = Certificate::of("first.test");
    let upstream = Upstream::start();
    let text = tls_config(&config(""), "").replacen("[server]", "[server]\nheader_timeout = \"500ms\"", 1);
    let gateway = certificate.gateway(&text, &upstream);
    for bytes in [&b""[..], b"\x16\x03\x01", b"PRI * HT"] {
        let start = Instant::now();
        let mut stream =
            TcpStream::connect(if bytes.starts_with(b"PRI") { gateway.public } else { gateway.tls() })
                .unwrap();
        stream.write_all(bytes).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert!(!matches!(stream.read(&mut [0; 64]), Ok(1..)), "nothing is said to who says nothing");
        let took = start.elapsed();
        assert!((400..1500).contains(&took.as_millis()), "{bytes:?}: {took:?}");
    }
}
