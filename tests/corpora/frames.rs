//! Reads and writes HTTP/2 frames, as far as the tests need them.

/// The responses and errors that a client received.
#[derive(Debug, Default)]
pub struct Told {
    /// For each response, true if its status is 200.
    pub answered: Vec<bool>,
    /// Error codes of RST_STREAM frames.
    pub resets: Vec<u32>,
    /// Error codes of GOAWAY frames.
    pub goaways: Vec<u32>,
}

/// `:status: 200` in HPACK (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;

pub fn read(mut bytes: &[u8]) -> Told {
    let mut told = Told::default();
    while let [high, middle, low, kind, _, _, _, _, _, rest @ ..] = bytes {
        let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
        let payload = &rest[..length.min(rest.len())];
        let code =
            |at: usize| payload.get(at..at + 4).map(|code| u32::from_be_bytes(code.try_into().unwrap()));
        match kind {
            1 => told.answered.push(payload.first() == Some(&STATUS_200)),
            3 => told.resets.extend(code(0)),
            7 => told.goaways.extend(code(4)),
            _ => {}
        }
        bytes = &rest[payload.len()..];
    }
    told
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block of literal fields.
pub fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0x10);
        for text in [name, value] {
            // A length below 127 takes one byte; a longer one continues in further bytes (RFC 7541, section 5.1).
            match text.len().checked_sub(127) {
                None => block.push(text.len() as u8),
                Some(more) => {
                    assert!(more < 128 * 128);
                    block.extend([127, (more % 128) as u8 | 128, (more / 128) as u8]);
                }
            }
            block.extend(text.as_bytes());
        }
    }
    block
}
