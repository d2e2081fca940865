//! Starts nginx as the upstream behind the gateways, with a little Lua for slow responses.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;

use crate::Result;
use crate::process::{self, Running};

/// The path that responds with 200 bytes of JSON, immediately.
pub const ENRICH: &str = "/people/enrich";
/// The path that responds with 1 MiB, immediately.
pub const EXPORT: &str = "/people/export";
/// The path that responds with [`EVENT_COUNT`] events, one every 10 ms.
pub const EVENTS: &str = "/people/events";
/// The path that responds as [`ENRICH`] does, after 20 ms.
pub const SLOW: &str = "/people/slow";
pub const BODY_LENGTH: usize = 200;
pub const EXPORT_LENGTH: usize = 1024 * 1024;
pub const EVENT_COUNT: u64 = 100;
/// The folder where Debian's packages install nginx's modules.
const MODULES: &str = "/usr/lib/nginx/modules";
/// Maximum number of checks whether nginx has started, [`PAUSE`] apart.
const TRIES: usize = 500;
const PAUSE: Duration = Duration::from_millis(10);

/// The ports of the upstream.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub plain: u16,
    pub tls: u16,
    /// Two more without TLS.
    pub more: [u16; 2],
}

/// The name in the upstream's certificate.
pub const NAME: &str = "upstream.test";

/// A running upstream.
pub struct Upstream {
    pub ports: Ports,
    /// The file with its certificate, which is also the authority that issued it.
    pub certificate: PathBuf,
    _process: Running,
    _folder: TempDir,
}

/// The configuration lines that load nginx's Lua modules.
pub fn lua_modules() -> Result<String> {
    let module = |name: &str| format!("{MODULES}/{name}_module.so");
    if !Path::new(&module("ngx_http_lua")).exists() {
        return Err("nginx's Lua module is not installed (Debian: libnginx-mod-http-lua)".into());
    }
    let modules = ["ndk_http", "ngx_http_lua"].map(module).into_iter();
    Ok(modules.filter(|file| Path::new(file).exists()).map(|file| format!("load_module {file};\n")).collect())
}

/// The path of nginx, or the reason why the bench cannot run.
pub fn program() -> Result<PathBuf> {
    lua_modules()?;
    process::find("nginx").ok_or_else(|| "nginx is not installed".into())
}

impl Upstream {
    pub fn start(core: Option<usize>) -> Result<Self> {
        let (folder, free) = (tempfile::tempdir()?, process::free_port);
        let ports = Ports { plain: free()?, tls: free()?, more: [free()?, free()?] };
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()])?;
        let certificate = folder.path().join("cert.pem");
        fs::write(&certificate, made.cert.pem())?;
        fs::write(folder.path().join("cert.key"), made.signing_key.serialize_pem())?;
        fs::write(folder.path().join("export"), "x".repeat(EXPORT_LENGTH))?;
        let file = folder.path().join("nginx.conf");
        fs::write(&file, configuration(folder.path(), ports)?)?;
        let mut command = process::command(&program()?, core);
        command.arg("-c").arg(file).args(["-q", "-e", "stderr"]).stdin(Stdio::null());
        let mut process = Running::start(&mut command)?;
        for _ in 0..TRIES {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, ports.plain)).is_ok() {
                return Ok(Self { ports, certificate, _process: process, _folder: folder });
            }
            if process.has_ended() {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        Err("the upstream does not start".into())
    }
}

/// An nginx configuration of one process, with the content of its `http` block.
pub fn nginx_configuration(folder: &Path, modules: &str, http: &str) -> String {
    let folder = folder.display();
    format!(
        r"
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
{modules}
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{http}
}}
"
    )
}

fn configuration(folder: &Path, ports: Ports) -> Result<String> {
    let Ports { plain, tls, more: [second, third] } = ports;
    let start = r#"{"status":"ok","person":{"name":"Ada Lovelace","email":"ada@example.com"},"note":""#;
    let enrich = format!("{start}{}\"}}", "x".repeat(BODY_LENGTH - start.len() - 2));
    let http = format!(
        r#"
    default_type application/json;
    server {{
        listen 127.0.0.1:{plain} backlog=4096;
        listen 127.0.0.1:{second} backlog=4096;
        listen 127.0.0.1:{third} backlog=4096;
        listen 127.0.0.1:{tls} ssl backlog=4096;
        ssl_certificate {folder}/cert.pem;
        ssl_certificate_key {folder}/cert.key;
        ssl_protocols TLSv1.3;
        location = {ENRICH} {{ return 200 '{enrich}'; }}
        location = {EXPORT} {{ alias {export}; }}
        location = {SLOW} {{
            content_by_lua_block {{
                ngx.sleep(0.02)
                ngx.header.content_length = {BODY_LENGTH}
                ngx.print('{enrich}')
            }}
        }}
        location = {EVENTS} {{
            default_type text/event-stream;
            content_by_lua_block {{
                for _ = 1, {EVENT_COUNT} do
                    ngx.sleep(0.01)
                    ngx.print('data: {{"status":"ok","person":"Ada Lovelace"}}\n\n')
                    ngx.flush(true)
                end
            }}
        }}
    }}
"#,
        export = folder.join("export").display(),
        folder = folder.display()
    );
    Ok(nginx_configuration(folder, &lua_modules()?, &http))
}
