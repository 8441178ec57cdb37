//! Where a server listens, as people write it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// An address to listen on: TCP over IPv4 or IPv6, or a unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `127.0.0.1:8080`, `[::1]:0`; `8080`, `:8080` and `localhost:8080` mean 127.0.0.1.
    /// Port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// `unix:/path` (unix(7), pathname).
    Unix(PathBuf),
    /// `unix:@name` (unix(7), abstract); the name without its leading NUL.
    Abstract(Vec<u8>),
}

/// Why a text is no address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It has none of the forms.
    #[error("write 127.0.0.1:8080, [::1]:8080, 8080, unix:/path or unix:@name")]
    Form,
    /// sun_path has 108 bytes, the last of them for a NUL.
    #[error("the name of a unix socket has 1 to 107 bytes, this one has {0}")]
    UnixLength(usize),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path);
        }
        let port = text
            .strip_prefix("localhost:")
            .or_else(|| text.strip_prefix(':'))
            .unwrap_or(text);
        if let Ok(port) = port.parse::<u16>() {
            return Ok(Self::Tcp((Ipv4Addr::LOCALHOST, port).into()));
        }
        text.parse().map(Self::Tcp).map_err(|_| AddressError::Form)
    }
}

fn unix(path: &str) -> Result<Address, AddressError> {
    let name = path.strip_prefix('@').unwrap_or(path);
    if name.is_empty() || name.len() > 107 {
        return Err(AddressError::UnixLength(name.len()));
    }
    Ok(match path.strip_prefix('@') {
        Some(name) => Address::Abstract(name.as_bytes().to_vec()),
        None => Address::Unix(path.into()),
    })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "unix:@{}", name.escape_ascii()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_and_written() {
        for (text, written) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("8080", "127.0.0.1:8080"),
            (":8080", "127.0.0.1:8080"),
            ("localhost:0", "127.0.0.1:0"),
            ("[::1]:0", "[::1]:0"),
            ("0.0.0.0:65535", "0.0.0.0:65535"),
            ("unix:/run/x.sock", "unix:/run/x.sock"),
            ("unix:relative", "unix:relative"),
            ("unix:@name", "unix:@name"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), written);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "x", "127.0.0.1", "::1:80", "65536", "example.org:80", "-1"] {
            assert_eq!(text.parse::<Address>(), Err(AddressError::Form), "{text}");
        }
        assert_eq!("unix:".parse::<Address>(), Err(AddressError::UnixLength(0)));
        let long = format!("unix:@{}", "x".repeat(108));
        assert_eq!(long.parse::<Address>(), Err(AddressError::UnixLength(108)));
    }
}
