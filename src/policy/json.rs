//! Finds one value in a JSON document that arrives in pieces, without keeping the document.
//!
//! A price may be in a response body at a JSON pointer (RFC 6901). [`PointerReader`] reads that body while it
//! is forwarded. It accepts exactly the documents that serde_json accepts (RFC 8259; nested at most
//! [`MAX_DEPTH`] deep), and finds the same value as serde_json's `Value::pointer`. Its state is a few hundred
//! bytes for any document, and its work is a few instructions per byte.

mod number;
mod pointer;
mod text;

use number::Number;
pub use pointer::Pointer;
use text::{Text, TextEvent};

/// Deepest nesting of objects and arrays that is accepted; the same as serde_json's bound.
pub const MAX_DEPTH: usize = 127;
/// Longest number or string that is read at the pointer, in bytes; no valid amount is longer.
pub const MAX_FOUND: usize = 128;

/// The value at the pointer, if it is a number, a string or a boolean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// The text of a number, as in the document.
    Number(String),
    /// The content of a string, with escapes decoded.
    Text(String),
    /// `true` or `false`.
    Bool(bool),
}

/// A text that is not a JSON document, or not a whole one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON document")]
pub struct NotJson;

/// Reads a JSON document in pieces of any size, and keeps only the value at the pointer.
#[derive(Clone, Debug)]
pub struct PointerReader {
    pointer: Pointer,
    state: ParserState,
    /// One bit per open container, 1 for objects and 0 for arrays; bit 0 is the outermost container.
    objects: u128,
    /// Number of open objects and arrays.
    depth: usize,
    /// Number of open containers, from the outermost, that are on the path of the pointer.
    on_path: usize,
    /// For each array on the path, the index of its next element.
    indices: Vec<usize>,
    /// Number of bytes of the current member name that equal the pointer's next name; `None` if they differ.
    name_at: Option<usize>,
    /// True if the current or next member or element is the one that the pointer names.
    named: bool,
    /// The value at the pointer so far: bytes of a number or a string.
    kept: Vec<u8>,
    /// The type of the kept value. The last of several members with the same name counts.
    found: ScalarKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScalarKind {
    Nothing,
    Number,
    Text,
    Bool(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ParserState {
    /// A value must begin; with `or_end`, the array may end instead.
    Value {
        or_end: bool,
    },
    /// A member name must begin; with `or_end`, the object may end instead.
    Name {
        or_end: bool,
    },
    Colon,
    /// After a value: a comma or the end of the container must follow; at the top level only white space.
    After,
    /// Inside a string: a member name, the value at the pointer, or another value.
    InText(Role, Text),
    InNumber(Role, Number),
    /// Inside `true`, `false` or `null`, with the bytes that must follow.
    InLiteral(Role, &'static [u8]),
    /// The document is not valid JSON.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Name,
    Wanted,
    Other,
}

impl PointerReader {
    /// Creates a reader for one document.
    #[must_use]
    pub fn new(pointer: Pointer) -> Self {
        let indices = vec![0; pointer.0.len()];
        Self {
            pointer,
            state: ParserState::Value { or_end: false },
            objects: 0,
            depth: 0,
            on_path: 0,
            indices,
            name_at: None,
            named: true,
            kept: Vec::new(),
            found: ScalarKind::Nothing,
        }
    }

    /// A reader of another document for the same pointer.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::new(self.pointer.clone())
    }

    /// Reads the next piece.
    pub fn read(&mut self, mut bytes: &[u8]) {
        while let Some(&first) = bytes.first() {
            bytes = match self.state {
                ParserState::Broken => return,
                ParserState::InText(role, text) => self.in_text(role, text, bytes),
                ParserState::InNumber(role, number) => self.in_number(role, number, bytes),
                ParserState::InLiteral(role, left) => {
                    self.state = match left.split_first() {
                        Some((expected, [])) if *expected == first => ParserState::After,
                        Some((expected, left)) if *expected == first => ParserState::InLiteral(role, left),
                        _ => ParserState::Broken,
                    };
                    &bytes[1..]
                }
                _ if matches!(first, b' ' | b'\t' | b'\n' | b'\r') => &bytes[1..],
                _ => {
                    self.structure(first);
                    &bytes[1..]
                }
            };
        }
    }

    /// Ends the document and returns the value at the pointer. `None` if the document is incomplete or not JSON,
    /// or if the pointer does not lead to a boolean, or a number or string of at most [`MAX_FOUND`] bytes.
    #[must_use]
    pub fn finish(self) -> Option<Scalar> {
        self.end().ok().flatten()
    }

    /// As [`PointerReader::finish`], but tells documents without such a value from what is not a document.
    ///
    /// # Errors
    /// If the document is incomplete or not JSON.
    pub fn end(mut self) -> Result<Option<Scalar>, NotJson> {
        if let ParserState::InNumber(role, number) = self.state
            && number.is_whole()
        {
            self.end_number(role);
        }
        if self.state != ParserState::After || self.depth > 0 {
            return Err(NotJson);
        }
        Ok(if self.kept.len() > MAX_FOUND { None } else { self.value() })
    }

    fn value(self) -> Option<Scalar> {
        let text = String::from_utf8(self.kept).ok()?;
        match self.found {
            ScalarKind::Nothing => None,
            ScalarKind::Bool(value) => Some(Scalar::Bool(value)),
            ScalarKind::Number => Some(Scalar::Number(text)),
            ScalarKind::Text => Some(Scalar::Text(text)),
        }
    }

    fn is_object(&self) -> bool {
        self.depth > 0 && self.objects >> (self.depth - 1) & 1 == 1
    }

    /// True if the innermost open container is on the path of the pointer.
    fn is_on_path(&self) -> bool {
        self.on_path == self.depth
    }

    /// Reads a byte outside strings, numbers and literals.
    fn structure(&mut self, byte: u8) {
        match (self.state, byte) {
            (ParserState::Value { .. }, _) if self.begin_value(byte) => {}
            (ParserState::Value { or_end: true }, b']') | (ParserState::Name { or_end: true }, b'}') => {
                self.close();
            }
            (ParserState::Name { .. }, b'"') => {
                self.name_at = self.is_on_path().then_some(0);
                self.state = ParserState::InText(Role::Name, Text::default());
            }
            (ParserState::Colon, b':') => self.state = ParserState::Value { or_end: false },
            (ParserState::After, b',') if self.is_object() => {
                self.state = ParserState::Name { or_end: false }
            }
            (ParserState::After, b',') if self.depth > 0 => {
                self.state = ParserState::Value { or_end: false };
                self.next_element();
            }
            (ParserState::After, b'}') if self.is_object() => self.close(),
            (ParserState::After, b']') if self.depth > 0 && !self.is_object() => self.close(),
            _ => self.state = ParserState::Broken,
        }
    }

    /// Begins a value with this byte; false if no value begins with it.
    fn begin_value(&mut self, byte: u8) -> bool {
        let wanted = self.named && self.is_on_path() && self.depth == self.pointer.0.len();
        let role = if wanted { Role::Wanted } else { Role::Other };
        self.state = match byte {
            b'{' | b'[' => {
                self.open(byte == b'{');
                return true;
            }
            b'"' => ParserState::InText(role, Text::default()),
            b't' => self.literal(role, Some(true), b"rue"),
            b'f' => self.literal(role, Some(false), b"alse"),
            b'n' => self.literal(role, None, b"ull"),
            _ => match Number::begin(byte) {
                Some(number) => {
                    self.keep(role, &[byte]);
                    ParserState::InNumber(role, number)
                }
                None => return false,
            },
        };
        true
    }

    /// Begins a literal, of which these bytes must follow.
    fn literal(&mut self, role: Role, value: Option<bool>, rest: &'static [u8]) -> ParserState {
        if let (Role::Wanted, Some(value)) = (role, value) {
            self.found = ScalarKind::Bool(value);
        }
        ParserState::InLiteral(role, rest)
    }

    fn open(&mut self, object: bool) {
        if self.depth == MAX_DEPTH {
            self.state = ParserState::Broken;
            return;
        }
        let leads_on = self.named && self.is_on_path() && self.depth < self.pointer.0.len();
        self.objects = self.objects & !(1 << self.depth) | u128::from(object) << self.depth;
        self.depth += 1;
        self.on_path += usize::from(leads_on);
        if object {
            self.state = ParserState::Name { or_end: true };
        } else {
            self.state = ParserState::Value { or_end: true };
            if self.is_on_path() {
                self.indices[self.depth - 1] = 0;
            }
            self.next_element();
        }
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.on_path = self.on_path.min(self.depth);
        self.state = ParserState::After;
    }

    /// Sets `named` for the next element of the innermost array, and advances its index.
    fn next_element(&mut self) {
        if !self.is_on_path() {
            return;
        }
        let at = self.depth - 1;
        self.named = self.pointer.0[at].index == Some(self.indices[at]);
        self.indices[at] += 1;
    }

    fn in_text<'a>(&mut self, role: Role, mut text: Text, bytes: &'a [u8]) -> &'a [u8] {
        let (event, rest) = text.read(bytes);
        self.state = ParserState::InText(role, text);
        match (event, role) {
            (TextEvent::Part(part), Role::Name) => self.compare(part),
            (TextEvent::Character(character), Role::Name) => {
                self.compare(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            (TextEvent::Part(part), _) => self.keep(role, part),
            (TextEvent::Character(character), _) => {
                self.keep(role, character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            (TextEvent::More, _) => {}
            (TextEvent::End, Role::Name) => self.end_name(),
            (TextEvent::End, role) => {
                if role == Role::Wanted {
                    self.found = ScalarKind::Text;
                }
                self.state = ParserState::After;
            }
            (TextEvent::Broken, _) => self.state = ParserState::Broken,
        }
        rest
    }

    /// Compares a part of a member name with the name in the pointer.
    fn compare(&mut self, part: &[u8]) {
        let Some(at) = self.name_at else { return };
        let name = self.pointer.0[self.depth - 1].name.as_bytes();
        let equal = name.get(at..at + part.len()) == Some(part);
        self.name_at = equal.then_some(at + part.len());
    }

    fn end_name(&mut self) {
        self.state = ParserState::Colon;
        if self.is_on_path() {
            self.named = self.name_at == Some(self.pointer.0[self.depth - 1].name.len());
            if self.named {
                // The last of several members with the same name counts, so an earlier value is dropped.
                (self.found, self.kept) = (ScalarKind::Nothing, Vec::new());
            }
        }
    }

    fn in_number<'a>(&mut self, role: Role, mut number: Number, bytes: &'a [u8]) -> &'a [u8] {
        let length = number.read(bytes);
        self.keep(role, &bytes[..length]);
        self.state = ParserState::InNumber(role, number);
        if length < bytes.len() {
            match number.is_whole() {
                true => self.end_number(role),
                false => self.state = ParserState::Broken,
            }
        }
        &bytes[length..]
    }

    fn end_number(&mut self, role: Role) {
        if role == Role::Wanted {
            self.found = ScalarKind::Number;
        }
        self.state = ParserState::After;
    }

    /// Keeps bytes of the value at the pointer, at most [`MAX_FOUND`] + 1: the extra byte tells
    /// [`PointerReader::finish`] that the value is too long.
    fn keep(&mut self, role: Role, bytes: &[u8]) {
        if role == Role::Wanted {
            let room = (MAX_FOUND + 1).saturating_sub(self.kept.len());
            self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }
}

#[cfg(test)]
mod tests;
