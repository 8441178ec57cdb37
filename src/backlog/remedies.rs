//! Where the common servers are told their backlog, by the name of their process.

/// How a server is told its backlog.
#[derive(Debug)]
struct Server {
    /// Names of its process, or how they begin where they end in `*`.
    comms: &'static [&'static str],
    /// Where it is said, `{port}` and `{n}` to be filled in.
    setting: &'static str,
    /// What makes it listen() anew.
    then: &'static str,
}

const RESTART: &str = "restart it";

const SERVERS: &[Server] = &[
    Server {
        comms: &["nginx", "openresty", "angie"],
        setting: "listen {port} backlog={n};",
        then: "nginx -s reload",
    },
    Server {
        comms: &["redis-server", "valkey-server", "redis-sentinel", "keydb-server"],
        setting: "tcp-backlog {n}",
        then: RESTART,
    },
    Server { comms: &["haproxy"], setting: "bind :{port} backlog {n}", then: RESTART },
    Server {
        comms: &["node", "nodejs", "node-MainThread", "MainThread"],
        setting: "server.listen({port: {port}, backlog: {n}})",
        then: RESTART,
    },
    Server {
        comms: &["java", "jsvc"],
        setting: "new ServerSocket({port}, {n}); Tomcat: acceptCount=\"{n}\"; Netty: \
                  ChannelOption.SO_BACKLOG, {n}",
        then: RESTART,
    },
    Server { comms: &["gunicorn*"], setting: "gunicorn --backlog {n}", then: RESTART },
    Server { comms: &["uvicorn"], setting: "uvicorn --backlog {n}", then: RESTART },
    Server { comms: &["hypercorn"], setting: "hypercorn --backlog {n}", then: RESTART },
    Server { comms: &["uwsgi*"], setting: "uwsgi --listen {n}", then: RESTART },
    Server {
        comms: &["python*", "pypy*"],
        setting: "socket.listen({n}); asyncio: start_server(…, backlog={n}); socketserver: \
                  request_queue_size = {n}",
        then: RESTART,
    },
    Server {
        comms: &[
            "go",
            "caddy",
            "traefik",
            "dockerd",
            "containerd",
            "etcd",
            "prometheus",
            "minio",
            "vault",
            "consul",
            "kube-apiserver",
        ],
        setting: "Go takes net.core.somaxconn as it is when it listens: sysctl -w \
                  net.core.somaxconn={n}",
        then: RESTART,
    },
    Server { comms: &["apache2", "httpd"], setting: "ListenBacklog {n}", then: RESTART },
    Server {
        comms: &["lighttpd"],
        setting: "server.listen-backlog = {n}",
        then: RESTART,
    },
    Server { comms: &["php-fpm*"], setting: "listen.backlog = {n}", then: RESTART },
    Server { comms: &["mysqld", "mariadbd"], setting: "back_log = {n}", then: RESTART },
    Server {
        comms: &["postgres", "postmaster"],
        setting: "max_connections: PostgreSQL asks for twice that ({n} needs half of it)",
        then: RESTART,
    },
    Server { comms: &["memcached"], setting: "memcached -b {n}", then: RESTART },
    Server { comms: &["envoy"], setting: "tcp_backlog_size: {n}", then: RESTART },
    Server {
        comms: &["puma*", "ruby*"],
        setting: "Puma: bind \"tcp://0.0.0.0:{port}?backlog={n}\"",
        then: RESTART,
    },
    Server {
        comms: &["beam.smp", "erl_child_setup"],
        setting: "the backlog option of gen_tcp:listen: {backlog, {n}}; RabbitMQ: \
                  tcp_listen_options.backlog = {n}",
        then: RESTART,
    },
    Server {
        comms: &["systemd"],
        setting: "Backlog={n} in the .socket unit",
        then: "systemctl daemon-reload, and restart the .socket unit",
    },
    Server {
        comms: &["sockscope"],
        setting: "sockscope serve --backlog {n}",
        then: RESTART,
    },
];

/// How the server whose process is called `comm` is given a backlog of `n`, in a line.
#[must_use]
pub fn for_server(comm: Option<&str>, port: Option<u16>, n: u64) -> String {
    let fits = |name: &&str, comm: &str| match name.strip_suffix('*') {
        Some(start) => comm.starts_with(start),
        None => comm == *name,
    };
    let known = comm.and_then(|comm| {
        SERVERS.iter().find(|server| server.comms.iter().any(|name| fits(name, comm)))
    });
    let (setting, then) = match known {
        Some(server) => (server.setting, server.then),
        None => ("listen(fd, {n}) where the server is told its backlog", RESTART),
    };
    let port = port.map_or_else(|| "PATH".to_owned(), |port| port.to_string());
    // Braces of the languages themselves stay: these two names alone are filled in.
    let setting = setting.replace("{port}", &port).replace("{n}", &n.to_string());
    format!("{setting}, then {then}")
}

/// The same for each of the most common servers, where it is not known which it is.
#[must_use]
pub fn for_common(port: Option<u16>, n: u64) -> Vec<String> {
    let common = [
        ("nginx", "nginx"),
        ("Redis", "redis-server"),
        ("HAProxy", "haproxy"),
        ("Node", "node"),
        ("Java", "java"),
        ("Python", "python3"),
        ("Go", "go"),
    ];
    let said = common.map(|(name, comm)| {
        let told = for_server(Some(comm), port, n);
        // Go's own line begins by its name.
        let told = told.strip_prefix(name).map(str::trim_start).unwrap_or(&told);
        format!("{name}: {told}")
    });
    said.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_common_server_has_its_own_words() {
        for (comm, says) in [
            ("nginx", "listen 7000 backlog=256;, then nginx -s reload"),
            ("redis-server", "tcp-backlog 256, then restart it"),
            ("haproxy", "bind :7000 backlog 256, then restart it"),
            ("node", "server.listen({port: 7000, backlog: 256}), then restart it"),
            ("java", "new ServerSocket(7000, 256); "),
            ("python3.13", "socket.listen(256); "),
            ("caddy", "sysctl -w net.core.somaxconn=256, then restart it"),
            ("php-fpm8.2", "listen.backlog = 256"),
            ("beam.smp", "{backlog, 256}"),
            ("unheard-of", "listen(fd, 256) where"),
        ] {
            let said = for_server(Some(comm), Some(7000), 256);
            assert!(said.contains(says), "{comm}: {said}");
        }
        assert!(for_server(None, None, 16).starts_with("listen(fd, 16)"));
    }

    #[test]
    fn no_placeholder_is_left_and_no_name_stands_twice() {
        let mut all: Vec<&str> =
            SERVERS.iter().flat_map(|one| one.comms).copied().collect();
        for comm in &all {
            let said = for_server(Some(comm.trim_end_matches('*')), Some(80), 512);
            assert!(!said.contains("{n}") && !said.contains("{port}"), "{said}");
            assert!(said.contains("512"), "{said}");
        }
        let names = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), names);
    }
}
