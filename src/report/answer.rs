//! The top of a report: what was found.

use super::page::Answer;
use super::text;
use crate::record::backlog::BacklogDoc;
use crate::record::{Record, Run, Verdict};
use crate::render::{count, plural, seconds};
use crate::verdict::Code;

/// What `record` says, at the top of its report.
pub(super) fn answer(record: &Record) -> Answer {
    let mut answer = match &record.run {
        Some(run) => match &run.backlog {
            Some(document) => of_load(document).unwrap_or_else(|| of_backlog(document)),
            None => of_probe(run),
        },
        None => of_cut_off(record),
    };
    if let Some(run) = &record.run
        && !run.warnings.is_empty()
    {
        let warnings = plural(run.warnings.len() as u64, "warning");
        answer.caveats.push(format!("{warnings} below."));
    }
    if !record.timeline.present && record.run.is_some() {
        answer.caveats.push("No timeline.ndjson beside it: no charts over time.".into());
    }
    answer
}

fn of_probe(run: &Run) -> Answer {
    let found = Answer {
        label: "practical maximum".into(),
        number: plural(run.result.practical_max, "connection"),
        meaning: text::meaning(run),
        ..Answer::default()
    };
    let mut answer = with_verdict(found, &run.verdict);
    if run.result.counts.established == 0 {
        // Where not one dial succeeded, the next ceiling is of no interest yet.
        answer.next = None;
    }
    if run.verdict.code == Code::Interrupted.as_str() {
        answer.caveats.push("It was interrupted: there may be room for more.".into());
    }
    answer
}

/// Of a burst, a search, or a freeze; None of a watch.
fn of_load(document: &BacklogDoc) -> Option<Answer> {
    let least = |at_least: bool| if at_least { "at least " } else { "" };
    let (label, number, meaning) = if let Some(freeze) = &document.freeze {
        let number = match freeze.admitted {
            Some(admitted) => plural(admitted, "connection"),
            None => "unknown".into(),
        };
        let meaning = format!(
            "the accept queue was filled while the server was stopped; min(backlog, \
             somaxconn) + 1 is {}",
            count(freeze.expected)
        );
        ("admitted by the accept queue", number, meaning)
    } else if let Some(find) = &document.find {
        let number = find.deepest_without_loss.map_or_else(
            || "unknown".into(),
            |n| format!("{}{}", least(find.ended == "bound"), plural(n, "dial")),
        );
        let tries = plural(find.tries.len() as u64, "burst");
        ("deepest burst without loss", number, format!("found by {tries}"))
    } else {
        let burst = document.burst.as_ref()?;
        let depth = plural(burst.depth, "dial");
        let number = format!("{}{depth}", least(burst.depth_at_least));
        let meaning = format!("of a burst of {}", count(burst.dialed));
        ("taken without loss", number, meaning)
    };
    let found = Answer { label: label.into(), number, meaning, ..Answer::default() };
    Some(with_verdict(found, &document.verdict))
}

fn of_backlog(document: &BacklogDoc) -> Answer {
    let peak = document.listeners.iter().map(|one| one.queue_peak).max().unwrap_or(0);
    let backlog = match document.listeners.as_slice() {
        [] => "no listener was seen".to_owned(),
        [one] => format!(
            "in its accept queue, which admits {} (backlog {} + 1)",
            count(one.effective_backlog + 1),
            count(one.effective_backlog)
        ),
        several => {
            format!(
                "in the fullest accept queue of {} listeners",
                count(several.len() as u64)
            )
        }
    };
    let watched = document.watched.as_ref();
    let watched = watched
        .map_or_else(String::new, |w| format!("; watched {}", seconds(w.duration_s)));
    let found = Answer {
        label: "longest queue seen".into(),
        number: plural(peak, "connection"),
        meaning: format!("{backlog}{watched}"),
        ..Answer::default()
    };
    with_verdict(found, &document.verdict)
}

fn with_verdict(found: Answer, verdict: &Verdict) -> Answer {
    Answer {
        verdict: Some((verdict.code.clone(), verdict.confidence.name().into())),
        summary: verdict.summary.clone(),
        evidence: verdict.evidence.clone(),
        remedy: verdict.remedy.clone(),
        next: verdict.next.as_ref().map(|next| next.text.clone()),
        alternatives: verdict.alternatives.clone(),
        ..found
    }
}

fn of_cut_off(record: &Record) -> Answer {
    let samples = &record.timeline.samples;
    let held = samples.iter().map(|sample| sample.held).max();
    let number = match held {
        Some(held) => format!("at least {}", plural(held, "connection")),
        None => "unknown".into(),
    };
    let until = samples
        .last()
        .map_or_else(String::new, |last| format!(", the last at {}", seconds(last.t_s)));
    Answer {
        label: "held at once".into(),
        number,
        meaning: "by its samples; at which level is not recorded, and whether they \
                  lasted is unknown"
            .into(),
        summary: format!(
            "This record was cut off, or its run still goes on: there is no run.json, and so \
             no verdict. Its timeline holds {}{until}; all of it is shown here.",
            plural(samples.len() as u64, "sample"),
        ),
        ..Answer::default()
    }
}
