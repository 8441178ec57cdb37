//! Connection tracking of netfilter (nf_conntrack).

use super::{ProcRoot, ReadError, sysctl};

/// The table of tracked connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conntrack {
    /// Entries of the calling thread's network namespace.
    pub count: u64,
    /// The most that any one namespace may have; only the first can change it.
    pub max: u64,
}

/// Reads net.netfilter.nf_conntrack_count and _max; `None` where the module is not
/// loaded. (Where it is, connections are tracked only once a rule asks for it.)
///
/// # Errors
/// As [`sysctl::number`], but for what is not there.
pub fn conntrack(root: &ProcRoot) -> Result<Option<Conntrack>, ReadError> {
    let number = |name| match sysctl::number(root, name) {
        Ok(number) => Ok(Some(number)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    };
    let count = number("net.netfilter.nf_conntrack_count")?;
    let max = number("net.netfilter.nf_conntrack_max")?;
    Ok(count.zip(max).map(|(count, max)| Conntrack { count, max }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tree;

    #[test]
    fn a_loaded_module_has_count_and_maximum() {
        let (_tree, root) = tree(&[
            ("sys/net/netfilter/nf_conntrack_count", "310\n"),
            ("sys/net/netfilter/nf_conntrack_max", "262144\n"),
        ]);
        let table = conntrack(&root).unwrap();
        assert_eq!(table, Some(Conntrack { count: 310, max: 262_144 }));
    }

    #[test]
    fn without_the_module_there_is_none() {
        let (_tree, root) = tree(&[]);
        assert_eq!(conntrack(&root).unwrap(), None);
    }
}
