//! Servers that others wrote, as people start them.

use crate::fixtures::foreign::Foreign;

/// Python's http.server, the backlog of which is 5; a thread a connection, or one at all.
fn http_server(class: &str, limit: &str) -> Foreign {
    Foreign::start(&format!(
        "
import http.server, resource
{limit}
class Mute(http.server.{class}):
    def handle_error(self, request, client): pass  # a reset is none
server = Mute(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)
ready(server.socket)
server.serve_forever()"
    ))
}

#[test]
fn a_threaded_http_server_holds_what_is_dialed_no_faster_than_it_accepts() {
    let server = http_server("ThreadingHTTPServer", "");
    let slowly = ["--max", "60", "--rate", "50"];
    let outcome = server.probe().with(&slowly).run();
    outcome.is("requested", "certain");
    outcome.holds(60);
}

#[test]
fn a_burst_that_outruns_a_small_backlog_is_not_held() {
    let server = Foreign::start(
        "
s = listener(5)
ready(s)
held = []
while True:
    held.append(s.accept())
    time.sleep(0.01)",
    );
    let outcome = server.probe().with(&["--max", "300"]).run();
    let phantoms = outcome.number("/result/phantoms/total");
    assert_eq!(outcome.count("deferred"), 0, "{outcome}");
    if phantoms == 0 {
        outcome.holds(300);
    } else if outcome.code() == "server.slow_accept" {
        assert_eq!(outcome.held() + phantoms, 300, "{outcome}");
    }
    assert!(outcome.code() != "requested" || phantoms == 0, "{outcome}");
}

#[test]
fn a_threaded_http_server_comes_to_its_fd_limit() {
    let limit = "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))";
    let server = http_server("ThreadingHTTPServer", limit);
    let outcome = server.probe().run();
    outcome.is("server.fd_limit", "certain");
    assert!((40..64).contains(&outcome.held()), "{outcome}");
    assert_eq!(outcome.fact(&format!("open fds of pid {}", server.pid())), "64 of 64");
    outcome.fills(5);
}

#[test]
fn a_single_threaded_http_server_holds_one_and_queues_six() {
    let server = http_server("HTTPServer", "");
    let outcome = server.probe().with(&["--threads", "1"]).run();
    outcome.is("server.accept_queue", "certain");
    outcome.holds(1);
    outcome.fills(5);
    assert_eq!(outcome.fact("accept queue"), "6, full (backlog 5 + 1)");
}

#[test]
fn a_server_that_takes_one_client_and_listens_no_more() {
    let server = Foreign::start(
        "
s = listener(1)
ready(s)
client = s.accept()
s.close()
signal.pause()",
    );
    let outcome = server.probe().run();
    outcome.is("server.died", "certain");
    assert!(outcome.summary().contains("stopped listening"), "{outcome}");
}
