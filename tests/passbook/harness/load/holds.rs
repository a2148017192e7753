//! Concurrent callers: holds that are placed, updated, captured, released or expire, and accounts that are
//! updated, frozen and unfrozen.

use passbook::proto::{AccountState, PlaceHoldRequest, UpdateAccountRequest};
use tokio::{sync::watch, task::JoinSet};

use crate::harness::{
    Change, Client, capture, capture_and_keep, from_now, hold_named, hold_update, labels, mask, ms,
    open_funded, release, request::settle, set_state, update_of,
};

/// A load in the background.
pub struct HoldLoad {
    stop: watch::Sender<bool>,
    calling: JoinSet<()>,
}

impl HoldLoad {
    /// Opens `count` accounts, and starts two callers on each.
    pub async fn start(count: usize, clients: &[Client]) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut calling = JoinSet::new();
        for number in 0..count {
            let account_id = format!("held-{number}");
            open_funded(&clients[0], &account_id, "100000").await;
            for caller in ["a", "b"] {
                let (account_id, clients) = (account_id.clone(), clients.to_vec());
                let stopped = stopped.clone();
                calling.spawn(async move {
                    for round in 0.. {
                        if *stopped.borrow() {
                            return;
                        }
                        use_hold(&account_id, &format!("{number}-{caller}-{round}"), &clients)
                            .await;
                        change_account(&account_id, round, &clients).await;
                    }
                });
            }
        }
        Self { stop, calling }
    }

    /// Stops the load after the results that its callers wait for.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.calling.join_all().await;
    }
}

/// Places, updates and ends a hold. The other caller may have frozen the account, or the hold may have
/// expired: then some of it is rejected.
async fn use_hold(account_id: &str, name: &str, clients: &[Client]) {
    let placed = hold_named(name, account_id, "5");
    let (expire_time, ends) = match fastrand::u8(0..4) {
        0 => (Some(from_now(ms(300))), vec![]),
        1 => (None, vec![capture(name).into()]),
        2 => (None, vec![capture_and_keep(name, "2").into(), release(name).into()]),
        _ => (None, vec![release(name).into()]),
    };
    let mut changes: Vec<Change> = vec![
        PlaceHoldRequest { expire_time, ..placed }.into(),
        hold_update(name, &format!("{}", fastrand::u8(3..9))).into(),
    ];
    changes.extend(ends);
    for change in changes {
        change.settle(clients).await;
    }
}

/// Updates the account, or freezes and unfreezes it.
async fn change_account(account_id: &str, round: usize, clients: &[Client]) {
    if round.is_multiple_of(2) {
        let update = UpdateAccountRequest {
            labels: labels(&[("round", &round.to_string())]),
            update_mask: mask(&["labels"]),
            ..update_of(account_id)
        };
        let update = |client: Client| {
            let update = update.clone();
            async move { client.update_account(update).await }
        };
        // A rejection is a result as well.
        let _ = settle(account_id, clients, update).await;
        return;
    }
    for state in [AccountState::Frozen, AccountState::Open] {
        let set = |client| async move { set_state(&client, account_id, state, "", None).await };
        let _ = settle(account_id, clients, set).await;
    }
}
