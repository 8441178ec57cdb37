//! Ceilings in OpenMetrics text.

use std::io::{self, Write};

use super::document::{Document, RowDoc, RowKind};
use super::print::word;
use crate::render::openmetrics::{Exposition, Family, Kind};

/// Writes every ceiling that was read; an unlimited one has neither value nor room.
pub(super) fn write(out: impl Write, document: &Document) -> io::Result<()> {
    let mut text = Exposition::new(out);
    if let Some((room, binding)) = document.room.zip(document.binding.as_ref()) {
        text.family(Family {
            name: "sockscope_room_connections",
            kind: Kind::Gauge,
            unit: "connections",
            help: "How many more connections fit under the tightest ceiling.",
        })?;
        text.sample(&[("binding", binding)], room)?;
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
        for row in &rows {
            let Some(value) = value(row) else { continue };
            let [side, bounds, unit] =
                [word(&row.side), word(&row.bounds), word(&row.unit)];
            let labels = [
                ("name", row.name.as_str()),
                ("side", &side),
                ("bounds", &bounds),
                ("unit", &unit),
                ("source", &row.source),
            ];
            text.sample(&labels, value)?;
        }
    }
    text.finish().map(drop)
}
