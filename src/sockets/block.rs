//! Blocks of addresses: whose connections are counted.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// One address, or a CIDR block: `192.0.2.7`, `10.0.0.0/8`, `2001:db8::/32`. A v4-mapped
/// address is the IPv4 address in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressBlock {
    network: IpAddr,
    /// The length of the prefix: at most 32, or 128 for IPv6.
    prefix: u8,
}

/// That a text is no address and no block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an address or CIDR block, as 192.0.2.7 or 10.0.0.0/24")]
pub struct NoBlock(String);

impl AddressBlock {
    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.network.is_ipv4()
            && masked(address, self.prefix) == self.network
    }
}

impl From<IpAddr> for AddressBlock {
    fn from(address: IpAddr) -> Self {
        let network = address.to_canonical();
        Self { network, prefix: bits(network) }
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    let host_bits = u32::from(bits(address).saturating_sub(prefix));
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

impl FromStr for AddressBlock {
    type Err = NoBlock;

    fn from_str(text: &str) -> Result<Self, NoBlock> {
        let no_block = || NoBlock(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| no_block())?;
        let Some(prefix) = prefix else { return Ok(address.into()) };
        let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix: u8 = prefix.parse().ok().filter(|_| digits).ok_or_else(no_block)?;
        if prefix > bits(address) {
            return Err(no_block());
        }
        Ok(Self { network: masked(address, prefix), prefix })
    }
}

impl fmt::Display for AddressBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.network.fmt(f)?;
        if self.prefix == bits(self.network) {
            Ok(())
        } else {
            write!(f, "/{}", self.prefix)
        }
    }
}

impl Serialize for AddressBlock {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AddressBlock {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(text: &str) -> AddressBlock {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_in_the_blocks_around_it() {
        let inside = |text: &str, address: &str| {
            block(text).contains(address.parse::<IpAddr>().unwrap())
        };
        assert!(inside("192.0.2.7", "192.0.2.7") && !inside("192.0.2.7", "192.0.2.8"));
        assert!(inside("10.0.0.0/8", "10.255.0.1") && !inside("10.0.0.0/8", "11.0.0.1"));
        assert!(inside("0.0.0.0/0", "1.2.3.4") && !inside("0.0.0.0/0", "::1"));
        assert!(inside("::/0", "fe80::1") && inside("2001:db8::/32", "2001:db8:9::"));
        assert!(inside("10.0.0.0/8", "::ffff:10.0.0.1"));
        assert_eq!(block("10.1.2.3/8").to_string(), "10.0.0.0/8");
    }

    #[test]
    fn what_is_no_block_is_named() {
        for text in
            ["", "x", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0.0/+8", "1/2/3"]
        {
            let error = text.parse::<AddressBlock>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("'{text}' is not")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_block_reads_back_as_it_is_shown(bits: u128, v4: bool, prefix in 0_u8..=32) {
            let v6 = std::net::Ipv6Addr::from_bits(bits);
            #[allow(clippy::cast_possible_truncation)]
            let low = std::net::Ipv4Addr::from_bits(bits as u32);
            let address = if v4 { IpAddr::V4(low) } else { v6.into() };
            let shown = block(&format!("{address}/{prefix}"));
            prop_assert_eq!(block(&shown.to_string()), shown);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}") {
            let _ = text.parse::<AddressBlock>();
        }
    }
}
