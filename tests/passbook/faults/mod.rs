//! Promises that must hold when something breaks: processes, connections, disks, time, other programs.

mod bounded_lists;
mod cancellation;
mod connection_loss;
mod deadlines;
mod disk_full;
mod failover;
mod few_connections;
mod injected_errors;
mod isolation;
mod kill_under_load;
mod overload;
mod partition;
mod resolve_after_kill;
mod shutdown;
mod sqlite_file;
mod two_primaries;
mod watch_entries_faults;
mod watch_events_after_losses;
mod watch_events_faults;
