//! Promises that must hold under concurrent changes: locks, exactly once, order, cost.

mod collisions;
mod effective_time_plans;
mod exactly_once;
mod external_row_lock;
mod funds_races;
mod hold_expiry;
mod hold_expiry_races;
mod hold_races;
mod locking;
mod locking_negative_control;
mod model_based;
mod overdraft_race;
mod paging_under_writes;
mod query_plans;
mod rejected_by_database;
mod request_races;
mod round_trips;
mod settled_times;
mod turns;
