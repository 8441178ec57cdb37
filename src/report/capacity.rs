//! How far a server can go: what other commands know of it, beside what was measured.

use std::fs;
use std::path::{Path, PathBuf};

use super::input::{Input, LimitsDoc};
use super::page::{Block, Section, Table};
use crate::host::ceilings::{Bounds, Unit};
use crate::host::need::Need;
use crate::host::remedy::Place;
use crate::record::backlog::BacklogDoc;
use crate::record::{Run, read};
use crate::render::{bytes, count, plural, seconds, shell_word};

/// Runs that are looked through, the newest first.
const RUNS_LOOKED_AT: usize = 200;
/// Other documents beside them.
const DOCUMENTS_LOOKED_AT: usize = 50;
/// Ceilings of the host that are listed.
const CEILINGS: usize = 8;

/// What is known of the target of a run beside that run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Beside {
    /// The ceilings of its host.
    pub limits: Option<LimitsDoc>,
    /// A watch of its accept queue.
    pub backlog: Option<BacklogDoc>,
    /// Where runs are recorded, for commands that add to them.
    pub runs: PathBuf,
}

impl Beside {
    /// What of `given` is of the target of `run`, and else the newest of it in `runs`.
    #[must_use]
    pub fn find(run: &Run, given: Vec<Input>, runs: &Path) -> Self {
        let mut found = Self { runs: runs.to_owned(), ..Self::default() };
        let address = &run.target.address;
        if run.backlog.is_some() {
            return found;
        }
        for input in given {
            found.take(input, address);
        }
        if found.backlog.is_none() {
            found.look_for_backlog(address);
        }
        if found.limits.is_none() {
            found.look_for_limits(address);
        }
        found
    }

    fn take(&mut self, input: Input, address: &str) {
        match input {
            Input::Limits(limits) if of_target(&limits, address) => {
                self.limits = Some(*limits);
            }
            Input::Backlog(watched) if is_watch_of(&watched, address) => {
                self.backlog = Some(*watched);
            }
            Input::Run(record) => {
                let watched = record.run.and_then(|run| run.backlog);
                let of_it = watched.filter(|watched| is_watch_of(watched, address));
                self.backlog = of_it.or(self.backlog.take());
            }
            _ => {}
        }
    }

    fn look_for_backlog(&mut self, address: &str) {
        let runs = read::runs_in(&self.runs).unwrap_or_default();
        for folder in runs.iter().rev().take(RUNS_LOOKED_AT) {
            let path = folder.join("run.json");
            // What cannot be read is not of this report.
            let Ok(bytes) = fs::read(&path) else { continue };
            let Ok(run) = read::parse_run(&bytes, &path) else { continue };
            let watched = run.backlog.filter(|watched| is_watch_of(watched, address));
            if watched.is_some() {
                self.backlog = watched;
                return;
            }
        }
    }

    fn look_for_limits(&mut self, address: &str) {
        let Ok(entries) = fs::read_dir(&self.runs) else { return };
        let documents = entries.flatten().map(|entry| entry.path());
        let mut documents: Vec<_> = documents
            .filter(|path| {
                path.extension().is_some_and(|e| e == "json") && path.is_file()
            })
            .take(DOCUMENTS_LOOKED_AT)
            .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        documents.sort();
        for (_, path) in documents.into_iter().rev() {
            if let Ok(Input::Limits(limits)) = Input::read(&path)
                && of_target(&limits, address)
            {
                self.limits = Some(*limits);
                return;
            }
        }
    }
}

fn of_target(limits: &LimitsDoc, address: &str) -> bool {
    limits.subject.address.as_deref() == Some(address)
}

/// What stands in the report.
pub(super) fn section(run: &Run, beside: &Beside) -> Section {
    let mut blocks = Vec::new();
    if run.backlog.is_none() {
        blocks.push(Block::Table(overview(run, beside)));
        if let Some(limits) = &beside.limits {
            blocks.push(Block::Table(ceilings(limits)));
        }
        let need = asked(run, beside);
        blocks.extend(need.filter(|need| !need.lines.is_empty()).map(|need| {
            let rows = Place::ALL.into_iter().flat_map(|place| {
                let of_place = need.lines.iter().filter(move |line| line.place == place);
                of_place
                    .map(|line| vec![line.place.title().to_owned(), line.text.clone()])
            });
            Block::Table(Table {
                caption: format!("What makes room for {}", plural(need.n, "connection")),
                headings: ["where", "line"].map(Into::into).into(),
                numeric: vec![false, false],
                rows: rows.collect(),
            })
        }));
        let missing = missing(run, beside);
        if !missing.is_empty() {
            let where_ = match run.target.embedded {
                true => {
                    "That server has ended. Started again, it can be asked; then report again:"
                }
                false => {
                    "At the server's host, what is missing above is added by these; then \
                          report again:"
                }
            };
            blocks.push(Block::Text(where_.into()));
            blocks.push(Block::Commands(missing));
        }
    } else {
        blocks.push(Block::Text(
            "This run looked at an accept queue. How many connections the server holds is \
             measured by a probe, which loads it:"
                .into(),
        ));
        let target = shell_word(&run.target.address);
        blocks.push(Block::Commands(vec![format!("sockscope probe {target}")]));
    }
    Section { id: "capacity", title: "Capacity", blocks }
}

fn overview(run: &Run, beside: &Beside) -> Table {
    let measured = format!(
        "{}, {}",
        plural(run.result.practical_max, "connection"),
        run.result.level.name()
    );
    let next = run.verdict.next.as_ref().filter(|_| run.result.counts.established > 0);
    let next = next.map_or_else(|| "not known".to_owned(), |next| next.text.clone());
    let host = beside.limits.as_ref().map_or_else(|| "not looked at".to_owned(), host);
    let queue =
        beside.backlog.as_ref().map_or_else(|| "not watched".to_owned(), headroom);
    let twice = match asked(run, beside) {
        _ if run.result.practical_max == 0 => "nothing was held".to_owned(),
        Some(need) => need_text(need),
        None => "not asked".to_owned(),
    };
    Table::of_pairs(
        "What is known of this server",
        vec![
            ("measured maximum".into(), measured),
            ("next ceiling".into(), next),
            ("its host has room for".into(), host),
            ("its accept queue".into(), queue),
            (format!("twice the maximum ({})", count(twice_of(run))), twice),
        ],
    )
}

fn host(limits: &LimitsDoc) -> String {
    match (limits.room, &limits.binding) {
        (Some(room), Some(binding)) => {
            format!("{} more; first to bind: {binding}", count(room))
        }
        (Some(room), None) => format!("{} more", count(room)),
        (None, _) => "no ceiling on it could be read, or none binds".into(),
    }
}

/// A burst or a freeze fills the queue, and tells nothing of its headroom.
fn is_watch_of(document: &BacklogDoc, address: &str) -> bool {
    document.watched.is_some() && document.target.address == address
}

fn headroom(watched: &BacklogDoc) -> String {
    let when = watched.started;
    let Some(one) = watched.listeners.iter().max_by_key(|one| one.queue_peak) else {
        return format!("no listener was seen, {when}");
    };
    let admits = one.effective_backlog + 1;
    let drops = one
        .drops_watched
        .map_or_else(String::new, |n| format!(", {}", plural(n, "drop")));
    format!(
        "peak {} of {} in {}: room for {} more at once{drops} ({when})",
        count(one.queue_peak),
        count(admits),
        seconds(watched.watched.as_ref().map_or(0.0, |how| how.duration_s)),
        count(admits.saturating_sub(one.queue_peak)),
    )
}

/// Twice the measured maximum: none of those that were held is open now.
fn twice_of(run: &Run) -> u64 {
    run.result.practical_max.saturating_mul(2)
}

/// What `limits --need` said of at least twice the measured maximum.
fn asked<'a>(run: &Run, beside: &'a Beside) -> Option<&'a Need> {
    let need = beside.limits.as_ref()?.need.as_ref()?;
    (need.n >= twice_of(run).max(1)).then_some(need)
}

fn need_text(need: &Need) -> String {
    let memory = bytes(need.memory_bytes.server);
    let short: Vec<String> = need
        .short
        .iter()
        .map(|short| format!("{} (room for {})", short.name, count(short.room)))
        .collect();
    let n = count(need.n);
    match (need.fits, short.is_empty()) {
        (true, _) => format!("{n} more fit; they take {memory} of the server's memory"),
        (false, false) => {
            format!("{n} more do not fit: {}; they would take {memory}", short.join(", "))
        }
        (false, true) => {
            format!(
                "not sure that {n} more fit: {} could not be read",
                need.unknown.join(", ")
            )
        }
    }
}

fn ceilings(limits: &LimitsDoc) -> Table {
    let known =
        |n: Option<u64>, show: fn(u64) -> String| n.map_or_else(|| "–".to_owned(), show);
    let rows = limits
        .ceilings
        .iter()
        .filter(|row| row.kind == "ceiling" && row.bounds == Some(Bounds::Connections))
        .take(CEILINGS)
        .map(|row| {
            let raise = row.remedy.as_ref().map_or("", |remedy| remedy.now.as_str());
            let show = if row.unit == Some(Unit::Bytes) { bytes } else { count };
            vec![
                row.name.clone(),
                known(row.value, show),
                known(row.in_use, show),
                known(row.room, count),
                raise.to_owned(),
            ]
        })
        .collect();
    Table {
        caption: "Ceilings of the server's host, the tightest first".into(),
        headings: ["ceiling", "value", "in use", "room", "raise"].map(Into::into).into(),
        numeric: vec![false, true, true, true, false],
        rows,
    }
}

/// The commands that would add what is not known.
fn missing(run: &Run, beside: &Beside) -> Vec<String> {
    let (lacks_limits, lacks_queue) = (
        beside.limits.is_none()
            || (asked(run, beside).is_none() && run.result.practical_max > 0),
        beside.backlog.is_none(),
    );
    if !lacks_limits && !lacks_queue {
        return Vec::new();
    }
    let target = shell_word(&run.target.address);
    let mut commands = Vec::new();
    if run.target.embedded {
        let limit = run.result.fds.server_limit;
        let limit = limit.map_or_else(String::new, |n| format!(" --fd-limit {n}"));
        commands.push(format!("sockscope serve{limit} --listen {target} &"));
    }
    if lacks_limits {
        let need = match twice_of(run) {
            0 => String::new(),
            n => format!(" --need {n}"),
        };
        let file = beside.runs.join("limits.json");
        let file = shell_word(&file.display().to_string());
        let inside = inside(run.target.netns.as_deref());
        commands.push(format!(
            "{inside}sockscope limits --target {target}{need} -j > {file}"
        ));
    }
    if lacks_queue {
        let netns = run.target.netns.as_ref();
        let netns =
            netns.map_or_else(String::new, |n| format!(" --netns {}", shell_word(n)));
        commands.push(format!("sockscope backlog {target}{netns}"));
    }
    commands
}

/// What runs a command in the server's network namespace.
fn inside(netns: Option<&str>) -> String {
    match netns {
        None => String::new(),
        Some(pid) if pid.bytes().all(|b| b.is_ascii_digit()) => {
            format!("sudo nsenter --target {pid} --net ")
        }
        Some(name) => format!("sudo ip netns exec {} ", shell_word(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::ceilings::Side;
    use crate::host::need::{MemoryNeed, Short};
    use crate::host::remedy::Line;
    use crate::record::backlog::{ListenerDoc, Watched};
    use crate::record::{Next, Target};

    fn run() -> Run {
        let mut run = Run {
            target: Target { address: "127.0.0.1:80".into(), ..Target::default() },
            ..Run::default()
        };
        run.result.practical_max = 1_000;
        run.result.counts.established = 1_000;
        let next = Next { text: "65,525: ports".into(), ..Next::default() };
        run.verdict.next = Some(next);
        run
    }

    fn limits(n: u64) -> LimitsDoc {
        let mut limits = LimitsDoc { room: Some(1_500), ..LimitsDoc::default() };
        limits.subject.address = Some("127.0.0.1:80".into());
        limits.binding = Some("RLIMIT_NOFILE soft".into());
        limits.need = Some(Need {
            n,
            fits: false,
            short: vec![Short {
                name: "RLIMIT_NOFILE soft".into(),
                room: 1_500,
                side: Side::Server,
            }],
            unknown: vec![],
            lines: vec![Line { place: Place::Shell, text: "prlimit …".into() }],
            memory_bytes: MemoryNeed {
                client: 0,
                server: 4_800 * n,
                end: 4_800,
                measured: false,
            },
            hosts: None,
            source_addresses: None,
            destination_ports: None,
        });
        limits
    }

    fn said(run: &Run, beside: &Beside) -> String {
        format!("{:?}", section(run, beside))
    }

    #[test]
    fn what_is_not_known_is_said_with_the_command_that_would_add_it() {
        let beside = Beside { runs: "results/runs".into(), ..Beside::default() };
        let text = said(&run(), &beside);
        for words in [
            "not looked at",
            "not watched",
            "65,525: ports",
            "sockscope limits --target 127.0.0.1:80 --need 2000 -j > results/runs/limits.json",
            "sockscope backlog 127.0.0.1:80",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let mut elsewhere = run();
        elsewhere.target.netns = Some("web".into());
        let text = said(&elsewhere, &beside);
        assert!(text.contains("ip netns exec web sockscope limits"), "{text}");
        assert!(text.contains("backlog 127.0.0.1:80 --netns web"), "{text}");
    }

    #[test]
    fn what_is_known_stands_in_its_place() {
        let listener = ListenerDoc {
            effective_backlog: 128,
            queue_peak: 29,
            ..ListenerDoc::default()
        };
        let backlog = BacklogDoc {
            listeners: vec![listener],
            watched: Some(Watched::default()),
            ..BacklogDoc::default()
        };
        let beside = Beside {
            limits: Some(limits(2_000)),
            backlog: Some(backlog),
            runs: PathBuf::new(),
        };
        let text = said(&run(), &beside);
        for words in [
            "1,500 more; first to bind: RLIMIT_NOFILE soft",
            "peak 29 of 129",
            "room for 100 more at once",
            "2,000 more do not fit: RLIMIT_NOFILE soft (room for 1,500)",
            "prlimit …",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains("then report again"), "{text}");
    }

    #[test]
    fn a_need_below_twice_the_maximum_answers_nothing() {
        let beside = Beside { limits: Some(limits(1_999)), ..Beside::default() };
        let text = said(&run(), &beside);
        assert!(text.contains("not asked") && text.contains("--need 2000"), "{text}");
    }

    #[test]
    fn documents_of_another_target_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut other = run();
        other.target.address = "127.0.0.1:81".into();
        let given = vec![Input::Limits(Box::new(limits(2_000)))];
        assert_eq!(Beside::find(&other, given.clone(), dir.path()).limits, None);
        assert!(Beside::find(&run(), given, dir.path()).limits.is_some());
    }
}
