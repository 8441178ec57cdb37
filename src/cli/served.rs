//! What `sockscope probe` asks of a server on each connection: its options, and what they
//! mean together.

use std::time::Duration;

use super::parse;
use super::speak::Speak;
use crate::probe::latency::LatencyLimit;
use crate::probe::service::{Expect, Service};
use crate::probe::target::Target;

/// How long a reply may take, unless it is said.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

const SPEAKS_FIRST: &str = "--ping asks again what --send says: a server that speaks \
                            first is asked nothing";

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Answers")]
pub(super) struct ServedArgs {
    /// Send this on each connection; it counts as held when it is answered.
    /// Escapes: \r \n \t \0 \\ \xNN
    #[arg(long, value_name = "TEXT", value_parser = text)]
    send: Option<Text>,

    /// What an answer must contain [default: anything]; without --send the server speaks
    /// first
    #[arg(long, value_name = "TEXT", value_parser = text)]
    expect: Option<Text>,

    /// Speak this protocol, as far as it takes to see whether the server takes a client
    #[arg(long, value_name = "PROTOCOL", value_enum, conflicts_with_all = ["send", "expect"])]
    speak: Option<Speak>,

    /// How long an answer may take; a connection without one is not served [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = parse::duration_above_0)]
    reply_timeout: Option<Duration>,

    /// Ask again on held connections, so long after each answer
    #[arg(long, value_name = "TIME", value_parser = parse::duration_above_0)]
    ping: Option<Duration>,

    /// Stop when latency is above this: 'p99<50ms'; p50, p90, p99, p99.9 or max, of
    /// replies, or of connects where nothing is asked
    #[arg(long, value_name = "LIMIT", value_parser = LatencyLimit::parse)]
    pub(super) stop_at_latency: Option<LatencyLimit>,
}

/// Bytes that were written with escapes; never none.
#[derive(Debug, Clone)]
struct Text(Vec<u8>);

fn text(text: &str) -> Result<Text, String> {
    match parse::bytes(text)? {
        bytes if bytes.is_empty() => Err("must not be empty".into()),
        bytes => Ok(Text(bytes)),
    }
}

impl ServedArgs {
    /// What is to be asked of this target, if anything is.
    pub(super) fn service(
        &self,
        target: Option<&Target>,
    ) -> Result<Option<Service>, &'static str> {
        let (send, expect) = match (target, &self.send, &self.expect) {
            _ if self.speak.is_some() => return self.spoken(target),
            (Some(Target::Http { .. }), None, None) => (Vec::new(), Expect::Http),
            (Some(Target::Http { .. }), ..) => {
                return Err(
                    "an http:// target is asked by GET and judged by its status; \
                            --send and --expect are for tcp://",
                );
            }
            (_, None, None) => return self.nothing_asked(),
            (_, None, Some(_)) if self.ping.is_some() => {
                return Err(SPEAKS_FIRST);
            }
            (_, send, expect) => {
                let send = send.as_ref().map_or_else(Vec::new, |text| text.0.clone());
                let expect = expect.as_ref().map(|text| Expect::Text(text.0.clone()));
                (send, expect.unwrap_or(Expect::Anything))
            }
        };
        let send = match target {
            Some(Target::Http { host, port, path }) => Service::http(host, *port, path),
            _ => send,
        };
        Ok(Some(self.asking(send, expect)))
    }

    fn asking(&self, send: Vec<u8>, expect: Expect) -> Service {
        let reply_timeout = self.reply_timeout.unwrap_or(REPLY_TIMEOUT);
        Service { send, expect, reply_timeout, ping: self.ping }
    }

    /// What `--speak` asks of this target.
    fn spoken(&self, target: Option<&Target>) -> Result<Option<Service>, &'static str> {
        if matches!(target, Some(Target::Http { .. })) {
            return Err("an http:// target is asked by GET; --speak is for tcp://");
        }
        if self.ping.is_some() && self.speak.is_some_and(Speak::only_listens) {
            return Err(SPEAKS_FIRST);
        }
        let spoken = self.speak.map(|speak| speak.to(target));
        Ok(spoken.map(|(send, expect)| self.asking(send, expect)))
    }

    fn nothing_asked(&self) -> Result<Option<Service>, &'static str> {
        if self.ping.is_some() {
            return Err(
                "--ping has nothing to ask: give --send, --speak or an http:// target",
            );
        }
        if self.reply_timeout.is_some() {
            return Err(
                "--reply-timeout has no reply to wait for: give --send, --expect, \
                        --speak or an http:// target",
            );
        }
        Ok(None)
    }
}
