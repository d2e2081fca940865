//! The server behind the gateways: the bench's own binary, run again with [`ARGUMENT`].
//!
//! Answers every head with the same 200 bytes of JSON and understands nothing else, so that it
//! costs as little of the load's core as it can.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Result;
use crate::process::{self, Running};

pub const ARGUMENT: &str = "--upstream";
pub const BODY_LENGTH: usize = 200;
const BUFFER: usize = 16 * 1024;
const END: &[u8; 4] = b"\r\n\r\n";

/// A running upstream.
pub struct Upstream {
    pub port: u16,
    /// Its standard input, held here, ends when the bench does.
    _process: Running,
}

impl Upstream {
    pub fn start(core: Option<usize>) -> Result<Self> {
        let mut command = process::command(&std::env::current_exe()?, core);
        let mut process = Running::start(command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let output = process.child().stdout.take().ok_or("the upstream has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let port = line.trim().parse().map_err(|_| "the upstream does not say its port")?;
        Ok(Self { port, _process: process })
    }
}

/// Serves until standard input ends.
pub fn run() -> Result<()> {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("{}", listener.local_addr()?.port());
        std::io::stdout().flush()?;
        let answer: &'static [u8] = answer().leak();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(serve(stream, answer));
        }
    })
}

fn answer() -> Vec<u8> {
    let start = r#"{"status":"ok","person":{"name":"Ada Lovelace","email":"ada@example.com"},"note":""#;
    let filler = "x".repeat(BODY_LENGTH - start.len() - 2);
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {BODY_LENGTH}\r\n\r\n{start}{filler}\"}}")
        .into_bytes()
}

async fn serve(mut stream: TcpStream, answer: &'static [u8]) {
    let (mut buffer, mut answers) = (vec![0; BUFFER], Vec::new());
    let mut seen = 0;
    loop {
        let Ok(length @ 1..) = stream.read(&mut buffer).await else { return };
        answers.clear();
        for &byte in &buffer[..length] {
            // How much of the end of a head the bytes so far end with.
            seen = if byte == END[seen] { seen + 1 } else { usize::from(byte == b'\r') };
            if seen == END.len() {
                (seen, _) = (0, answers.extend_from_slice(answer));
            }
        }
        if stream.write_all(&answers).await.is_err() {
            return;
        }
    }
}
