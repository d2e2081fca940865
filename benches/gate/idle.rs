//! Measures the memory of an idle connection that served one request, for each protocol.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::gateway::{Door, Gateway, KEY};

/// Prints the memory per additional connection between two numbers of connections, for each protocol.
pub fn run(upstream: SocketAddr, counts: [usize; 2], settle: Duration) {
    println!("\nbytes of memory per idle connection, between {} and {}", counts[0], counts[1]);
    for (name, door, http2) in [
        ("HTTP/1.1", Door::Plain, false),
        ("TLS", Door::Tls, false),
        ("HTTP/2", Door::Plain, true),
        ("HTTP/2 over TLS", Door::Tls, true),
    ] {
        let gateway = Gateway::start(upstream, door, "idle_timeout = \"600s\"", "");
        let tls = (door == Door::Tls).then(|| client_config(gateway.folder.path(), http2));
        let mut open: Vec<Box<dyn ReadWrite>> = Vec::new();
        let memory = counts.map(|count| {
            while open.len() < count {
                open.push(idle(gateway.address, tls.as_ref(), http2));
            }
            std::thread::sleep(settle);
            gateway.resident()
        });
        println!("{name:>16} {:>7.0}", (memory[1] - memory[0]) / (counts[1] - counts[0]) as f64);
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

fn client_config(folder: &Path, http2: bool) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(folder.join("cert.pem")).expect("a certificate");
    roots.add(certificate).expect("an authority");
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    if http2 {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    Arc::new(config)
}

fn idle(address: SocketAddr, tls: Option<&Arc<ClientConfig>>, http2: bool) -> Box<dyn ReadWrite> {
    let stream = TcpStream::connect(address).expect("a connection");
    let mut stream: Box<dyn ReadWrite> = match tls {
        None => Box::new(stream),
        Some(config) => {
            let name = ServerName::try_from("localhost").expect("a name");
            let session = ClientConnection::new(Arc::clone(config), name).expect("a session");
            Box::new(StreamOwned::new(session, stream))
        }
    };
    let request = match http2 {
        false => format!("GET /one HTTP/1.1\r\nhost: a\r\nx-api-key: {KEY}\r\n\r\n").into_bytes(),
        true => http2_request(),
    };
    stream.write_all(&request).expect("a sent request");
    let (mut came, mut buffer) = (Vec::new(), [0; 4096]);
    while !came.windows(2).any(|piece| piece == b"{}") {
        let count = stream.read(&mut buffer).expect("a response");
        assert!(count > 0, "the gateway closed a good connection");
        came.extend_from_slice(&buffer[..count]);
    }
    stream
}

/// The connection preface, an empty SETTINGS frame, and a request of literal fields (RFC 9113, RFC 7541).
fn http2_request() -> Vec<u8> {
    let fields =
        [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/one"), ("x-api-key", KEY)];
    let mut head = Vec::new();
    for (name, value) in fields {
        head.push(0x10);
        for text in [name, value] {
            head.push(u8::try_from(text.len()).expect("a short text"));
            head.extend(text.as_bytes());
        }
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    bytes.extend([0, 0, u8::try_from(head.len()).expect("a short head"), 1, 5, 0, 0, 0, 1]);
    bytes.extend(head);
    bytes
}
