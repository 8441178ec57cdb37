//! Numbers in OpenMetrics text (openmetrics.io), as a textfile collector takes them.

use std::fmt::{Display, Write as _};
use std::io::{self, Write};

/// What a family of metrics is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number that goes up and down.
    Gauge,
    /// A number that only grows; its samples have `_total` behind the name.
    Counter,
    /// Quantiles of a distribution, by the label `quantile`.
    Summary,
    /// Labels that say something, with the value 1; its samples have `_info` behind the
    /// name.
    Info,
}

/// A family: one name, one sample for each set of labels.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Its name, the unit at its end.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The unit, with which the name ends; empty for none.
    pub unit: &'static str,
    /// What it means, in one line.
    pub help: &'static str,
}

/// Writes families one after the other.
#[derive(Debug)]
pub struct Exposition<W> {
    out: W,
    name: &'static str,
    kind: Kind,
}

impl<W: Write> Exposition<W> {
    /// To `out`, which should be buffered.
    pub fn new(out: W) -> Self {
        Self { out, name: "", kind: Kind::Gauge }
    }

    /// Begins a family.
    ///
    /// # Errors
    /// What writing gives.
    pub fn family(&mut self, family: Family) -> io::Result<()> {
        let Family { name, kind, unit, help } = family;
        (self.name, self.kind) = (name, kind);
        let word = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Summary => "summary",
            Kind::Info => "info",
        };
        writeln!(self.out, "# TYPE {name} {word}")?;
        if !unit.is_empty() {
            writeln!(self.out, "# UNIT {name} {unit}")?;
        }
        writeln!(self.out, "# HELP {name} {help}")
    }

    /// A sample of the family begun last.
    ///
    /// # Errors
    /// What writing gives.
    pub fn sample(
        &mut self,
        labels: &[(&str, &str)],
        value: impl Display,
    ) -> io::Result<()> {
        let mut text = String::new();
        for (name, label) in labels {
            let comma = if text.is_empty() { "" } else { "," };
            let _ = write!(text, "{comma}{name}=\"{}\"", escaped(label));
        }
        let behind = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Summary => "",
        };
        let labels = if text.is_empty() { text } else { format!("{{{text}}}") };
        writeln!(self.out, "{}{behind}{labels} {value}", self.name)
    }

    /// Ends it.
    ///
    /// # Errors
    /// What writing gives.
    pub fn finish(mut self) -> io::Result<W> {
        writeln!(self.out, "# EOF")?;
        self.out.flush()?;
        Ok(self.out)
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_its_type_unit_and_help_and_counters_end_in_total() {
        let mut text = Exposition::new(Vec::new());
        let (kind, unit) = (Kind::Counter, "packets");
        let family = Family { name: "a_dropped_packets", kind, unit, help: "Dropped." };
        text.family(family).unwrap();
        text.sample(&[("address", "unix:/a\"b\\c\nd"), ("member", "0")], 7).unwrap();
        let text = String::from_utf8(text.finish().unwrap()).unwrap();
        let expected = "# TYPE a_dropped_packets counter\n\
            # UNIT a_dropped_packets packets\n# HELP a_dropped_packets Dropped.\n\
            a_dropped_packets_total{address=\"unix:/a\\\"b\\\\c\\nd\",member=\"0\"} 7\n\
            # EOF\n";
        assert_eq!(text, expected);
    }
}
