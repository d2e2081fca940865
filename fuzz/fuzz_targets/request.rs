//! Fuzzes the bytes of a whole connection through the gateway, to an upstream that accepts only well-formed requests.
//! Nothing malformed may arrive there, and every request must carry exactly one request id, made by the gateway.
//!
//! The gateway is the real one, in this process, with its ledger in memory. The sockets use the loopback interface.
#![no_main]

#[path = "../../tests/corpora/upstream.rs"]
mod upstream;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tollgate::app::App;
use tollgate::clock::Clock;
use tollgate::ledger::memory::MemoryStore;
use upstream::Upstream;

const CONFIG: &str = r#"
[server]
listen = ["127.0.0.1:0"]
threads = 1
[admin]
listen = "127.0.0.1:0"
[log]
requests = false
[upstreams.u]
servers = ["http://UPSTREAM"]
[[routes]]
name = "all"
path = "/{*rest}"
upstream = "u"
public = true
"#;

static WORLD: LazyLock<(Upstream, SocketAddr)> = LazyLock::new(|| {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().unwrap().keep();
    let path = folder.join("config.toml");
    std::fs::write(&path, CONFIG.replace("UPSTREAM", &upstream.address.to_string())).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let loaded = tollgate::config::load(&path).unwrap_or_else(|report| panic!("{report}"));
            let storage = MemoryStore::default().storage();
            let app = App::start_with(storage, &path, loaded, Clock::system(), None).await.unwrap();
            tell.send(app.public[0].address).unwrap();
            app.run().await.unwrap();
        });
    });
    (upstream, told.recv().unwrap())
});

fuzz_target!(|bytes: &[u8]| {
    let (upstream, address) = &*WORLD;
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let _ = stream.write_all(bytes); // the gateway may have closed the connection already
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
    let mut ids = Vec::new();
    for seen in upstream.take() {
        assert_eq!(seen.fault, None, "{}", seen.line);
        let [id] = seen.values("x-request-id")[..] else { panic!("no single id: {seen:?}") };
        assert!(id.starts_with("req_"));
        ids.push(id.to_owned());
    }
    let count = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), count, "an id came twice");
});
