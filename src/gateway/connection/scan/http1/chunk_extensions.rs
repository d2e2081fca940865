//! Checks chunk extensions (RFC 9112, section 7.1.1). hyper accepts any bytes there: a parser that ends
//! the line elsewhere could find a smuggled request in them.

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// True if the bytes after a chunk's size are well-formed extensions (RFC 9112, section 7.1.1).
pub(super) fn are_extensions(mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        let Some(named) = trim_start(rest).strip_prefix(b";") else { return false };
        let named = trim_start(named);
        let name = named.iter().take_while(|byte| is_token(byte)).count();
        let after = trim_start(&named[name..]);
        rest = &named[name..];
        if let Some(value) = after.strip_prefix(b"=") {
            let value = trim_start(value);
            let length = match value {
                [b'"', ..] => quoted(value),
                _ => value.iter().take_while(|byte| is_token(byte)).count(),
            };
            if length == 0 {
                return false;
            }
            rest = &value[length..];
        }
        if name == 0 {
            return false;
        }
    }
    true
}

/// The length of the quoted string that starts here; 0 if it is malformed.
fn quoted(text: &[u8]) -> usize {
    let mut escaped = false;
    for (at, &byte) in text.iter().enumerate().skip(1) {
        match byte {
            _ if byte != b'\t' && byte.is_ascii_control() => return 0,
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    0
}

/// Trims leading spaces and tabs.
pub(super) fn trim_start(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_have_a_name_and_an_optional_value() {
        let good = ["", ";a", " ; a = b;c", ";a=\"x;\\\"y\"", ";a=b;c=\"\""];
        for text in good {
            assert!(are_extensions(text.as_bytes()), "{text}");
        }
        let bad = [" ", ";", "; ", ";=b", ";a=", ";a[=x", ";a=\"", ";a=\"\\\"", "x", ";a b", ";a=\"\r\""];
        for text in bad {
            assert!(!are_extensions(text.as_bytes()), "{text}");
        }
    }
}
