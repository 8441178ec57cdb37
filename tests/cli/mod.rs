//! Each command as its users see it.

mod probe;
mod probe_ends;
mod probe_printing;
mod probe_record;
mod probe_refusals;
mod serve;
mod serve_faults;
mod sockets;
mod sockets_schema;
mod sockets_watch;
mod sockets_watch_screen;
