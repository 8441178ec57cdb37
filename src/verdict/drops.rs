//! What the server ends that it had taken: after a time, for new ones, or at random.

use super::make::Draft;
use super::tally::HABIT;
use super::{
    Code, Evidence, ListenerSeen, ServerCounts, Stop, Tally, decide, died, turned_away,
};
use crate::host::process::ProcessView;
use crate::render::{count, escaped, plural, seconds};

/// What OpenSSH says to those that it drops at random (sshd_config(5)).
const MAX_STARTUPS: &str = "MaxStartups";
/// Whether so much was lost while nothing was dialed that it counts. The last of those
/// that a busy server turns away may be turned away when the hold has begun: where that
/// goes on, a few more are no loss of what was held.
fn lost_holding(t: &Tally) -> bool {
    let before = t.ended().saturating_sub(t.lost_in_hold);
    // By the server's table all that it had accepted is still there.
    let kept = |(then, now): (ServerCounts, ServerCounts)| {
        now.accepted >= then.accepted && t.lost_in_hold <= then.queued
    };
    if t.server.zip(t.server_after).is_some_and(kept) {
        return false;
    }
    let turned_away = before.saturating_sub(t.closed_old);
    // In a long accept queue they wait for it, and one that is slow to turn them away may
    // have begun with it when dialing was over. A timeout ends all at the same age.
    let of_an_age = t.closings.same_age() || t.closings.at_once();
    let slowly = !of_an_age && t.lost_in_hold >= HABIT;
    let queued = (before >= HABIT || slowly) && t.closings.spares_the_first();
    let stragglers =
        queued || turned_away >= HABIT && t.lost_in_hold * 10 < t.open.min(turned_away);
    t.lost_in_hold > 0
        && !stragglers
        && (t.lost_in_hold * 100 >= t.open || t.stop == Stop::MaxReached)
}

#[allow(clippy::cast_precision_loss)]
fn after(ms: u64) -> String {
    seconds(ms as f64 / 1e3)
}

fn ages(draft: Draft, t: &Tally) -> Draft {
    let c = &t.closings;
    if c.aged == 0 {
        return draft;
    }
    let ages = format!(
        "{} to {}, half of them {}",
        after(c.p10_ms),
        after(c.p90_ms),
        after(c.p50_ms)
    );
    draft.fact("silent when they ended", ages, "FIN or RST from the server (p10, p90)")
}

/// Connections ended that had been held: all at once, after a time of silence, or for new
/// ones.
pub(super) fn ended_while_held(t: &Tally, e: &Evidence) -> Option<Draft> {
    let c = &t.closings;
    // They live for less time than it takes to prove that they do.
    let none_stays = t.open == 0
        && (c.aged >= HABIT || c.same_age())
        && c.aged.saturating_mul(10) >= t.ended().saturating_mul(9);
    // A server that is slow to turn new ones away ends what seemed to be held.
    let taken_back = t.stop == Stop::Losing && !c.spares_the_first();
    if !taken_back && !lost_holding(t) && !none_stays {
        return None;
    }
    // Of an idle timeout's prey some must end in the hold too, if that is long enough,
    // and if there is some left.
    #[allow(clippy::cast_precision_loss)]
    let telling = t.hold_s * 20_000.0 >= c.p50_ms as f64 && t.open > 0;
    let same_age = c.same_age() || !c.at_once() && c.same_age_but_for_a_tick();
    let draft = match (same_age, lost_holding(t)) {
        _ if c.at_once() && !same_age => at_once(t, e),
        (true, true) => idle_timeout(t, true),
        (true, false) if !telling => idle_timeout(t, t.open == 0),
        (_, false) if telling => makes_room(t),
        _ => unclear(t),
    };
    Some(ages(draft, t).queue_facts(t, e))
}

/// All ended at one moment, and the server goes on.
fn at_once(t: &Tally, e: &Evidence) -> Draft {
    let c = &t.closings;
    let (lost, span) = (plural(c.aged, "connection"), after(c.ended_span_ms));
    let born = after(c.born_span_ms);
    let ended = e.owners.iter().filter(|o| !o.alive_after).map(|o| &o.process);
    let dead: Vec<&ProcessView> = e.gone.iter().chain(ended).collect();
    let draft = if dead.is_empty() {
        let decides = "its log, on its host; and whether `ps -o pid,lstart,args` shows a \
                       process of it there that is younger than this probe";
        let summary = format!(
            "{lost} ended within {span}, whatever their age: a process of the server \
             ended, or it closed them all. It still listens."
        );
        Draft::likely(Code::ServerDied, summary)
            .or(Code::ServerEvicts, decides)
            .or(Code::ServerMemory, decide::killed(t))
    } else {
        let summary = format!(
            "A process of the server ended, and {lost} with it within {span}. The server \
             still listens."
        );
        dead.iter().fold(Draft::certain(died::code(e), summary), |draft, process| {
            let ProcessView { pid, comm, .. } = process;
            let source = format!("/proc/{pid}");
            draft.seen(e, format!("{}[{pid}]", escaped(comm)), "gone", source)
        })
    };
    let pid = dead.first().map_or("PID".into(), |p| p.pid.to_string());
    let why = format!("journalctl _PID={pid}; dmesg  # see why; its log, an OOM kill");
    let draft = draft.fact(
        "ended at once",
        format!("{lost}, established over {born}"),
        "FIN or RST from the server",
    );
    died::for_memory(draft, t, e).remedy(e.type_there(why))
}

/// All ended after the same time, and whatever was dialed.
fn idle_timeout(t: &Tally, sure: bool) -> Draft {
    let time = after(t.closings.p50_ms);
    let summary = format!(
        "The server ends a connection that is silent for {time}, however many there are."
    );
    let lost = count(t.closings.aged);
    let ended = format!("{lost}, {} of them while holding", count(t.lost_in_hold));
    let decides = "whether they also end while nothing is dialed: --hold 5m";
    let ended = if t.lost_in_hold == 0 { lost } else { ended };
    let draft = if sure {
        Draft::likely(Code::ServerIdleTimeout, summary)
    } else {
        Draft::possible(Code::ServerIdleTimeout, summary)
    };
    draft
        .fact("ended while held", ended, "FIN or RST from the server")
        .or(Code::ServerEvicts, decides)
        .advice(format_args!("the server's idle timeout, {time} now"))
        .advice("or keep them busy: --send TEXT --ping TIME, with less than that")
}

/// Old ones end while new ones come, and none while none come.
fn makes_room(t: &Tally) -> Draft {
    let held = plural(t.held, "connection");
    let summary = format!(
        "The server ends connections that it held for each new one: it keeps {held}."
    );
    Draft::likely(Code::ServerEvicts, summary)
        .fact(
            "ended while others were dialed",
            count(t.ended().saturating_sub(t.lost_in_hold)),
            "the server's FIN or RST",
        )
        .fact(
            "ended in the hold",
            format!("{} in {}", count(t.lost_in_hold), seconds(t.hold_s)),
            "this probe",
        )
        .or(Code::ServerIdleTimeout, "whether they end after the same time: --rate 10")
        .advice("the server's limit on connections, or its pool's")
}

fn unclear(t: &Tally) -> Draft {
    let lost = count(t.closed_old.max(t.lost_in_hold));
    let (code, other, when) = if t.stop == Stop::Losing {
        (Code::ServerEvicts, Code::ServerIdleTimeout, "while others were dialed")
    } else {
        (Code::ServerIdleTimeout, Code::ServerEvicts, "while nothing was dialed")
    };
    let decides = "whether they end after the same time whatever is dialed: --hold 5m";
    Draft::possible(code, format!("The server ended {lost} of what it held {when}."))
        .fact("ended while held", lost, "FIN or RST from the server")
        .or(other, decides)
        // Or it is slow to turn new ones away.
        .or(turned_away::code(t), decide::queue(t))
        .advice("the server's idle timeout, or its limit on connections")
}

/// The first connections are gone and later ones are not; or all that are held came after
/// all that ended. A server that turns new ones away keeps the first.
pub(super) fn evicts(t: &Tally, e: &Evidence) -> Option<Draft> {
    let c = &t.closings;
    // What waits in the accept queue is younger than what was turned away.
    #[allow(clippy::cast_precision_loss)]
    let newest = t.held_of(c.held_after) > 0.9 * t.held as f64
        && c.ended_after < 0.1
        && !c.spares_the_first();
    let gone = t.elders_open * 10 < t.elders.min(t.open)
        && t.ended().saturating_mul(100) >= t.established;
    let calm = !lost_holding(t) && t.hold_s > 0.0;
    (t.ended() >= HABIT && (newest || gone) && calm && t.held > 0).then(|| {
        let elders = format!("{} of {}", count(t.elders_open), count(t.elders));
        ages(makes_room(t), t)
            .fact("of the first connections, open", elders, "this probe")
            .queue_facts(t, e)
    })
}

fn share(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}

/// New ones are closed, but not every one: the held and the closed came interleaved.
pub(super) fn random(t: &Tally, e: &Evidence) -> Option<Draft> {
    let c = &t.closings;
    let full = e.listener.as_ref().is_some_and(ListenerSeen::is_full);
    let young = t.ended().saturating_sub(t.closed_old + t.lost_in_hold);
    let between = t.held_of(c.held_between);
    // Where dialers and server wait for a processor, a few are out of order.
    #[allow(clippy::cast_precision_loss)]
    let interleaved =
        between > 0.25 * t.held as f64 && between >= 5.0 && c.ended_after > 0.3;
    // A kernel may reset what does not fit into a queue (tcp_abort_on_overflow).
    let aborts = t.closed_reset * 2 > t.ended() && turned_away::is_beside_phantoms(t);
    if young < HABIT || young * 100 < t.established || !interleaved || full || aborts {
        return None;
    }
    let summary = format!(
        "The server closes new connections, but not every one: it holds {}, and {} of them \
         came after the first that it closed.",
        plural(t.held, "connection"),
        share(c.held_after)
    );
    Some(at_random(t, e, summary, young))
}

/// The same by its words: beyond its upper bound OpenSSH drops every one, and where it is
/// slow it drops what seemed to be held.
pub(super) fn max_startups(t: &Tally, e: &Evidence) -> Option<Draft> {
    let words = t.words.iter().find(|words| words.contains(MAX_STARTUPS))?;
    if t.ended() < HABIT {
        return None;
    }
    let held = plural(t.held, "connection");
    let summary = format!(
        "The server drops new connections, the more the more have not logged in: it holds \
         {held}."
    );
    let quoted = format!("\"{}\"", words.trim_end());
    Some(at_random(t, e, summary, t.ended()).fact("it said", quoted, "the connection"))
}

fn at_random(t: &Tally, e: &Evidence, summary: String, ended: u64) -> Draft {
    Draft::likely(Code::ServerRandomDrop, summary)
        .fact("new connections ended", count(ended), "FIN or RST from the server")
        .fact(
            "held that came after the first of these",
            share(t.closings.held_after),
            "this probe",
        )
        .queue_facts(t, e)
        .or(
            Code::ServerClosesNew,
            "several workers, each with a limit of its own: the server's settings",
        )
        .advice("the server's limit on new connections (MaxStartups of OpenSSH)")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{evidence, is, tally};
    use super::super::{Closings, Trial};
    use super::*;
    use crate::record::Confidence::{Likely, Possible};

    fn idle() -> Evidence {
        let mut e = evidence();
        let listener = e.listener.take();
        let listener = listener.map(|l| ListenerSeen { queue_len: 0, drops: 0, ..l });
        Evidence { listener, ..e }
    }

    fn aged(p10_ms: u64, p50_ms: u64, p90_ms: u64) -> Closings {
        Closings {
            aged: 100,
            p10_ms,
            p50_ms,
            p90_ms,
            older_stay: 0.0,
            between_stay: 0.5,
            ended_span_ms: 2_000,
            born_span_ms: 2_000,
            held_after: 0.5,
            held_between: 0.5,
            ended_after: 0.5,
            ..Closings::default()
        }
    }

    #[test]
    fn the_same_age_at_the_end_of_all_is_an_idle_timeout() {
        let t = Tally {
            closings: aged(1_990, 2_000, 2_050),
            lost_in_hold: 700,
            closed_silent: 700,
            ..tally(Stop::MaxReached)
        };
        let verdict = is(&t, &idle(), Code::ServerIdleTimeout, Likely);
        assert!(verdict.summary.contains("silent for 2.0 s"), "{}", verdict.summary);
        let spread = Tally { closings: aged(200, 2_000, 4_000), ..t.clone() };
        let unclear = is(&spread, &idle(), Code::ServerIdleTimeout, Possible);
        let others: Vec<_> = unclear.alternatives.iter().map(|a| &a.code[..]).collect();
        assert_eq!(others, ["server.evicts", "server.closes_new"]);
        // Redis looks once a second, and counts in whole ones.
        let ticks = Tally { closings: aged(4_351, 4_959, 5_855), ..t.clone() };
        is(&ticks, &idle(), Code::ServerIdleTimeout, Likely);
        let short = Tally { closings: aged(900, 1_400, 2_100), ..t };
        is(&short, &idle(), Code::ServerIdleTimeout, Possible);
    }

    /// On a busy host all may be gone before anything could be counted.
    #[test]
    fn none_left_of_what_was_held_is_no_full_queue_from_outside() {
        let t = Tally {
            open: 0,
            held: 0,
            server: None,
            closings: Closings { aged: 400, ..aged(3_000, 5_055, 9_111) },
            established: 400,
            closed_silent: 400,
            closed_old: 400,
            ..tally(Stop::Plateau)
        };
        let verdict = is(&t, &Evidence::default(), Code::ServerIdleTimeout, Possible);
        assert_eq!(verdict.alternatives[0].code, "server.evicts");
        // A few of the same age tell as much.
        let few = Tally { established: 6, closed_silent: 6, closed_old: 6, ..t.clone() };
        let six =
            |times| Tally { closings: Closings { aged: 6, ..times }, ..few.clone() };
        let same = six(aged(1_327, 1_327, 1_330));
        is(&same, &Evidence::default(), Code::ServerIdleTimeout, Likely);
        let others = six(aged(1_000, 1_327, 2_330));
        is(&others, &Evidence::default(), Code::ServerAcceptQueue, Possible);
        let ticks =
            Tally { closings: Closings { aged: 400, ..aged(4_351, 4_959, 5_855) }, ..t };
        is(&ticks, &Evidence::default(), Code::ServerIdleTimeout, Likely);
    }

    #[test]
    fn old_ones_that_end_only_while_new_ones_come_make_room_for_them() {
        let t = Tally {
            closings: aged(1_000, 1_050, 1_100),
            closed_silent: 20,
            closed_old: 20,
            ..tally(Stop::Losing)
        };
        is(&t, &idle(), Code::ServerEvicts, Likely);
        // Too short a hold to tell.
        let brief = Tally { hold_s: 0.01, ..t.clone() };
        is(&brief, &idle(), Code::ServerIdleTimeout, Possible);
        let both = Tally { lost_in_hold: 300, ..t };
        is(&both, &idle(), Code::ServerIdleTimeout, Likely);
    }

    #[test]
    fn who_is_ended_tells_eviction_from_turning_away_and_from_chance() {
        let closing = |held_after, ended_after| Tally {
            closed_silent: 200,
            closings: Closings {
                held_after,
                held_between: if held_after < 1.0 { held_after } else { 0.0 },
                ended_after,
                ..Closings::default()
            },
            ..tally(Stop::Plateau)
        };
        is(&closing(1.0, 0.0), &idle(), Code::ServerEvicts, Likely);
        is(&closing(0.6, 0.8), &idle(), Code::ServerRandomDrop, Likely);
        let words = vec!["Exceeded MaxStartups\\r\\n".to_owned()];
        let openssh = Tally { words, ..closing(0.12, 1.0) };
        is(&openssh, &idle(), Code::ServerRandomDrop, Likely);
        // Starved of the processor it takes a second to drop one.
        let slow = Closings { older_stay: 0.3, ..aged(543, 1_223, 1_303) };
        let slow =
            Tally { closings: slow, stop: Stop::Losing, closed_old: 60, ..openssh };
        is(&slow, &idle(), Code::ServerRandomDrop, Likely);
        let t = closing(0.12, 1.0);
        is(&t, &idle(), Code::ServerClosesNew, crate::record::Confidence::Certain);
    }

    /// Starved of the processor, it takes a second to accept and close each.
    #[test]
    fn a_server_that_is_slow_to_turn_new_ones_away_evicts_none() {
        let late = Closings {
            older_stay: 1.0,
            between_stay: 0.0,
            held_after: 0.0,
            held_between: 0.0,
            ended_after: 1.0,
            ..aged(255, 409, 1_079)
        };
        let t = Tally {
            established: 4_370,
            open: 50,
            held: 50,
            closed_silent: 4_320,
            closed_old: 60,
            closings: late,
            ..tally(Stop::Losing)
        };
        is(&t, &idle(), Code::ServerClosesNew, crate::record::Confidence::Certain);
    }

    /// It takes and closes one each 7 ms, and all were dialed within a few: the first that
    /// it turns away has stood in its queue for a while, and others still stand in it.
    #[test]
    fn who_turns_new_ones_away_when_dialing_is_over_has_no_idle_timeout() {
        let closings = Closings {
            older_stay: 0.25,
            between_stay: 0.0,
            ended_span_ms: 300,
            born_span_ms: 3,
            held_after: 0.0,
            held_between: 0.0,
            ended_after: 1.0,
            ..aged(202, 387, 571)
        };
        let t = Tally {
            closings,
            established: 145,
            open: 145,
            held: 82,
            lost_in_hold: 63,
            closed_silent: 63,
            hold_s: 0.45,
            server: None,
            ..tally(Stop::MaxReached)
        };
        let verdict = is(&t, &Evidence::default(), Code::ServerClosesNew, Likely);
        let facts: Vec<&str> = verdict.evidence.iter().map(|f| f.fact.as_str()).collect();
        assert!(facts.contains(&"ended while holding"), "{verdict:?}");
        assert!(verdict.summary.contains("82 connections were left"), "{verdict:?}");
        // All at the same age, though it was slow to begin with: that is one.
        let timeout = Closings { p10_ms: 380, p90_ms: 400, ..closings };
        let t = Tally { closings: timeout, ..t };
        is(&t, &Evidence::default(), Code::ServerIdleTimeout, Likely);
    }

    /// It closed 13 of those that came after the first 143, and then accepted no more: the
    /// last 48 stand in its queue.
    #[test]
    fn who_came_when_no_more_were_ended_shows_no_chance() {
        let of_a_queue = Closings {
            held_after: 0.25,
            held_between: 0.0,
            ended_after: 1.0,
            ..Closings::default()
        };
        let t = Tally {
            established: 204,
            open: 191,
            held: 191,
            closed_reset: 13,
            unanswered: 101,
            closings: of_a_queue,
            server: None,
            hold_s: 0.2,
            ..tally(Stop::Plateau)
        };
        let outside = Evidence::default();
        let verdict = is(&t, &outside, Code::ServerAcceptQueue, Possible);
        let others: Vec<&str> =
            verdict.alternatives.iter().map(|other| other.code.as_str()).collect();
        assert!(others.contains(&"server.resets_new"), "{verdict:?}");
        // One that goes on ending others has them wait for that.
        let goes_on = Tally { lost_in_hold: 1, closed_reset: 14, ..t.clone() };
        is(&goes_on, &outside, Code::ServerResetsNew, Likely);
        // Chance leaves them everywhere.
        let closings = Closings { held_after: 0.5, held_between: 0.45, ..t.closings };
        is(&Tally { closings, ..t }, &outside, Code::ServerRandomDrop, Likely);
    }

    /// Under SYN cookies most of what is open here is unknown to the server.
    #[test]
    fn phantoms_among_those_turned_away_show_no_chance() {
        let closings = Closings {
            held_after: 0.93,
            held_between: 0.9,
            ended_after: 0.5,
            ..Closings::default()
        };
        let counts =
            ServerCounts { accepted: 10, phantoms: 142, ..ServerCounts::default() };
        let t = Tally {
            established: 8_237,
            open: 152,
            held: 10,
            closed_after_words: 8_085,
            closings,
            server: Some(counts),
            server_after: Some(counts),
            ..tally(Stop::TimeLimit)
        };
        is(&t, &idle(), Code::ServerRejects, crate::record::Confidence::Certain);
        // Those that came before the first was ended are the ten that it has.
        let ended_after = 0.0;
        let t = Tally { closings: Closings { ended_after, ..closings }, ..t };
        is(&t, &idle(), Code::ServerRejects, crate::record::Confidence::Certain);
        // From outside RSTs among more phantoms may be the kernel's.
        let outside = Tally { server: None, server_after: None, held: 152, ..t.clone() };
        let closings = Closings { ended_after: 0.5, ..closings };
        let resets = Tally {
            closings,
            closed_after_words: 0,
            closed_reset: 100,
            phantoms: 101,
            established: 353,
            stop: Stop::Plateau,
            ..outside
        };
        is(&resets, &Evidence::default(), Code::ServerAcceptQueue, Possible);
        let fewer = Tally { phantoms: 99, ..resets };
        is(&fewer, &Evidence::default(), Code::ServerRandomDrop, Likely);
        // Without as many unknown ones, it is chance.
        let known = ServerCounts { accepted: 152, ..ServerCounts::default() };
        let (server, server_after) = (Some(known), Some(known));
        let t = Tally { held: 152, server, server_after, closings, ..t };
        is(&t, &idle(), Code::ServerRandomDrop, Likely);
    }

    #[test]
    fn nearly_all_lost_and_the_next_dial_refused_is_a_death() {
        let lost = |trial| Tally {
            server: None,
            closings: aged(1_990, 2_000, 2_050),
            lost_in_hold: 700,
            closed_silent: 700,
            trial: Some(trial),
            ..tally(Stop::MaxReached)
        };
        is(&lost(Trial::Refused), &Evidence::default(), Code::ServerDied, Likely);
        is(&lost(Trial::Answered), &Evidence::default(), Code::ServerIdleTimeout, Likely);
    }

    /// Under load one of many rejections came when the hold had begun.
    #[test]
    fn a_straggler_of_those_turned_away_is_no_idle_timeout() {
        let t = Tally {
            established: 351,
            open: 51,
            held: 50,
            lost_in_hold: 1,
            closed_after_words: 301,
            server: None,
            ..tally(Stop::Plateau)
        };
        let verdict = super::super::judge(&t, &Evidence::default());
        assert_eq!(verdict.code, Code::ServerRejects.as_str(), "{verdict:?}");
    }
}
