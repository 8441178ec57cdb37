//! Names of ports: services(5).

use std::collections::HashMap;

/// What /etc/services says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Services {
    ports: HashMap<String, Vec<u16>>,
}

impl Services {
    /// Parses the bytes of services(5): `name port/protocol aliases… # comment`. Lines
    /// that have another form are passed over, as getservbyname(3) does.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let mut services = Self::default();
        for line in bytes.split(|&byte| byte == b'\n') {
            let line = line.split(|&byte| byte == b'#').next().unwrap_or_default();
            let Ok(line) = std::str::from_utf8(line) else { continue };
            let mut words = line.split_ascii_whitespace();
            let (Some(name), Some(port)) = (words.next(), words.next()) else { continue };
            let Some((port, _protocol)) = port.split_once('/') else { continue };
            let Ok(port) = port.parse() else { continue };
            for name in std::iter::once(name).chain(words) {
                let ports = services.ports.entry(name.to_owned()).or_default();
                if !ports.contains(&port) {
                    ports.push(port);
                }
            }
        }
        services
    }

    /// The ports of a name: one as a rule, more where its protocols differ, or none.
    #[must_use]
    pub fn ports(&self, name: &str) -> &[u16] {
        self.ports.get(name).map_or(&[], Vec::as_slice)
    }

    /// All names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.ports.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_aliases_and_comments_are_told_apart() {
        let text = b"# head\nhttp\t80/tcp\t\twww # WorldWideWeb\n\ndomain 53/tcp\ndomain 53/udp\n\
                     exec 512/tcp\nbiff 512/udp comsat\nodd 1/tcp\nodd 2/udp\n\
                     bad\nworse x/tcp\nbig 70000/tcp\n\xff\xfe 1/tcp\nlast 9/udp";
        let services = Services::parse(text);
        assert_eq!(services.ports("http"), [80]);
        assert_eq!(services.ports("www"), [80]);
        assert_eq!(services.ports("domain"), [53]);
        assert_eq!(services.ports("odd"), [1, 2]);
        assert_eq!(services.ports("last"), [9]);
        for none in ["WorldWideWeb", "#", "bad", "worse", "big", ""] {
            assert_eq!(services.ports(none), [0_u16; 0], "{none}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Services::parse(&bytes);
        }
    }
}
