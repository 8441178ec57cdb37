//! Each command as its users see it.

mod backlog;
mod compare;
mod gate;
mod limits;
mod limits_egress;
mod limits_fixtures;
mod limits_measure;
mod metrics;
mod probe;
mod probe_ends;
mod probe_printing;
mod probe_record;
mod probe_refusals;
mod repeat;
mod run_schema;
mod serve;
mod serve_faults;
mod sockets;
mod sockets_kill;
mod sockets_one;
mod sockets_process;
mod sockets_schema;
mod sockets_summary;
mod sockets_watch;
mod sockets_watch_screen;
