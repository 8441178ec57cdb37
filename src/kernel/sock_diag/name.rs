//! Names of unix(7) sockets.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// What a unix socket is bound to. Bytes, for the kernel asks for no encoding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnixName<'a> {
    /// A path as bind(2) was given it: perhaps relative, perhaps since unlinked.
    Path(Cow<'a, [u8]>),
    /// A name in the abstract namespace, without the zero byte that leads it.
    Abstract(Cow<'a, [u8]>),
}

impl<'a> UnixName<'a> {
    /// Parses the name in a socket address, as UNIX_DIAG_NAME gives it.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        match bytes.split_first()? {
            (0, name) => Some(Self::Abstract(name.into())),
            _ => Some(Self::Path(bytes.strip_suffix(b"\0").unwrap_or(bytes).into())),
        }
    }

    /// The same name, owned.
    #[must_use]
    pub fn into_owned(self) -> UnixName<'static> {
        match self {
            Self::Path(bytes) => UnixName::Path(bytes.into_owned().into()),
            Self::Abstract(bytes) => UnixName::Abstract(bytes.into_owned().into()),
        }
    }

    /// The bytes of the name, without what tells the kinds apart.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Path(bytes) | Self::Abstract(bytes) => bytes,
        }
    }
}

/// An abstract name with a leading `@`, as ss(8) has it. Control characters, those that
/// turn the direction of text, backslashes and bytes that are no UTF-8 are escaped, and
/// so is an `@` that begins a path.
impl fmt::Display for UnixName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abstract(bytes) => {
                f.write_char('@')?;
                escape(bytes, f)
            }
            Self::Path(bytes) => match bytes.split_first() {
                Some((b'@', rest)) => {
                    f.write_str("\\x40")?;
                    escape(rest, f)
                }
                _ => escape(bytes, f),
            },
        }
    }
}

/// Writes bytes that anyone may have chosen so that they cannot disturb a terminal.
pub(crate) fn escape(bytes: &[u8], to: &mut impl Write) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => to.write_str("\\\\")?,
                _ if c.is_ascii_control() => write!(to, "\\x{:02x}", u32::from(c))?,
                _ if c.is_control() || turns_text(c) => {
                    write!(to, "{}", c.escape_unicode())?;
                }
                _ => to.write_char(c)?,
            }
        }
        for byte in chunk.invalid() {
            write!(to, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

/// Line separators and the characters that reorder what follows them.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(bytes: &[u8]) -> String {
        UnixName::parse(bytes).unwrap().to_string()
    }

    #[test]
    fn abstract_names_paths_and_oddities_are_told_apart() {
        assert_eq!(shown(b"/run/a.sock\0"), "/run/a.sock");
        assert_eq!(shown(b"\0name"), "@name");
        assert_eq!(shown(b"@name\0"), "\\x40name");
        assert_eq!(shown(b"\0a\0b"), "@a\\x00b");
        assert_eq!(shown(b"/a\x1b[2J\n\0"), "/a\\x1b[2J\\x0a");
        assert_eq!(shown("/a\u{202e}b\0".as_bytes()), "/a\\u{202e}b");
        assert_eq!(shown(b"/\xff\\\0"), "/\\xff\\\\");
    }

    #[test]
    fn no_bytes_are_no_name() {
        assert_eq!(UnixName::parse(b""), None);
    }

    proptest! {
        #[test]
        fn no_control_character_reaches_the_output(bytes in prop::collection::vec(any::<u8>(), 1..64)) {
            prop_assert!(!shown(&bytes).chars().any(char::is_control));
        }
    }
}
