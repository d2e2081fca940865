//! One case of the corpus.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tollgate::types::KeyHash;

/// The keys of the gateway under test. The corpus depends on their lengths.
pub const KEY: &str = "kEy4aB7";
pub const KEY2: &str = "kEy4aB72";

pub struct Case {
    pub id: String,
    pub expect: String,
    pub max_upstream: usize,
    pub bytes: Vec<u8>,
    pub then: Vec<Vec<u8>>,
    /// In a flood: how many times `repeated` follows.
    pub repeat: usize,
    pub repeated: Vec<u8>,
}

impl Case {
    pub fn read(line: &Value) -> Self {
        let decoded = |value: &Value| fill(&STANDARD.decode(value.as_str().unwrap_or_default()).unwrap());
        let then = line["then_base64"].as_array().map(|then| then.iter().map(decoded).collect());
        Self {
            id: line["id"].as_str().unwrap().to_owned(),
            expect: line["expect"].as_str().unwrap().to_owned(),
            max_upstream: line["max_upstream"].as_u64().unwrap_or(1) as usize,
            bytes: decoded(&line["raw_base64"]),
            then: then.unwrap_or_default(),
            repeat: line["repeat"].as_u64().unwrap_or_default() as usize,
            repeated: decoded(&line["repeat_base64"]),
        }
    }
}

/// Replaces placeholders by keys, and by texts that resemble keys.
fn fill(bytes: &[u8]) -> Vec<u8> {
    let hash = KeyHash::of(KEY.as_bytes());
    let wide: String = KEY.chars().map(|c| char::from_u32(c as u32 + 0xfee0).unwrap()).collect();
    let percent: String = KEY.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let table = [
        ("@@KEY@@", KEY.to_owned()),
        ("@@KEY2@@", KEY2.to_owned()),
        ("@@BAD@@", "nO-such-kEy".to_owned()),
        ("@@KEYHEAD@@", KEY[..3].to_owned()),
        ("@@KEYTAIL@@", KEY[3..].to_owned()),
        ("@@SHA256HEX@@", hash.to_hex()),
        ("@@SHA256HEXUP@@", hash.to_hex().to_uppercase()),
        ("@@SHA256B64@@", STANDARD.encode(hash.0)),
        ("@@KEYUPPER@@", KEY.to_uppercase()),
        ("@@KEYLOWER@@", KEY.to_lowercase()),
        ("@@KEYB64@@", STANDARD.encode(KEY)),
        ("@@KEYPCT@@", percent),
        ("@@KEYFULLWIDTH@@", wide),
        ("@@KEYREV@@", KEY.chars().rev().collect()),
    ];
    let mut filled = Vec::new();
    let mut rest = bytes;
    'bytes: while let Some(&byte) = rest.first() {
        for (mark, value) in &table {
            if let Some(after) = rest.strip_prefix(mark.as_bytes()) {
                filled.extend_from_slice(value.as_bytes());
                rest = after;
                continue 'bytes;
            }
        }
        filled.push(byte);
        rest = &rest[1..];
    }
    filled
}
