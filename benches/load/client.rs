//! Just enough of a client to see whether a peer answers as it should.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use crate::Result;

const PATIENCE: Duration = Duration::from_secs(2);
const MAX_ANSWER: usize = 64 * 1024;

/// One GET on a connection of its own: status and body.
pub fn get(port: u16, path: &str, key: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nx-api-key: {key}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER as u64).read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("an answer without an end")?;
    let status = head.split(' ').nth(1).ok_or("an answer without a status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// What the account of a key has left, in whole credits.
pub fn balance(port: u16, key: &str) -> Result<u64> {
    let (status, body) = get(port, "/account/info", key)?;
    if status != 200 {
        return Err(format!("/account/info answers {status}: {body}").into());
    }
    let document: serde_json::Value = serde_json::from_str(&body)?;
    Ok(document["credits"].as_u64().ok_or("a balance that is not whole")?)
}
