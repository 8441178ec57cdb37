//! Web servers and a proxy.

use std::time::Duration;

use super::{PLAIN, Scenario, Way, expect, set};

pub(super) const ALL: &[&Scenario] = &[
    &NGINX,
    &NGINX_HTTP,
    &NGINX_FDS,
    &NGINX_KEEPALIVE,
    &HAPROXY,
    &HAPROXY_HTTP,
    &LIGHTTPD,
    &FAR_AWAY,
    &APACHE,
    &NODE,
    &NODE_HTTP,
];

const NGINX_CONF: &str = r#"
daemon off; worker_processes 1; pid {dir}/pid; error_log {dir}/log;
events { worker_connections {limit}; }
http {
    access_log off;
    client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server { listen 2000 backlog=64; location / { return 200 "yes"; } }
}
"#;

const NGINX_COMMAND: &[&str] = &["nginx", "-p", "{dir}", "-c", "{dir}/nginx.conf"];

/// It ends idle connections for new ones, up to 32 at a time.
pub(super) const NGINX: Scenario = Scenario {
    name: "nginx, worker_connections",
    files: &[("nginx.conf", NGINX_CONF)],
    command: NGINX_COMMAND,
    limit: "100",
    here: expect("server.evicts", "likely", 60..=99),
    outside: expect("server.evicts", "likely", 60..=99),
    remedy: set("250", "limit on connections"),
    after: 180..=249,
    ..PLAIN
};

/// Kept alive, they are idle, too.
pub(super) const NGINX_HTTP: Scenario =
    Scenario { name: "nginx, worker_connections, over HTTP", http: true, ..NGINX };

/// More connections than descriptors.
pub(super) const NGINX_FDS: Scenario = Scenario {
    name: "nginx, worker_rlimit_nofile",
    files: &[(
        "nginx.conf",
        r#"
daemon off; worker_processes 1; pid {dir}/pid; error_log {dir}/log;
worker_rlimit_nofile {limit};
events { worker_connections 1000; }
http {
    access_log off;
    client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server { listen 2000 backlog=64; location / { return 200 "yes"; } }
}
"#,
    )],
    command: NGINX_COMMAND,
    limit: "100",
    here: expect("server.fd_limit", "certain", 80..=99),
    // What is queued is confirmed.
    outside: expect("server.accept_queue", "possible", 145..=170),
    remedy: set("400", "prlimit --pid "),
    after: 300..=300,
    ..PLAIN
};

/// Answered once, and kept for so long.
pub(super) const NGINX_KEEPALIVE: Scenario = Scenario {
    name: "nginx, keepalive_timeout",
    files: &[(
        "nginx.conf",
        r#"
daemon off; worker_processes 1; pid {dir}/pid; error_log {dir}/log;
events { worker_connections 1000; }
http {
    access_log off; keepalive_timeout {limit};
    client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server { listen 2000; location / { return 200 "yes"; } }
}
"#,
    )],
    command: NGINX_COMMAND,
    limit: "4s",
    http: true,
    probe: &["--max", "50", "--hold", "8s"],
    here: expect("server.idle_timeout", "likely", 0..=0),
    outside: expect("server.idle_timeout", "likely", 0..=0),
    remedy: set("60s", "idle timeout"),
    after: 50..=50,
    ..PLAIN
};

/// What it does not accept waits: its backlog is its maximum.
pub(super) const HAPROXY: Scenario = Scenario {
    name: "HAProxy, maxconn",
    files: &[(
        "haproxy.cfg",
        "
global
    maxconn {limit}
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 5s
frontend all
    bind *:2000
    http-request return status 200
",
    )],
    command: &["haproxy", "-db", "-f", "{dir}/haproxy.cfg"],
    limit: "80",
    here: expect("server.accept_queue", "certain", 80..=80),
    outside: expect("server.accept_queue", "possible", 161..=162),
    remedy: set("140", "haproxy["),
    after: 140..=140,
    ..PLAIN
};

pub(super) const HAPROXY_HTTP: Scenario = Scenario {
    name: "HAProxy, maxconn, over HTTP",
    http: true,
    probe: &["--max", "300", "--reply-timeout", "1s"],
    outside: expect("server.unserved", "likely", 80..=80),
    ..HAPROXY
};

pub(super) const LIGHTTPD: Scenario = Scenario {
    name: "lighttpd, server.max-connections",
    files: &[(
        "lighttpd.conf",
        "
server.port = 2000
server.document-root = \"{dir}\"
server.max-connections = {limit}
server.max-fds = 1024
server.listen-backlog = 64
server.errorlog = \"{dir}/log\"
",
    )],
    command: &["lighttpd", "-D", "-f", "{dir}/lighttpd.conf"],
    limit: "100",
    here: expect("server.accept_queue", "certain", 100..=100),
    outside: expect("server.accept_queue", "possible", 165..=166),
    remedy: set("200", "lighttpd["),
    after: 200..=200,
    ..PLAIN
};

/// Its queue is full when handshakes end that began before it was: what connect() calls
/// established is more than the server has.
pub(super) const FAR_AWAY: Scenario = Scenario {
    name: "lighttpd, server.max-connections, over a link of 100 ms",
    way: Way::Slow { round_trip: Duration::from_millis(100) },
    neighbour: true,
    probe: &["--max", "300", "--rate", "200"],
    ..LIGHTTPD
};

/// A process each. It defers (AcceptFilter http): who says nothing is not accepted.
pub(super) const APACHE: Scenario = Scenario {
    name: "Apache prefork, MaxRequestWorkers",
    files: &[(
        "apache.conf",
        "
ServerRoot {dir}
PidFile {dir}/pid
ErrorLog {dir}/log
DefaultRuntimeDir {dir}
ServerName scenario
LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
Listen 2000
ListenBacklog 64
StartServers {limit}
MinSpareServers {limit}
MaxSpareServers 100
ServerLimit 100
MaxRequestWorkers {limit}
KeepAliveTimeout 60
User nobody
Group nogroup
DocumentRoot {dir}
",
    )],
    command: &["apache2", "-d", "{dir}", "-f", "{dir}/apache.conf", "-DFOREGROUND"],
    limit: "20",
    http: true,
    probe: &["--max", "200", "--reply-timeout", "1s"],
    here: expect("server.accept_queue", "certain", 20..=20),
    outside: expect("server.unserved", "likely", 20..=20),
    remedy: set("50", "apache2["),
    after: 50..=50,
    ..PLAIN
};

/// It closes what is beyond; bytes that it has not read make a RST of that.
pub(super) const NODE: Scenario = Scenario {
    name: "Node.js, server.maxConnections",
    files: &[(
        "server.js",
        "
const server = require('http').createServer((_, reply) => reply.end('yes'));
server.maxConnections = {limit};
server.keepAliveTimeout = 60000;
server.listen(2000, '0.0.0.0');
",
    )],
    command: &["node", "{dir}/server.js"],
    limit: "50",
    here: expect("server.closes_new", "certain", 50..=50),
    outside: expect("server.closes_new", "likely", 50..=50),
    remedy: set("150", "settings of node["),
    after: 150..=150,
    ..PLAIN
};

/// Whether it has read the request when it closes is chance.
pub(super) const NODE_HTTP: Scenario =
    Scenario { name: "Node.js, server.maxConnections, over HTTP", http: true, ..NODE };
