//! What an evidence command has printed so far, dated by the clock of this host.

use std::io::{BufRead, BufReader, Read};
use std::process::ChildStdout;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::probe::shared::lock;
use crate::sockets::sample::{CountsSample, Sample};

/// A longer line is no sample.
const LINE_MAX: u64 = 256 * 1024;
/// After so many lines in a row that are no samples, they are read slowly: the pipe
/// fills up, and a command that prints rubbish without end waits.
const FLOOD: u64 = 1000;
const FLOOD_PAUSE: Duration = Duration::from_millis(10);

/// What has been received.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// The first sample: what was counted before is not the probe's.
    pub(super) first: Option<Sample>,
    /// The newest one.
    pub(super) latest: Option<Sample>,
    /// The newest one in which something listened.
    pub(super) listening: Option<Sample>,
    /// The newest one with counts.
    pub(super) counted: Option<(Sample, CountsSample)>,
    /// The longest queue in any.
    pub(super) queue_peak: u64,
    /// How many samples there were.
    pub(super) samples: u64,
    /// Lines that were none, and the first of them.
    pub(super) rubbish: u64,
    pub(super) first_rubbish: Option<String>,
    /// Lines that were none, since the newest sample.
    pub(super) rubbish_since: u64,
    /// Its stdout is closed: no more will come.
    pub(super) ended: bool,
    /// Arrival by this host's clock, less the sample's own clock: the smallest of all, in
    /// µs. It is how far the clocks are apart and the shortest way of a sample together:
    /// an upper bound of the first.
    pub(super) offset_us: Option<i64>,
}

impl Received {
    fn line(&mut self, line: &[u8], arrived_us: i64) {
        match Sample::parse(line) {
            Ok(sample) => self.sample(sample, arrived_us),
            Err(_) => {
                self.rubbish += 1;
                self.rubbish_since += 1;
                self.first_rubbish.get_or_insert_with(|| {
                    let text = String::from_utf8_lossy(line);
                    let start: String = text.trim().chars().take(60).collect();
                    crate::render::escaped(&start)
                });
            }
        }
    }

    fn sample(&mut self, sample: Sample, arrived_us: i64) {
        let apart = arrived_us.saturating_sub_unsigned(sample.clock_unix_us);
        self.offset_us = Some(self.offset_us.map_or(apart, |least| least.min(apart)));
        self.queue_peak = self.queue_peak.max(sample.queue_len);
        self.samples += 1;
        self.rubbish_since = 0;
        if self.first.is_none() {
            self.first = Some(sample.clone());
        }
        if sample.listening {
            self.listening = Some(sample.clone());
        }
        if let Some(counts) = &sample.counts {
            self.counted = Some((sample.clone(), counts.clone()));
        }
        self.latest = Some(sample);
    }

    /// When a sample was taken, by this host's clock, in µs: late by no more than the
    /// shortest way of a sample.
    pub(super) fn taken_us(&self, sample: &Sample) -> i64 {
        let clock = i64::try_from(sample.clock_unix_us).unwrap_or(i64::MAX);
        clock.saturating_add(self.offset_us.unwrap_or(0))
    }
}

/// What a reading thread fills, and the probe looks into.
#[derive(Debug)]
pub(super) struct Inbox {
    received: Mutex<Received>,
    news: Condvar,
    began: Instant,
    began_us: i64,
}

impl Inbox {
    /// Begins to read.
    ///
    /// # Errors
    /// What starting a thread gives.
    pub(super) fn read(out: ChildStdout) -> std::io::Result<Arc<Self>> {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let inbox = Arc::new(Self {
            received: Mutex::default(),
            news: Condvar::new(),
            began: Instant::now(),
            began_us: i64::try_from(unix.as_micros()).unwrap_or(0),
        });
        let filled = inbox.clone();
        let name = "evidence".to_owned();
        thread::Builder::new().name(name).spawn(move || filled.fill(out))?;
        Ok(inbox)
    }

    fn fill(&self, out: impl Read) {
        let mut out = BufReader::new(out);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut out).take(LINE_MAX).read_until(b'\n', &mut line);
            let ended = !matches!(read, Ok(1..));
            let mut received = lock(&self.received);
            received.ended = ended;
            if !ended && !line.trim_ascii().is_empty() {
                received.line(&line, self.now_us());
            }
            let flooded = received.rubbish_since > FLOOD;
            drop(received);
            self.news.notify_all();
            if ended {
                return;
            }
            if flooded {
                thread::sleep(FLOOD_PAUSE);
            }
        }
    }

    /// This host's clock, in µs since 1970: as it was set when the reading began.
    pub(super) fn now_us(&self) -> i64 {
        let since = i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.began_us.saturating_add(since)
    }

    /// Since a sample was taken; short by no more than its shortest way.
    pub(super) fn age(&self, received: &Received, sample: &Sample) -> Duration {
        let age = self.now_us().saturating_sub(received.taken_us(sample));
        Duration::from_micros(u64::try_from(age).unwrap_or(0))
    }

    /// What has been received.
    pub(super) fn look(&self) -> MutexGuard<'_, Received> {
        lock(&self.received)
    }

    /// Waits until `met`, for so long at the most, or until nothing more comes, or until
    /// `given_up` says so.
    pub(super) fn wait(
        &self,
        most: Duration,
        given_up: impl Fn() -> bool,
        met: impl Fn(&Received) -> bool,
    ) -> MutexGuard<'_, Received> {
        const LOOK_UP: Duration = Duration::from_millis(20);
        let deadline = Instant::now() + most;
        let mut received = self.look();
        while !met(&received) && !received.ended && !given_up() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.news.wait_timeout(received, left.min(LOOK_UP));
            received = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        received
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::sample::SCHEMA;
    use proptest::prelude::*;

    const NOON: u64 = 1_795_449_912_000_000;

    fn at(clock_unix_us: u64, queue_len: u64) -> Sample {
        Sample {
            schema: SCHEMA.into(),
            clock_unix_us,
            queue_len,
            listening: true,
            ..Sample::default()
        }
    }

    fn received(samples: &[(u64, i64)]) -> Received {
        let mut received = Received::default();
        for &(clock, arrived) in samples {
            let line = serde_json::to_vec(&at(clock, clock % 100)).unwrap();
            received.line(&line, arrived);
        }
        received
    }

    #[test]
    fn clocks_are_aligned_by_the_sample_that_came_fastest() {
        let noon = i64::try_from(NOON).unwrap();
        // Their clock is an hour ahead; the ways took 30, 5 and 900 ms.
        let hour = 3_600_000_000;
        let r = received(&[
            (NOON, noon - hour + 30_000),
            (NOON + 100_000, noon + 100_000 - hour + 5_000),
            (NOON + 200_000, noon + 200_000 - hour + 900_000),
        ]);
        assert_eq!(r.offset_us, Some(5_000 - hour));
        let latest = r.latest.clone().unwrap();
        // Seen to be 895 ms old when it came, whatever its clock says.
        assert_eq!(r.taken_us(&latest), noon + 200_000 - hour + 5_000);
        assert_eq!((r.samples, r.rubbish), (3, 0));
    }

    #[test]
    fn rubbish_between_samples_is_counted_and_the_first_of_it_kept() {
        let mut r = received(&[(NOON, 0)]);
        r.line(b"Welcome to \x1b[1mdb1", 0);
        r.line(b"{}", 0);
        assert_eq!((r.rubbish, r.rubbish_since), (2, 2));
        assert_eq!(r.first_rubbish.as_deref(), Some("Welcome to \\u{1b}[1mdb1"));
        r.sample(at(NOON + 7, 7), 7);
        assert_eq!((r.rubbish, r.rubbish_since, r.queue_peak), (2, 0, 7));
    }

    proptest! {
        #[test]
        fn no_line_and_no_clock_makes_it_panic(line in any::<Vec<u8>>(), arrived: i64) {
            let mut r = received(&[(NOON, arrived)]);
            r.line(&line, arrived);
            let _ = r.taken_us(&at(u64::MAX, 0));
        }
    }
}
