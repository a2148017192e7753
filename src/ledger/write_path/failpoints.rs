//! Panics that the tests of this module order.

use std::sync::{Arc, Mutex};

use crate::{ledger::write_path::job::Job, lock::lock};

/// Where an attempt panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Inside the transaction, with the locks held and the jobs claimed.
    BeforeWrite,
    /// After the commit, before anyone is answered.
    AfterCommit,
}

/// Request ids, where to panic, and how often.
static ORDERS: Mutex<Vec<(String, Point, usize)>> = Mutex::new(Vec::new());

/// Makes the next attempts with this request in them panic.
pub fn arm(request_id: &str, point: Point, times: usize) {
    lock(&ORDERS).push((request_id.to_owned(), point, times));
}

/// Panics if that was ordered.
pub fn hit(point: Point, jobs: &[Arc<Job>]) {
    let has = |request_id: &str| {
        let mut keys = jobs.iter().filter_map(|job| job.command.key());
        keys.any(|key| key.request_id.as_str() == request_id)
    };
    let mut orders = lock(&ORDERS);
    let due = orders.iter_mut().find(|(id, at, times)| *at == point && *times > 0 && has(id));
    if let Some((request_id, _, times)) = due {
        *times -= 1;
        panic!("ordered by the test of {request_id} at {point:?}");
    }
}
