//! Ceilings in OpenMetrics text.

use std::collections::HashMap;
use std::io::{self, Write};

use super::document::{Document, RowDoc, RowKind};
use super::print::word;
use crate::render::openmetrics::{Exposition, Family, Kind};

/// Writes every ceiling that was read; an unlimited one has neither value nor room. Where
/// one was read is no label: it may name a process, and be another each time. Those of
/// one name are told apart by `member`.
pub(super) fn write(out: impl Write, document: &Document) -> io::Result<()> {
    let mut text = Exposition::new(out);
    let subject = &document.subject;
    let address = subject.address.as_deref().map(|address| ("address", address));
    let process = subject.comm.as_deref().map(|comm| ("process", comm));
    let whose: Vec<(&str, &str)> = address.into_iter().chain(process).collect();
    if let Some((room, binding)) = document.room.zip(document.binding.as_ref()) {
        text.family(Family {
            name: "sockscope_room_connections",
            kind: Kind::Gauge,
            unit: "connections",
            help: "How many more connections fit under the tightest ceiling.",
        })?;
        let labels = [&[("binding", binding.as_str())], &whose[..]].concat();
        text.sample(&labels, room)?;
    }
    let rows: Vec<&RowDoc> =
        document.ceilings.iter().filter(|row| row.kind == RowKind::Ceiling).collect();
    type Value = fn(&RowDoc) -> Option<u64>;
    let families: [(&str, &str, &str, Value); 3] = [
        (
            "sockscope_ceiling_room_connections",
            "connections",
            "How many more connections fit under a ceiling.",
            |row| row.room,
        ),
        ("sockscope_ceiling_value", "", "A ceiling, in its unit.", |row| row.value),
        ("sockscope_ceiling_in_use", "", "How much of it is in use.", |row| row.in_use),
    ];
    for (name, unit, help, value) in families {
        if rows.iter().all(|row| value(row).is_none()) {
            continue;
        }
        text.family(Family { name, kind: Kind::Gauge, unit, help })?;
        let mut members: HashMap<&str, u64> = HashMap::new();
        for row in &rows {
            let member = members.entry(&row.name).or_insert(0);
            let nth = member.to_string();
            *member += 1;
            let Some(value) = value(row) else { continue };
            let [side, bounds, unit] =
                [word(&row.side), word(&row.bounds), word(&row.unit)];
            let mut labels = vec![
                ("name", row.name.as_str()),
                ("member", &nth),
                ("side", &side),
                ("bounds", &bounds),
                ("unit", &unit),
            ];
            labels.extend(whose.iter().copied());
            text.sample(&labels, value)?;
        }
    }
    text.finish().map(drop)
}
