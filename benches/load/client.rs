//! A minimal HTTP client that checks whether a gateway responds correctly.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use crate::Result;
use crate::answer::Answer;

/// Read timeout. An event stream takes a second, and everything takes longer under valgrind.
const PATIENCE: Duration = Duration::from_secs(10);
const BUFFER: usize = 64 * 1024;

/// The text of a request before and after its key.
pub fn around(path: &str, port: u16, body: usize) -> (String, String) {
    let (method, length) = match body {
        0 => ("GET", String::new()),
        body => ("POST", format!("Content-Type: application/json\r\nContent-Length: {body}\r\n")),
    };
    let before = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nx-api-key: ");
    (before, format!("\r\n{length}\r\n{}", "x".repeat(body)))
}

/// Sends one request on its own connection and reads the response.
pub fn ask(port: u16, path: &str, key: &str, body: usize) -> Result<Answer> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (before, after) = around(path, port, body);
    stream.write_all(format!("{before}{key}{after}").as_bytes())?;
    let (mut answer, mut buffer) = (Answer::new(true), vec![0; BUFFER]);
    while !answer.is_done() {
        match stream.read(&mut buffer)? {
            0 => return Err("the connection ended within an answer".into()),
            length => answer.feed(&buffer[..length])?,
        }
    }
    Ok(answer)
}

/// The balance of a key's account, in whole credits.
pub fn balance(port: u16, key: &str) -> Result<u64> {
    let answer = ask(port, "/account/info", key, 0)?;
    if answer.status != 200 {
        return Err(format!("/account/info answers {}", answer.status).into());
    }
    let document: serde_json::Value = serde_json::from_slice(&answer.kept.unwrap_or_default())?;
    Ok(document["credits"].as_u64().ok_or("a balance that is not whole")?)
}
