//! What was seen of a target's accept queue, as a person reads it.

use std::io::{self, Write};
use std::path::Path;

use super::loads;
use super::print::owner;
use super::record::record_line;
use crate::cli::output::Output;
use crate::record::backlog::{BacklogDoc, Flow, ListenerDoc, QueueStats, Step};
use crate::record::{Confidence, Verdict};
use crate::render::{count, rate, seconds};

/// Listeners of a group whose queues are shown one by one.
const MEMBERS_SHOWN: usize = 16;

/// Prints the summary; `folder` is where the record is.
pub(super) fn print(
    document: &BacklogDoc,
    folder: Option<&Path>,
    output: &Output,
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write(&mut out, document, output.colors_stdout())?;
    if let Some(folder) = folder {
        writeln!(out, "{}", record_line(folder))?;
    }
    out.flush()
}

/// Writes the summary.
pub(in crate::cli) fn write(
    out: &mut impl Write,
    document: &BacklogDoc,
    strong: bool,
) -> io::Result<()> {
    let lines = match document.watched {
        Some(_) => lines(document),
        None => loads::lines(document),
    };
    for line in &lines {
        match line.strip_prefix("verdict  ").filter(|_| strong) {
            Some(verdict) => writeln!(out, "verdict  \x1b[1m{verdict}\x1b[0m")?,
            None => writeln!(out, "{line}")?,
        }
    }
    Ok(())
}

fn lines(d: &BacklogDoc) -> Vec<String> {
    let mut lines = vec![headline(d), backlog(d)];
    match d.listeners.as_slice() {
        [one] => lines.extend(queue("queue", one)),
        several => {
            for (n, one) in several.iter().take(MEMBERS_SHOWN).enumerate() {
                lines.extend(queue(&format!("queue {}", n + 1), one).into_iter().take(1));
            }
            if several.len() > MEMBERS_SHOWN {
                let more = several.len() - MEMBERS_SHOWN;
                lines.push(format!("         {more} more: --format json"));
            }
        }
    }
    lines.extend(d.flow.as_ref().map(|f| flow(d, f)));
    lines.extend(handshakes(d));
    lines.extend(verdict(&d.verdict));
    lines
}

/// The verdict, what else it may be, and what would raise the limit.
pub(super) fn verdict(v: &Verdict) -> Vec<String> {
    let mut lines = Vec::new();
    lines.push(format!("verdict  {}, {}: {}", v.code, v.confidence.name(), v.summary));
    if v.confidence != Confidence::Certain {
        for other in &v.alternatives {
            lines.push(format!("  or {}: {}", other.code, other.decides));
        }
    }
    for (n, remedy) in v.remedy.iter().enumerate() {
        let name = if n == 0 { "raise" } else { "" };
        lines.push(format!("{name:<9}{remedy}"));
    }
    lines
}

/// `127.0.0.1:7000  nginx[7] fd 6`: where it listens, and whose it is.
pub(super) fn target(d: &BacklogDoc) -> String {
    let owner = d.listeners.first().map(owner).filter(|owner| !owner.is_empty());
    let owner = owner.map_or_else(String::new, |owner| format!("  {owner}"));
    format!("{}{owner}", d.target.address)
}

fn headline(d: &BacklogDoc) -> String {
    let address = target(d);
    let Some(w) = &d.watched else { return address };
    format!(
        "{address}; watched {} at {} samples/s, {:.1} % of a core",
        seconds(w.duration_s),
        rate(w.rate_per_s).trim_end_matches("/s"),
        100.0 * w.cpu_share
    )
}

/// `backlog  128 effective (admits 129); somaxconn 4,096`.
pub(super) fn backlog(d: &BacklogDoc) -> String {
    let somaxconn = d.sysctls.get("net.core.somaxconn").copied().flatten();
    let known = somaxconn.map_or_else(|| "?".to_owned(), count);
    let Some(first) = d.listeners.first() else {
        return format!("backlog  somaxconn {known}");
    };
    let effective = first.effective_backlog;
    let each = match d.listeners.len() {
        1 => String::new(),
        n => format!(", {n} listeners"),
    };
    let cut = match somaxconn {
        Some(most) if most == effective => " (cut to it, or asked for just that)",
        _ => "",
    };
    format!(
        "backlog  {} effective (admits {}){each}; somaxconn {known}{cut}",
        count(effective),
        count(effective + 1)
    )
}

fn queue(name: &str, one: &ListenerDoc) -> Vec<String> {
    let Some(stats) = &one.queue else { return Vec::new() };
    let QueueStats { p50, p99, above_80_percent_s, full_s, histogram, .. } = stats;
    let mut text = format!(
        "{name:<9}p50 {}, p99 {}, peak at least {}",
        count(*p50),
        count(*p99),
        count(one.queue_peak)
    );
    if *above_80_percent_s > 0.0 {
        text.push_str(&format!("; above 80 % for {}", time(*above_80_percent_s)));
    }
    if *full_s > 0.0 {
        text.push_str(&format!("; full for {}", time(*full_s)));
    }
    if name != "queue" {
        let drops = one.drops_watched.unwrap_or(0);
        text.push_str(&format!("; {} drops; {}", count(drops), owner(one)));
    }
    if !one.listening {
        text.push_str("; listens no more");
    }
    let mut lines = vec![text];
    if histogram.len() > 1 {
        lines.push(format!("depth    {}", depths(histogram, one.effective_backlog + 1)));
    }
    lines
}

/// `0 for 93.1 %, 1-15 for 5.2 %, 129 (full) for 0.4 %`: by powers of two.
fn depths(histogram: &[Step], admits: u64) -> String {
    let total: f64 = histogram.iter().map(|step| step.seconds).sum();
    let class = |len: u64| match len {
        len if len >= admits => u32::MAX,
        len => u64::BITS - len.leading_zeros(),
    };
    let mut classes: Vec<(u32, u64, u64, f64)> = Vec::new();
    for step in histogram {
        let of = class(step.queue_len);
        match classes.last_mut() {
            Some((last, _, to, seconds)) if *last == of => {
                (*to, *seconds) = (step.queue_len, *seconds + step.seconds);
            }
            _ => classes.push((of, step.queue_len, step.queue_len, step.seconds)),
        }
    }
    let parts = classes.iter().map(|(of, from, to, seconds)| {
        let name = match from == to {
            true => count(*from),
            false => format!("{}-{}", count(*from), count(*to)),
        };
        let full = if *of == u32::MAX { " (full)" } else { "" };
        format!("{name}{full} {}", percent(*seconds, total))
    });
    parts.collect::<Vec<_>>().join(", ")
}

fn percent(part: f64, total: f64) -> String {
    match 100.0 * part / total.max(f64::MIN_POSITIVE) {
        small if small < 0.1 => "<0.1 %".to_owned(),
        some => format!("{some:.1} %"),
    }
}

/// `38 ms`, `1.2 s`.
fn time(s: f64) -> String {
    if s < 1.0 { format!("{:.0} ms", (s * 1e3).max(1.0)) } else { seconds(s) }
}

fn flow(d: &BacklogDoc, f: &Flow) -> String {
    let least = rate(f.accepts_per_s_at_least);
    let accepts = match f.accepts_per_s_at_most {
        Some(most) if f.other_listeners == 0 => format!("{} accepted", rate(most)),
        Some(most) => {
            let other = match f.other_listeners {
                1 => "1 other listener's".to_owned(),
                n => format!("{} other listeners'", count(n)),
            };
            format!(
                "{least} to {} accepted (PassiveOpens of the namespace has {other} too)",
                rate(most)
            )
        }
        None => {
            format!("at least {least} accepted (nothing counts a unix socket's dials)")
        }
    };
    let drops = d.listeners.iter().filter_map(|one| one.drops_watched).sum();
    let dropped = match &d.counters {
        Some(counters) => format!(
            "; {} dropped at this listener; +{} ListenOverflows in the namespace",
            count(drops),
            count(counters.listen_overflows)
        ),
        None => String::new(),
    };
    format!("flow     {accepts}{dropped}")
}

fn handshakes(d: &BacklogDoc) -> Option<String> {
    let counters = d.counters.as_ref()?;
    let half_open = d.syn_recv.map_or_else(
        || "?".to_owned(),
        |seen| format!("{} (most {})", count(seen.last), count(seen.peak)),
    );
    let sysctl = |name: &str| {
        let value = d.sysctls.get(&format!("net.ipv4.{name}")).copied().flatten();
        format!("{name} {}", value.map_or_else(|| "?".to_owned(), count))
    };
    Some(format!(
        "syn      {half_open} in SYN_RECV; {} cookies sent; {}, {}, {}",
        count(counters.syncookies_sent),
        sysctl("tcp_max_syn_backlog"),
        sysctl("tcp_syncookies"),
        sysctl("tcp_abort_on_overflow")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths_are_told_by_powers_of_two_and_the_full_one_apart() {
        let step = |queue_len, seconds| Step { queue_len, seconds };
        let all = [
            step(0, 9.0),
            step(1, 0.5),
            step(2, 0.2),
            step(3, 0.2),
            step(127, 0.0905),
            step(128, 0.0),
            step(129, 0.0095),
        ];
        let expected =
            "0 90.0 %, 1 5.0 %, 2-3 4.0 %, 127 0.9 %, 128 <0.1 %, 129 (full) <0.1 %";
        assert_eq!(depths(&all, 129), expected);
    }
}
