//! Databases and caches.

use super::{Controller, PLAIN, Remedy, Scenario, User, expect, set};

pub(super) const ALL: &[&Scenario] = &[
    &REDIS,
    &REDIS_ASKED,
    &REDIS_TIMEOUT,
    &REDIS_STOPPED,
    &REDIS_BUSY,
    &REDIS_MEMORY,
    &MEMCACHED,
    &POSTGRES,
    &POSTGRES_MUTE,
];

pub(super) const REDIS: Scenario = Scenario {
    name: "Redis, maxclients",
    files: &[(
        "redis.conf",
        "
port 2000
bind 0.0.0.0
protected-mode no
maxclients {limit}
dir {dir}
",
    )],
    command: &["redis-server", "{dir}/redis.conf", "--save", ""],
    limit: "100",
    here: expect("server.rejects", "certain", 100..=100),
    outside: expect("server.rejects", "likely", 100..=100),
    remedy: set("250", "redis-server["),
    after: 250..=250,
    ..PLAIN
};

pub(super) const REDIS_ASKED: Scenario = Scenario {
    name: "Redis, maxclients, --speak redis",
    probe: &["--max", "300", "--speak", "redis"],
    ..REDIS
};

/// It looks once a second.
pub(super) const REDIS_TIMEOUT: Scenario = Scenario {
    name: "Redis, timeout",
    files: &[(
        "redis.conf",
        "
port 2000
bind 0.0.0.0
protected-mode no
timeout {limit}
dir {dir}
",
    )],
    limit: "4",
    probe: &["--max", "50", "--hold", "8s"],
    here: expect("server.idle_timeout", "likely", 0..=0),
    outside: expect("server.idle_timeout", "likely", 0..=0),
    remedy: set("60", "idle timeout"),
    after: 50..=50,
    ..REDIS
};

const WITH_A_BACKLOG: &[(&str, &str)] = &[(
    "redis.conf",
    "
port 2000
bind 0.0.0.0
protected-mode no
tcp-backlog 50
busy-reply-threshold 0
dir {dir}
",
)];

/// Its queue is all that it takes: tcp-backlog and one.
pub(super) const REDIS_STOPPED: Scenario = Scenario {
    name: "Redis, stopped (SIGSTOP), tcp-backlog 50",
    files: WITH_A_BACKLOG,
    arrange: |scene| scene.stop(),
    limit: "",
    here: expect("server.stopped", "certain", 0..=0),
    outside: expect("server.accept_queue", "possible", 51..=52),
    remedy: Remedy::Printed,
    after: 300..=300,
    ..REDIS
};

/// It says that it has begun, and does nothing else until it has ended.
pub(super) const REDIS_BUSY: Scenario = Scenario {
    name: "Redis, a script that does not end, tcp-backlog 50",
    command: &[
        "sh",
        "-c",
        "redis-server {dir}/redis.conf --save '' & \
         until redis-cli -p 2000 EVAL \"redis.log(redis.LOG_WARNING, 'has begun') {limit}\" 0; \
         do sleep 0.1; done; wait",
    ],
    arrange: |scene| scene.says("has begun"),
    limit: "while true do end",
    here: expect("server.accept_queue", "certain", 0..=0),
    remedy: set("return 1", "instead of accept()"),
    ..REDIS_STOPPED
};

/// Some 3 KB for each, until the kernel kills it.
pub(super) const REDIS_MEMORY: Scenario = Scenario {
    name: "Redis, 4 MiB of memory in its cgroup",
    files: &[(
        "redis.conf",
        "
port 2000
bind 0.0.0.0
protected-mode no
maxclients 20000
dir {dir}
",
    )],
    cgroup: Some(Controller::Memory),
    arrange: |scene| scene.bound(scene.limit.parse().unwrap()),
    limit: "4194304",
    probe: &["--max", "5000"],
    here: expect("server.memory", "certain", 0..=0),
    outside: expect("server.died", "likely", 0..=0),
    remedy: set("536870912", "echo 16777216 > "),
    after: 5000..=5000,
    ..REDIS
};

pub(super) const MEMCACHED: Scenario = Scenario {
    name: "memcached, -c",
    command: &["memcached", "-p", "2000", "-U", "0", "-t", "2", "-c", "{limit}"],
    user: User::Nobody,
    limit: "100",
    // Its own descriptors count.
    here: expect("server.rejects", "certain", 70..=99),
    outside: expect("server.rejects", "likely", 70..=99),
    remedy: set("250", "memcached["),
    after: 220..=249,
    ..PLAIN
};

const INITDB: &[&str] = &[
    "sh",
    "-c",
    "/usr/lib/postgresql/*/bin/initdb -D {dir}/data -A trust -U postgres --no-sync \
     -E UTF8 --locale C && echo host all all all trust >> {dir}/data/pg_hba.conf",
];

/// It tells its limit to those that ask to log in.
pub(super) const POSTGRES: Scenario = Scenario {
    name: "PostgreSQL, max_connections",
    prepare: &[INITDB],
    command: &[
        "sh",
        "-c",
        "exec /usr/lib/postgresql/*/bin/postgres -D {dir}/data -p 2000 -k {dir} \
         -c listen_addresses=0.0.0.0 -c max_connections={limit} \
         -c superuser_reserved_connections=0 -c shared_buffers=1MB -c fsync=off",
    ],
    user: User::Nobody,
    limit: "20",
    probe: &["--max", "60", "--speak", "postgres"],
    here: expect("server.rejects", "certain", 20..=20),
    outside: expect("server.rejects", "likely", 20..=20),
    remedy: set("40", "postgres["),
    after: 40..=40,
    ..PLAIN
};

/// Who says nothing meets no limit: a process each waits for authentication_timeout.
pub(super) const POSTGRES_MUTE: Scenario = Scenario {
    name: "PostgreSQL, a bare TCP client",
    probe: &["--max", "60"],
    here: expect("requested", "certain", 60..=60),
    outside: expect("requested", "certain", 60..=60),
    remedy: set("20", "--max 120"),
    after: 60..=60,
    ..POSTGRES
};
