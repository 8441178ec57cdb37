//! A slow link between two network namespaces: a tun device in each, and a thread that
//! carries packets from one to the other, late, and loses some. (netem, which would do
//! that, is not in every kernel.)

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::time::Timespec;

use crate::kernel::tun::Tun;

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What the link does to packets; the same both ways.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Each way takes half of it. A queue adds nothing: packets of any number travel
    /// side by side, in the order in which they were sent.
    pub round_trip: Duration,
    /// The probability that a packet is lost, each by itself.
    pub loss: f64,
    /// Where the pseudo-random losses start.
    pub seed: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self { round_trip: Duration::from_millis(2), loss: 0.0, seed: 1 }
    }
}

/// What a tap wants done with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Carried as the shape says.
    Carried,
    /// Carried so much later than that.
    Late(Duration),
}

/// Sees every packet that enters the link, and whether it will be lost. The link stands
/// still meanwhile.
pub type Tap = Box<dyn FnMut(Way, &[u8], bool) -> Fate + Send>;

/// The relay looks around so often, to notice when it is kept from running.
const AT_MOST: Duration = Duration::from_millis(20);

/// What has passed.
#[derive(Debug, Default)]
struct Counters {
    carried: AtomicU64,
    lost: AtomicU64,
}

struct Control {
    shape: Mutex<Shape>,
    tap: Mutex<Option<Tap>>,
    counters: [Counters; 2],
    late_us: AtomicU64,
    end: OwnedFd,
}

/// The link between two tun devices, the client's first; they are gone when it is
/// dropped.
pub struct Relay {
    control: Arc<Control>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("shape", &*lock(&self.control.shape))
            .finish_non_exhaustive()
    }
}

impl Relay {
    /// Starts its thread.
    ///
    /// # Errors
    /// What making an eventfd or a thread gives.
    pub fn start(ends: [Tun; 2], shape: Shape) -> io::Result<Self> {
        let control = Arc::new(Control {
            shape: Mutex::new(shape),
            tap: Mutex::new(None),
            counters: Default::default(),
            late_us: AtomicU64::new(0),
            end: eventfd(0, EventfdFlags::CLOEXEC)?,
        });
        let shared = control.clone();
        let thread = thread::Builder::new()
            .name("relay".into())
            .spawn(move || Carrier::new(ends, &shared).run())?;
        Ok(Self { control, thread: Some(thread) })
    }

    /// Shapes what is sent from now on.
    pub fn set_shape(&self, shape: Shape) {
        *lock(&self.control.shape) = shape;
    }

    /// Shows every packet to `tap` from now on; None: to nobody.
    pub fn set_tap(&self, tap: Option<Tap>) {
        *lock(&self.control.tap) = tap;
    }

    /// By how much the relay was late at most since this was asked last: what a machine
    /// that is too busy adds to the round trip.
    #[must_use]
    pub fn take_lateness(&self) -> Duration {
        Duration::from_micros(self.control.late_us.swap(0, Relaxed))
    }

    /// Packets carried and lost one way, so far.
    #[must_use]
    pub fn counts(&self, way: Way) -> (u64, u64) {
        let counters = &self.control.counters[way as usize];
        (counters.carried.load(Relaxed), counters.lost.load(Relaxed))
    }

    /// Ends the link.
    ///
    /// # Errors
    /// Why it had ended by itself.
    ///
    /// # Panics
    /// Where a tap did.
    pub fn end(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        // Fails only where the relay is gone already.
        let _ = rustix::io::write(&self.control.end, &1_u64.to_ne_bytes());
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = rustix::io::write(&self.control.end, &1_u64.to_ne_bytes());
            // Who wants to know how it ended asks `end`.
            let _ = thread.join();
        }
    }
}

/// What a tap that panicked leaves behind is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A packet on its way: the first due comes first, and of two due at the same time the
/// first sent.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct OnItsWay {
    due: Instant,
    number: u64,
    to: usize,
    packet: Vec<u8>,
}

struct Carrier<'a> {
    ends: [Tun; 2],
    control: &'a Control,
    under_way: BinaryHeap<Reverse<OnItsWay>>,
    sent: u64,
    seed: u64,
    random: [u64; 2],
}

/// A link that holds more than this has a fault.
const MOST_UNDER_WAY: usize = 200_000;
/// Packets read from one end before the other has its turn.
const TURN: usize = 128;

impl<'a> Carrier<'a> {
    fn new(ends: [Tun; 2], control: &'a Control) -> Self {
        Self {
            ends,
            control,
            under_way: BinaryHeap::new(),
            sent: 0,
            seed: 0,
            random: [0; 2],
        }
    }

    /// Carries packets until told to end.
    fn run(&mut self) -> io::Result<()> {
        loop {
            let wait = self.deliver()?;
            let mut fds = [
                PollFd::new(&self.control.end, PollFlags::IN),
                PollFd::new(&self.ends[0], PollFlags::IN),
                PollFd::new(&self.ends[1], PollFlags::IN),
            ];
            let due = Instant::now() + wait;
            let timeout = Timespec::try_from(wait).map_err(io::Error::other)?;
            match poll(&mut fds, Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => continue,
                done => done?,
            };
            self.note_late(due);
            if !fds[0].revents().is_empty() {
                return Ok(());
            }
            self.accept(Way::Up)?;
            self.accept(Way::Down)?;
        }
    }

    fn note_late(&self, due: Instant) {
        let late = Instant::now().saturating_duration_since(due).as_micros();
        let late = u64::try_from(late).unwrap_or(u64::MAX);
        self.control.late_us.fetch_max(late, Relaxed);
    }

    /// Delivers what is due, and says how long nothing else will be, at most
    /// [`AT_MOST`].
    fn deliver(&mut self) -> io::Result<Duration> {
        while let Some(Reverse(next)) = self.under_way.peek() {
            let left = next.due.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return Ok(left.min(AT_MOST));
            }
            if let Some(Reverse(next)) = self.under_way.pop() {
                self.note_late(next.due);
                match self.ends[next.to].send(&next.packet) {
                    // The kernel looked at it and wants no such packet; a link cares not.
                    Err(error) if error.kind() == ErrorKind::InvalidInput => {}
                    done => done?,
                }
            }
        }
        Ok(AT_MOST)
    }

    /// Takes what one end has sent.
    fn accept(&mut self, way: Way) -> io::Result<()> {
        let mut packet = [0; 2048];
        let (from, to) = (way as usize, 1 - way as usize);
        let shape = *lock(&self.control.shape);
        if shape.seed != self.seed {
            self.seed = shape.seed;
            self.random = [shape.seed, !shape.seed];
        }
        for _ in 0..TURN {
            let len = match self.ends[from].receive(&mut packet) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                len => len?,
            };
            let packet = &packet[..len];
            let mut due = Instant::now() + shape.round_trip / 2;
            let is_lost = shape.loss > 0.0 && random(&mut self.random[from]) < shape.loss;
            if let Some(tap) = lock(&self.control.tap).as_mut()
                && let Fate::Late(by) = tap(way, packet, is_lost)
            {
                due += by;
            }
            let counters = &self.control.counters[from];
            if is_lost {
                counters.lost.fetch_add(1, Relaxed);
                continue;
            }
            counters.carried.fetch_add(1, Relaxed);
            if self.under_way.len() >= MOST_UNDER_WAY {
                return Err(io::Error::other("the link is overloaded"));
            }
            self.sent += 1;
            let number = self.sent;
            let packet = packet.to_vec();
            self.under_way.push(Reverse(OnItsWay { due, number, to, packet }));
        }
        Ok(())
    }
}

/// The next number from 0 to 1 (SplitMix64).
#[allow(clippy::cast_precision_loss)]
fn random(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    // 53 bits are what the type has.
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}
