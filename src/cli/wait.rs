//! Waiting while what is printed goes to a reader that may go away.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// The time was over.
    Time,
    /// Nobody reads any more.
    Closed,
    /// There is something to read from what was to wake it, or a signal came.
    Other,
}

/// Waits for so long; wakes up at once when the reader of a pipe is gone, or when `wake`
/// can be read (poll(2)).
pub(super) fn wait(
    out: impl AsFd,
    wake: Option<BorrowedFd<'_>>,
    pause: Duration,
) -> io::Result<Woken> {
    let mut fds = vec![PollFd::from_borrowed_fd(out.as_fd(), PollFlags::empty())];
    fds.extend(wake.map(|wake| PollFd::from_borrowed_fd(wake, PollFlags::IN)));
    // What is too long for poll(2) is as good as without an end.
    let pause = Timespec::try_from(pause).ok();
    match poll(&mut fds, pause.as_ref()) {
        Ok(0) => Ok(Woken::Time),
        Ok(_) if fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => {
            Ok(Woken::Closed)
        }
        Ok(_) | Err(Errno::INTR) => Ok(Woken::Other),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::pipe;
    use std::time::Instant;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_reader_that_goes_away_ends_a_wait_at_once() {
        let (reader, writer) = pipe().unwrap();
        let begun = Instant::now();
        assert_eq!(wait(&writer, None, Duration::from_millis(20)).unwrap(), Woken::Time);
        assert!(begun.elapsed() >= Duration::from_millis(20));
        drop(reader);
        assert_eq!(wait(&writer, None, LONG).unwrap(), Woken::Closed);
    }

    #[test]
    fn what_is_to_wake_it_does() {
        use std::io::Write;
        let (_reader, out) = pipe().unwrap();
        let (wake, mut waker) = pipe().unwrap();
        waker.write_all(b"X").unwrap();
        let woken = wait(&out, Some(wake.as_fd()), LONG).unwrap();
        assert_eq!(woken, Woken::Other);
    }

    #[test]
    fn a_file_is_waited_for_to_the_end() {
        let file = tempfile::tempfile().unwrap();
        let woken = wait(&file, None, Duration::from_millis(5)).unwrap();
        assert_eq!(woken, Woken::Time);
    }
}
