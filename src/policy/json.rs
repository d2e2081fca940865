//! Finds one value in a JSON document that arrives in pieces, without keeping the document.
//!
//! A price may stand in a response body at a JSON pointer (RFC 6901). [`PointerReader`] reads that body
//! as it passes: it accepts exactly the documents that serde_json accepts (RFC 8259; nested at most
//! [`MAX_DEPTH`] deep), and finds what serde_json's `Value::pointer` finds in them. Its state is some
//! hundred bytes whatever the document holds, and its work is a few instructions per byte.

mod number;
mod text;

use std::fmt;
use std::sync::Arc;

use number::Number;
use text::{Text, TextEvent};

/// Deepest nesting of objects and arrays that is read; serde_json's own bound.
pub const MAX_DEPTH: usize = 127;
/// Longest number or string that is kept where the pointer leads, in bytes; no amount is longer.
pub const MAX_FOUND: usize = 128;

/// A JSON pointer (RFC 6901), taken apart. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Pointer(Arc<[Segment]>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    /// The name of an object's member.
    name: String,
    /// The index of an array's element, where the name is one.
    index: Option<usize>,
}

impl Pointer {
    /// Parses `/a/0/b`; `~1` stands for `/`, and `~0` for `~`. `None` where it does not begin with `/`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let segments = text.strip_prefix('/')?.split('/').map(|token| {
            let name = token.replace("~1", "/").replace("~0", "~");
            let plain = !name.starts_with('+') && (name == "0" || !name.starts_with('0'));
            let index = name.parse().ok().filter(|_| plain);
            Segment { name, index }
        });
        Some(Self(segments.collect()))
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = |segment: &Segment| segment.name.replace('~', "~0").replace('/', "~1");
        self.0.iter().try_for_each(|segment| write!(out, "/{}", escaped(segment)))
    }
}

impl fmt::Debug for Pointer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", self.to_string())
    }
}

/// What stands where the pointer leads, where an amount can be read from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A number, as it is written.
    Number(String),
    /// A string, decoded.
    Text(String),
}

/// Reads a document in pieces of any size.
#[derive(Clone, Debug)]
pub struct PointerReader {
    pointer: Pointer,
    state: State,
    /// Whether each open container is an object; bit 0 is the outermost.
    objects: u128,
    /// How many containers are open.
    depth: usize,
    /// How many of them, from the outermost, the pointer leads through.
    on_path: usize,
    /// Which element comes next, for each array on the path.
    indices: Vec<usize>,
    /// How much of the pointer's next name the member's name equals so far; `None` where it differs.
    name_at: Option<usize>,
    /// Whether the member or element that comes next is the one that the pointer names.
    named: bool,
    /// The value at the pointer: bytes of a number or a string.
    kept: Vec<u8>,
    /// What they are; the last of several members with the same name counts.
    found: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nothing,
    Number,
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A value begins; in an empty array, its end is allowed too.
    Value {
        or_end: bool,
    },
    /// A member's name begins; in an empty object, its end is allowed too.
    Name {
        or_end: bool,
    },
    Colon,
    /// Behind a value: a comma or the container's end, and nothing but white space at the top.
    After,
    /// In a string: a member's name, the value at the pointer, or another one.
    InText(Role, Text),
    InNumber(Role, Number),
    /// In `true`, `false` or `null`: what is left of it.
    InLiteral(&'static [u8]),
    /// This is not JSON.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Name,
    Wanted,
    Other,
}

impl PointerReader {
    /// Begins a document.
    #[must_use]
    pub fn new(pointer: Pointer) -> Self {
        let indices = vec![0; pointer.0.len()];
        Self {
            pointer,
            state: State::Value { or_end: false },
            objects: 0,
            depth: 0,
            on_path: 0,
            indices,
            name_at: None,
            named: true,
            kept: Vec::new(),
            found: Kind::Nothing,
        }
    }

    /// Reads the next piece.
    pub fn read(&mut self, mut bytes: &[u8]) {
        while let Some(&first) = bytes.first() {
            bytes = match self.state {
                State::Broken => return,
                State::InText(role, text) => self.in_text(role, text, bytes),
                State::InNumber(role, number) => self.in_number(role, number, bytes),
                State::InLiteral(left) => {
                    self.state = match left.split_first() {
                        Some((expected, [])) if *expected == first => State::After,
                        Some((expected, left)) if *expected == first => State::InLiteral(left),
                        _ => State::Broken,
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

    /// What stands at the pointer, once the document is whole; `None` where it is no JSON, where nothing
    /// stands there, or no number and no string of at most [`MAX_FOUND`] bytes.
    #[must_use]
    pub fn finish(mut self) -> Option<Found> {
        if let State::InNumber(role, number) = self.state
            && number.is_whole()
        {
            self.end_number(role);
        }
        if self.state != State::After || self.depth > 0 || self.kept.len() > MAX_FOUND {
            return None;
        }
        let text = String::from_utf8(self.kept).ok()?;
        match self.found {
            Kind::Nothing => None,
            Kind::Number => Some(Found::Number(text)),
            Kind::Text => Some(Found::Text(text)),
        }
    }

    fn is_object(&self) -> bool {
        self.depth > 0 && self.objects >> (self.depth - 1) & 1 == 1
    }

    /// Whether the pointer leads through the innermost open container.
    fn is_on_path(&self) -> bool {
        self.on_path == self.depth
    }

    /// A byte outside strings, numbers and literals.
    fn structure(&mut self, byte: u8) {
        match (self.state, byte) {
            (State::Value { .. }, _) if self.begin_value(byte) => {}
            (State::Value { or_end: true }, b']') | (State::Name { or_end: true }, b'}') => self.close(),
            (State::Name { .. }, b'"') => {
                self.name_at = self.is_on_path().then_some(0);
                self.state = State::InText(Role::Name, Text::default());
            }
            (State::Colon, b':') => self.state = State::Value { or_end: false },
            (State::After, b',') if self.is_object() => self.state = State::Name { or_end: false },
            (State::After, b',') if self.depth > 0 => {
                self.state = State::Value { or_end: false };
                self.next_element();
            }
            (State::After, b'}') if self.is_object() => self.close(),
            (State::After, b']') if self.depth > 0 && !self.is_object() => self.close(),
            _ => self.state = State::Broken,
        }
    }

    /// Whether a value begins with this byte.
    fn begin_value(&mut self, byte: u8) -> bool {
        let wanted = self.named && self.is_on_path() && self.depth == self.pointer.0.len();
        let role = if wanted { Role::Wanted } else { Role::Other };
        self.state = match byte {
            b'{' | b'[' => {
                self.open(byte == b'{');
                return true;
            }
            b'"' => State::InText(role, Text::default()),
            b't' => State::InLiteral(b"rue"),
            b'f' => State::InLiteral(b"alse"),
            b'n' => State::InLiteral(b"ull"),
            _ => match Number::begin(byte) {
                Some(number) => {
                    self.keep(role, &[byte]);
                    State::InNumber(role, number)
                }
                None => return false,
            },
        };
        true
    }

    fn open(&mut self, object: bool) {
        if self.depth == MAX_DEPTH {
            self.state = State::Broken;
            return;
        }
        let leads_on = self.named && self.is_on_path() && self.depth < self.pointer.0.len();
        self.objects = self.objects & !(1 << self.depth) | u128::from(object) << self.depth;
        self.depth += 1;
        self.on_path += usize::from(leads_on);
        if object {
            self.state = State::Name { or_end: true };
        } else {
            self.state = State::Value { or_end: true };
            if self.is_on_path() {
                self.indices[self.depth - 1] = 0;
            }
            self.next_element();
        }
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.on_path = self.on_path.min(self.depth);
        self.state = State::After;
    }

    /// An element of an array may begin: whether it is the one that the pointer names.
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
        self.state = State::InText(role, text);
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
                    self.found = Kind::Text;
                }
                self.state = State::After;
            }
            (TextEvent::Broken, _) => self.state = State::Broken,
        }
        rest
    }

    /// Compares a part of a member's name with what the pointer names.
    fn compare(&mut self, part: &[u8]) {
        let Some(at) = self.name_at else { return };
        let name = self.pointer.0[self.depth - 1].name.as_bytes();
        let equal = name.get(at..at + part.len()) == Some(part);
        self.name_at = equal.then_some(at + part.len());
    }

    fn end_name(&mut self) {
        self.state = State::Colon;
        if self.is_on_path() {
            self.named = self.name_at == Some(self.pointer.0[self.depth - 1].name.len());
            if self.named {
                // Of members with the same name the last one counts, whatever stood in the others.
                (self.found, self.kept) = (Kind::Nothing, Vec::new());
            }
        }
    }

    fn in_number<'a>(&mut self, role: Role, mut number: Number, bytes: &'a [u8]) -> &'a [u8] {
        let length = number.read(bytes);
        self.keep(role, &bytes[..length]);
        self.state = State::InNumber(role, number);
        if length < bytes.len() {
            match number.is_whole() {
                true => self.end_number(role),
                false => self.state = State::Broken,
            }
        }
        &bytes[length..]
    }

    fn end_number(&mut self, role: Role) {
        if role == Role::Wanted {
            self.found = Kind::Number;
        }
        self.state = State::After;
    }

    /// Keeps bytes of the wanted value, and one too many where it is too long.
    fn keep(&mut self, role: Role, bytes: &[u8]) {
        if role == Role::Wanted {
            let room = (MAX_FOUND + 1).saturating_sub(self.kept.len());
            self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }
}

#[cfg(test)]
mod tests;
