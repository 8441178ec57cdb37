//! Sets of TCP ports, as net.ipv4.ip_local_reserved_ports writes them.

use std::fmt;

/// Ports as sorted ranges that neither touch nor overlap, both ends included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortSet(Vec<(u16, u16)>);

/// Text that names no set of ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is neither a port nor a range of ports")]
pub struct PortSetError(String);

impl PortSet {
    /// Reads `8080,9000-9100`; blanks around a part are no matter, and no text is no
    /// port.
    ///
    /// # Errors
    /// Where a part is no number below 65,536, or a range runs backwards.
    pub fn parse(text: &str) -> Result<Self, PortSetError> {
        let mut ranges = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = || PortSetError(part.to_owned());
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            let low: u16 = low.trim_end().parse().map_err(|_| wrong())?;
            let high: u16 = high.trim_start().parse().map_err(|_| wrong())?;
            if low > high {
                return Err(wrong());
            }
            ranges.push((low, high));
        }
        Ok(Self(merged(ranges)))
    }

    /// The ranges, sorted, both ends included.
    #[must_use]
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }

    /// Whether `port` is in it.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        let behind = self.0.partition_point(|&(low, _)| low <= port);
        behind > 0 && port <= self.0[behind - 1].1
    }

    /// How many of the ports from `low` to `high`, both included, are in it.
    #[must_use]
    pub fn count_within(&self, low: u16, high: u16) -> u64 {
        let inside = |&(from, to): &(u16, u16)| {
            let (from, to) = (from.max(low), to.min(high));
            if from > to { 0 } else { u64::from(to - from) + 1 }
        };
        self.0.iter().map(inside).sum()
    }
}

fn merged(mut ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ranges.sort_unstable();
    let mut out: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
    for (low, high) in ranges {
        match out.last_mut() {
            Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
            _ => out.push((low, high)),
        }
    }
    out
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, &(low, high)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            if low == high {
                write!(f, "{comma}{low}")?;
            } else {
                write!(f, "{comma}{low}-{high}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_syntax_of_the_sysctl_is_read() {
        let set = PortSet::parse("9000-9100, 8080\n").unwrap();
        assert_eq!(set.ranges(), [(8080, 8080), (9000, 9100)]);
        assert_eq!(PortSet::parse("\n").unwrap(), PortSet::default());
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let set = PortSet::parse("10-20,21,15-30,65535,65535").unwrap();
        assert_eq!(set.to_string(), "10-30,65535");
    }

    #[test]
    fn what_is_no_port_is_refused_by_name() {
        for bad in ["65536", "9-3", "x", "1-2-3", "-5"] {
            let error = PortSet::parse(&format!("80,{bad}")).unwrap_err();
            assert!(error.to_string().contains(bad), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9, \\-x]{0,40}") {
            let _ = PortSet::parse(&text);
        }

        #[test]
        fn what_is_shown_reads_back(
            ranges in prop::collection::vec((any::<u16>(), 0..200_u16), 0..20),
        ) {
            let parts: Vec<String> = ranges
                .iter()
                .map(|&(low, more)| format!("{low}-{}", low.saturating_add(more)))
                .collect();
            let set = PortSet::parse(&parts.join(",")).unwrap();
            prop_assert_eq!(&PortSet::parse(&set.to_string()).unwrap(), &set);
            let each = (0..=u16::MAX).filter(|&port| set.contains(port)).count();
            prop_assert_eq!(set.count_within(0, u16::MAX), each as u64);
            for &(low, more) in &ranges {
                prop_assert!(set.contains(low));
                prop_assert!(set.contains(low.saturating_add(more)));
            }
        }
    }
}
