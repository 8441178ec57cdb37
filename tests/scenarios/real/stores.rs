//! Databases and caches.

use super::{PLAIN, Scenario, User, expect, set};

pub(super) const ALL: &[&Scenario] =
    &[&REDIS, &REDIS_ASKED, &MEMCACHED, &POSTGRES, &POSTGRES_MUTE];

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
