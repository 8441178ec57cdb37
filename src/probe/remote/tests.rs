use super::*;
use std::fs;
use std::time::Instant;

fn start(command: &str) -> Result<Remote, RemoteError> {
    Remote::start(command, ProcRoot::default(), &AtomicBool::new(false))
}

/// Prints a sample whose clock is right, then does `then`.
fn sampling(then: &str) -> String {
    format!(
        "echo '{{\"schema\":\"sockscope.backlog_sample/1\",\"listening\":true,\
         \"clock_unix_us\":'$(date +%s%6N)'}}'; {then}"
    )
}

fn codes(remote: Remote) -> Vec<String> {
    remote.warnings().into_iter().map(|w| w.code).collect()
}

#[test]
fn a_command_that_fails_says_why_in_one_line() {
    let error = start("echo no route >&2; exit 3").unwrap_err().to_string();
    assert_eq!(
        error,
        "the evidence command ended before it gave a sample (exit status 3); it said: no \
         route"
    );
    let error = start("nonesuch-sockscope").unwrap_err().to_string();
    assert!(error.contains("exit status 127") && error.contains("not found"), "{error}");
    let error = start("echo Welcome; echo again").unwrap_err().to_string();
    assert!(error.contains("2 lines it printed are no samples, the first: 'Welcome'"));
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn an_interrupt_ends_the_waiting() {
    let interrupted = AtomicBool::new(true);
    let began = Instant::now();
    let error = Remote::start("sleep 30", ProcRoot::default(), &interrupted).unwrap_err();
    assert!(matches!(error, RemoteError::Interrupted), "{error}");
    assert!(began.elapsed() < FIRST_WITHIN);
}

#[test]
fn the_command_and_what_it_started_end_with_the_probe() {
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("pids");
    let path = note.display();
    // Deaf to TERM, and with a child of its own.
    let then = format!("trap '' TERM; sleep 60 & echo $$ $! >{path}; wait; sleep 60");
    let remote = start(&sampling(&then)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut pids = String::new();
    while !pids.ends_with('\n') {
        assert!(Instant::now() < deadline, "no pids");
        pids = fs::read_to_string(&note).unwrap_or_default();
    }
    drop(remote);
    for pid in pids.split_whitespace() {
        let gone = || match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        while !gone() {
            assert!(Instant::now() < deadline, "{pid} is still there");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_command_that_ends_or_lags_is_told_of_once() {
    let outside = || Evidence::default();
    let never = AtomicBool::new(false);
    let mut remote = start(&sampling("exit 9")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !remote.inbox.look().ended {
        assert!(Instant::now() < deadline, "its end is not noticed");
        thread::sleep(Duration::from_millis(5));
    }
    let evidence = remote.evidence(outside(), &never);
    assert!(evidence.remote.is_none_or(|host| host.is_shaky));
    assert_eq!(codes(remote), ["evidence_ended"]);

    let mut remote = start(&sampling("sleep 60")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while remote.glance().is_ok() {
        assert!(Instant::now() < deadline, "an old sample is still taken");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(!remote.evidence(outside(), &never).sees_server);
    assert_eq!(codes(remote), ["evidence_lags"]);
}

#[test]
fn more_than_are_open_cannot_be_ours() {
    let now = CountsSample { accepted: 60, queued: 7, ..CountsSample::default() };
    let parts = |open| {
        let (side, others) = ours(&now, open);
        (side.accepted, side.queued, others)
    };
    assert_eq!((parts(80), parts(62), parts(5)), ((60, 7, 0), (60, 2, 5), (5, 0, 62)));
}
