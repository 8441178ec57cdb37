//! The parts that every verdict is made of.

use std::fmt::Display;

use super::{Code, Evidence, Tally};
use crate::host::ceilings::{Ceiling, Side};
use crate::host::remedy;
use crate::record::{Alternative, Confidence, Fact, Next, Verdict};
use crate::render::count;

/// A verdict in the making.
#[derive(Debug)]
pub(super) struct Draft {
    code: Code,
    summary: String,
    confidence: Confidence,
    evidence: Vec<Fact>,
    remedy: Vec<String>,
    alternatives: Vec<Alternative>,
    /// The number of connections at which the same limit binds once it is raised.
    raised_to: Option<u64>,
    /// Names of ceilings that are this limit itself, and not what comes after it.
    hit: &'static [&'static str],
}

impl Draft {
    fn new(code: Code, summary: String, confidence: Confidence) -> Self {
        Self {
            code,
            summary,
            confidence,
            evidence: Vec::new(),
            remedy: Vec::new(),
            alternatives: Vec::new(),
            raised_to: None,
            hit: &[],
        }
    }

    pub(super) fn certain(code: Code, summary: String) -> Self {
        Self::new(code, summary, Confidence::Certain)
    }

    pub(super) fn likely(code: Code, summary: String) -> Self {
        Self::new(code, summary, Confidence::Likely)
    }

    pub(super) fn possible(code: Code, summary: String) -> Self {
        Self::new(code, summary, Confidence::Possible)
    }

    pub(super) fn fact(
        mut self,
        fact: impl Into<String>,
        value: impl Into<String>,
        source: impl Into<String>,
    ) -> Self {
        let (fact, value, source) = (fact.into(), value.into(), source.into());
        self.evidence.push(Fact { fact, value, source });
        self
    }

    /// A fact that was read on the server's host.
    pub(super) fn seen(
        self,
        e: &Evidence,
        fact: impl Into<String>,
        value: impl Into<String>,
        source: impl AsRef<str>,
    ) -> Self {
        self.fact(fact, value, e.there(source.as_ref()))
    }

    /// A command that can be pasted, or what [`remedy`] makes of advice.
    pub(super) fn remedy(mut self, remedy: String) -> Self {
        self.remedy.push(remedy);
        self
    }

    /// What can be said, and not typed.
    pub(super) fn advice(self, advice: impl Display) -> Self {
        self.remedy(remedy::advised(advice))
    }

    /// The remedies, where there are any.
    pub(super) fn remedies(mut self, remedies: impl IntoIterator<Item = String>) -> Self {
        self.remedy.extend(remedies);
        self
    }

    pub(super) fn or(mut self, code: Code, decides: impl Into<String>) -> Self {
        let (code, decides) = (code.as_str().to_owned(), decides.into());
        self.alternatives.push(Alternative { code, decides });
        self
    }

    /// The remedy moves the same limit to `raised_to` connections; `hit` are the names
    /// that the ceilings give to this limit.
    pub(super) fn raises(
        mut self,
        raised_to: Option<u64>,
        hit: &'static [&'static str],
    ) -> Self {
        (self.raised_to, self.hit) = (raised_to, hit);
        self
    }

    /// Adds what is known of the accept queue.
    pub(super) fn queue_facts(mut self, t: &Tally, e: &Evidence) -> Self {
        if let Some(listener) = &e.listener {
            let len = count(listener.queue_len);
            let admits = count(listener.backlog + listener.members);
            let value = if listener.is_full() {
                format!("{len}, full (backlog {} + 1)", count(listener.backlog))
            } else {
                format!("{len} of {admits}")
            };
            self = self.seen(e, "accept queue", value, "sock_diag");
            if listener.drops > 0 {
                let drops = count(listener.drops);
                self =
                    self.seen(e, "dropped at this listener", drops, "SK_MEMINFO_DROPS");
            }
            self = self.counter_facts(e);
        }
        self.unanswered_facts(t)
    }

    /// Adds what grew of the counters of the server's network namespace.
    fn counter_facts(mut self, e: &Evidence) -> Self {
        let Some(c) = &e.counters else { return self };
        let sum = c.syncookies_sent + c.syncookies_recv + c.syncookies_failed;
        let cookies = format!(
            "+{} sent, {} valid, {} invalid",
            count(c.syncookies_sent),
            count(c.syncookies_recv),
            count(c.syncookies_failed)
        );
        let plus = |n| format!("+{}", count(n));
        let grew = [
            (c.listen_overflows > 0, "ListenOverflows", plus(c.listen_overflows)),
            // Every overflow is a drop too.
            (c.listen_drops > c.listen_overflows, "ListenDrops", plus(c.listen_drops)),
            (sum > 0, "SYN cookies", cookies),
        ];
        for (_, name, by) in grew.into_iter().filter(|(grew, ..)| *grew) {
            self = self.seen(e, name, by, "/proc/net/netstat, all listeners there");
        }
        self
    }

    /// Adds what is known of dials that nothing answered.
    pub(super) fn unanswered_facts(self, t: &Tally) -> Self {
        if t.looked_at == 0 {
            return self;
        }
        let (silent, looked_at) = (count(t.silent), count(t.looked_at));
        let value = format!("{silent} of {looked_at} looked at heard nothing");
        let draft = self.fact("unanswered dials", value, "TCP_INFO: tcpi_segs_in");
        if t.retransmitted == 0 {
            return draft;
        }
        let again = format!("by {} of these", count(t.retransmitted));
        draft.fact("SYN sent again", again, "TCP_INFO: tcpi_total_retrans")
    }

    /// Adds what is known of phantoms, from the client's side.
    pub(super) fn phantom_facts(self, t: &Tally) -> Self {
        let (half, none) = (count(t.half_open), count(t.phantoms));
        let answers = "keepalives answered by RST or silence";
        self.fact("half-open phantoms", half, "SYN-ACKs repeated after ESTABLISHED").fact(
            "phantoms of SYN cookies",
            none,
            answers,
        )
    }

    /// Takes back certainty that rests on what a command told too long ago.
    fn less_certain(self, e: &Evidence) -> Self {
        let ours = self.code.as_str().starts_with("client.")
            || matches!(self.code, Code::Requested | Code::Interrupted | Code::TimeLimit);
        match &e.remote {
            Some(host) if host.is_shaky && !ours => {
                let age = format!("{:.1} s", host.age_s);
                let confidence = match self.confidence {
                    Confidence::Certain => Confidence::Likely,
                    other => other,
                };
                Self { confidence, ..self }.seen(e, "age of what was seen", age, "clock")
            }
            _ => self,
        }
    }

    pub(super) fn finish(self, t: &Tally, e: &Evidence) -> Verdict {
        self.less_certain(e).into_verdict(t, e)
    }

    fn into_verdict(self, t: &Tally, e: &Evidence) -> Verdict {
        let next = self.next(t, &e.ceilings);
        Verdict {
            code: self.code.as_str().to_owned(),
            summary: self.summary,
            confidence: self.confidence,
            evidence: self.evidence,
            remedy: self.remedy,
            next,
            alternatives: self.alternatives,
        }
    }

    /// Whether a ceiling is the limit that was hit. A limit of descriptors is each
    /// side's own.
    fn is_hit(&self, ceiling: &Ceiling) -> bool {
        let other_side = match self.code.as_str() {
            code if code.starts_with("client.") => Some(Side::Server),
            code if code.starts_with("server.") => Some(Side::Client),
            _ => None,
        };
        self.hit.contains(&ceiling.name.as_str()) && Some(ceiling.side) != other_side
    }

    /// The ceiling that binds after the one that was hit.
    fn next(&self, t: &Tally, ceilings: &[Ceiling]) -> Option<Next> {
        let others = ceilings.iter().filter(|c| !self.is_hit(c));
        // A ceiling below what was held did not bind: it was counted too tightly.
        let beyond = others.filter(|c| c.room > t.held.max(t.open));
        let nearest = beyond.min_by_key(|c| c.room);
        match (self.raised_to, nearest) {
            (Some(again), nearest) if nearest.is_none_or(|c| again <= c.room) => {
                Some(Next {
                    ceiling: self.code.as_str().to_owned(),
                    number: Some(again),
                    text: format!("{}: the same limit again", count(again)),
                })
            }
            (_, Some(ceiling)) => Some(Next {
                ceiling: ceiling.name.clone(),
                number: Some(ceiling.room),
                text: format!(
                    "{}: {} ({})",
                    count(ceiling.room),
                    ceiling.name,
                    ceiling.source
                ),
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{evidence, is, tally};
    use super::*;
    use crate::host::ceilings::{Bounds, NOFILE_SOFT, Unit};
    use crate::host::counters::TcpExt;
    use crate::host::remedy::Remedy;
    use crate::record::Confidence::Certain;
    use crate::verdict::{RemoteHost, Stop, judge};

    fn told(is_shaky: bool) -> Evidence {
        let command = "ssh db1 watch".to_owned();
        let host = RemoteHost { command, age_s: 1.4, is_shaky, ..RemoteHost::default() };
        Evidence { remote: Some(host), ..Evidence::default() }
    }

    fn confidence(code: Code, e: &Evidence) -> Confidence {
        Draft::certain(code, String::new()).less_certain(e).confidence
    }

    #[test]
    fn what_a_command_told_too_long_ago_is_not_certain() {
        let (fresh, old) = (told(false), told(true));
        assert_eq!(confidence(Code::ServerFdLimit, &fresh), Confidence::Certain);
        assert_eq!(confidence(Code::ServerFdLimit, &old), Confidence::Likely);
        assert_eq!(confidence(Code::PathFiltered, &old), Confidence::Likely);
        // The client's own ends need nobody to tell of them.
        for code in [Code::Requested, Code::Interrupted, Code::ClientPorts] {
            assert_eq!(confidence(code, &old), Confidence::Certain, "{code}");
        }
    }

    #[test]
    fn a_fact_of_another_host_says_who_told_it() {
        let here = Evidence::default();
        let draft = Draft::certain(Code::ServerFdLimit, String::new())
            .seen(&here, "a", "1", "sock_diag")
            .seen(&told(false), "b", "2", "sock_diag");
        let sources: Vec<&str> =
            draft.evidence.iter().map(|fact| fact.source.as_str()).collect();
        let there = "sock_diag on the server's host, by ssh db1 watch";
        assert_eq!(sources, ["sock_diag", there]);
    }

    #[test]
    fn what_the_dials_and_the_counters_say_is_evidence() {
        let counters = TcpExt {
            listen_overflows: 12,
            listen_drops: 15,
            syncookies_sent: 3,
            syncookies_recv: 2,
            ..TcpExt::default()
        };
        let e = Evidence { counters: Some(counters), ..evidence() };
        let t = Tally { retransmitted: 60, ..tally(Stop::Plateau) };
        let verdict = is(&t, &e, Code::ServerAcceptQueue, Certain);
        let value = |name: &str| {
            let fact = verdict.evidence.iter().find(|fact| fact.fact == name);
            fact.map(|fact| fact.value.as_str())
        };
        assert_eq!(value("ListenOverflows"), Some("+12"));
        assert_eq!(value("ListenDrops"), Some("+15"));
        assert_eq!(value("SYN cookies"), Some("+3 sent, 2 valid, 0 invalid"));
        assert_eq!(value("unanswered dials"), Some("64 of 64 looked at heard nothing"));
        assert_eq!(value("SYN sent again"), Some("by 60 of these"));
        // Where all drops are overflows, the one says what the other does.
        let counters =
            TcpExt { listen_overflows: 12, listen_drops: 12, ..TcpExt::default() };
        let e = Evidence { counters: Some(counters), ..evidence() };
        let verdict = is(&t, &e, Code::ServerAcceptQueue, Certain);
        assert!(verdict.evidence.iter().all(|fact| fact.fact != "ListenDrops"));
    }

    #[test]
    fn a_backlog_that_somaxconn_cuts_short_is_lengthened_there() {
        let counters = TcpExt { listen_overflows: 12, ..TcpExt::default() };
        let at = |somaxconn| Evidence {
            counters: Some(counters),
            abort_on_overflow: Some(true),
            somaxconn: Some(somaxconn),
            ..evidence()
        };
        let t = Tally { closed_reset: 5, ..tally(Stop::Plateau) };
        let verdict = is(&t, &at(4_096), Code::ServerAcceptQueue, Certain);
        assert_eq!(verdict.remedy[1], "# give listen() a larger backlog than 128");
        let verdict = is(&t, &at(128), Code::ServerAcceptQueue, Certain);
        assert!(
            verdict.remedy[1].starts_with("sudo sysctl -w net.core.somaxconn=512  # ")
        );
    }

    #[test]
    fn the_same_limit_of_the_other_side_may_bind_next() {
        let ceiling = |side| Ceiling {
            name: NOFILE_SOFT.into(),
            value: 20_000,
            in_use: Some(7),
            unit: Unit::Count,
            room: 19_993,
            bounds: Bounds::Connections,
            side,
            source: String::new(),
            remedy: Remedy::default(),
        };
        let next = |stop, side| {
            let e = Evidence { ceilings: vec![ceiling(side)], ..evidence() };
            judge(&tally(stop), &e).next.map(|next| next.ceiling)
        };
        assert_eq!(next(Stop::TablesFull, Side::Server).as_deref(), Some(NOFILE_SOFT));
        assert_eq!(next(Stop::TablesFull, Side::Client), None);
    }
}
