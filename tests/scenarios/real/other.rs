//! Servers of other kinds.

use super::{PLAIN, Remedy, Scenario, expect, set};

pub(super) const ALL: &[&Scenario] =
    &[&SSHD, &PYTHON_THREADS, &PYTHON_ONE, &SOCKETSERVER];

/// Beyond 10 that have not logged in, 60 % are dropped, and more the more there are; all
/// beyond 30.
pub(super) const SSHD: Scenario = Scenario {
    name: "OpenSSH, MaxStartups",
    files: &[(
        "sshd_config",
        "
Port 2000
HostKey {dir}/hostkey
PidFile none
UsePAM no
MaxStartups {limit}
LoginGraceTime 30
",
    )],
    prepare: &[
        &["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "{dir}/hostkey"],
        &["mkdir", "-p", "/run/sshd"],
    ],
    // It starts itself anew by its whole path.
    command: &["/usr/sbin/sshd", "-D", "-e", "-f", "{dir}/sshd_config"],
    limit: "10:60:30",
    probe: &["--max", "100"],
    here: expect("server.random_drop", "likely", 10..=30),
    outside: expect("server.random_drop", "likely", 10..=30),
    remedy: set("60:60:60", "MaxStartups of OpenSSH"),
    after: 60..=60,
    ..PLAIN
};

const PYTHON: &[(&str, &str)] = &[(
    "server.py",
    "
import http.server
class Server(http.server.{limit}):
    request_queue_size = 128
    def handle_error(self, request, client): pass  # a reset is none
Server(('0.0.0.0', 2000), http.server.SimpleHTTPRequestHandler).serve_forever()
",
)];

/// A thread each, and a descriptor.
pub(super) const PYTHON_THREADS: Scenario = Scenario {
    name: "Python http.server, threads, RLIMIT_NOFILE",
    files: PYTHON,
    command: &["prlimit", "--nofile=64:400", "python3", "{dir}/server.py"],
    limit: "ThreadingHTTPServer",
    probe: &["--max", "300", "--rate", "200"],
    here: expect("server.fd_limit", "certain", 50..=63),
    outside: expect("server.accept_queue", "possible", 175..=195),
    remedy: Remedy::Printed,
    after: 300..=300,
    ..PLAIN
};

/// One after the other.
pub(super) const PYTHON_ONE: Scenario = Scenario {
    name: "Python http.server, one at a time",
    files: PYTHON,
    command: &["python3", "{dir}/server.py"],
    limit: "HTTPServer",
    probe: &["--max", "200", "--rate", "200"],
    here: expect("server.accept_queue", "certain", 1..=1),
    outside: expect("server.accept_queue", "possible", 129..=131),
    remedy: set("ThreadingHTTPServer", "instead of accept()"),
    after: 200..=200,
    ..PLAIN
};

/// Its own queue is one of 5 and one.
pub(super) const SOCKETSERVER: Scenario = Scenario {
    name: "Python socketserver, request_queue_size 5",
    files: &[(
        "server.py",
        "
import socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile: self.wfile.write(line)
class Server(socketserver.{limit}):
    allow_reuse_address = True
    def handle_error(self, request, client): pass  # a reset is none
Server(('0.0.0.0', 2000), Echo).serve_forever()
",
    )],
    limit: "TCPServer",
    outside: expect("server.accept_queue", "possible", 7..=8),
    remedy: set("ThreadingTCPServer", "instead of accept()"),
    ..PYTHON_ONE
};
