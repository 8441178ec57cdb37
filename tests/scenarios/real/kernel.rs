//! States of the kernel around a server that has no limit of its own.

use super::Scenario;

pub(super) const ALL: &[&Scenario] = &[];
