//! The entries of the audit log that wait to be written.

use std::{collections::HashMap, mem};

use tokio::sync::oneshot;

use crate::{
    audit::entry::{Entry, Event},
    domain::ids::Identity,
};

/// The memory of the entries that wait to be written. Less, and a pause of the disk loses lines or
/// stops changes. An entry takes about 500 bytes, and 40 KiB with all legs and labels.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// What others may have beside the identities that fill the queue. Each may have as much as is free, so
/// that the next one finds room, too.
const OTHERS_BYTES_MAX: usize = BYTES_MAX / 2;

/// Entries, and those who wait for them.
#[derive(Default)]
pub struct Queue {
    pub entries: Vec<Entry>,
    /// About the memory of the entries.
    bytes: usize,
    by_identity: HashMap<Identity, usize>,
    /// Answered when the entries before them are written and, if the audit log is required, on the
    /// disk. Dropped if they cannot be written.
    pub waiters: Vec<oneshot::Sender<()>>,
    /// Entries that were left out because the queue was full.
    pub lost: u64,
    /// The last write failed.
    pub is_failing: bool,
}

impl Queue {
    /// Whether one more entry of this identity may wait. Identities that fill the queue have no more room
    /// in it; the others have.
    pub fn has_room(&self, identity: &Identity) -> bool {
        if self.bytes < BYTES_MAX {
            return true;
        }
        let own = self.by_identity.get(identity).copied().unwrap_or(0);
        own < (BYTES_MAX + OTHERS_BYTES_MAX).saturating_sub(self.bytes)
    }

    /// Adds an entry, whether or not there is room.
    pub fn push(&mut self, event: Event) {
        let bytes = event.bytes();
        self.bytes += bytes;
        if let Some(identity) = event.identity() {
            *self.by_identity.entry(identity.clone()).or_default() += bytes;
        }
        self.entries.push(Entry::now(event));
    }

    /// Takes all entries.
    pub fn take_entries(&mut self) -> Vec<Entry> {
        self.bytes = 0;
        self.by_identity.clear();
        mem::take(&mut self.entries)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        audit::{Credential, Origin, entry::Denial},
        domain::{
            command::{Action, Command, Reversal, TransactionRef},
            fixtures::{request, transaction, usd},
            transaction::TransactionKind,
        },
    };

    #[test]
    fn an_entry_counts_what_was_looked_up_for_its_command() {
        let label = |it: usize| (format!("{it:0>63}"), "v".repeat(256));
        let bytes = |labels| {
            let mut made = transaction(TransactionKind::Posting, &usd(), &[("a", "1")]);
            made.labels = (0..labels).map(label).collect();
            let transaction_id = made.transaction_id.unwrap();
            let transaction = TransactionRef { transaction_id, resolved: Some(Arc::new(made)) };
            let reverse = Action::Reverse(Reversal { transaction, amount: None });
            let command = Some(Command::Request(Arc::new(request("r", reverse))));
            match event(&Identity::from_stored("a")) {
                Event::Denial(denial) => Event::Denial(Denial { command, ..denial }).bytes(),
                _ => 0,
            }
        };
        assert!(bytes(32) - bytes(0) > 32 * (63 + 256));
    }

    fn event(identity: &Identity) -> Event {
        let (method, peer, credential) = ("m", None, Credential::None);
        Event::Denial(Denial {
            origin: Arc::new(Origin { method, is_unary: true, peer, credential }),
            identity: identity.clone(),
            has_rights: true,
            reason: "r",
            command: None,
        })
    }

    fn fill(queue: &mut Queue, identity: &Identity) {
        while queue.has_room(identity) {
            queue.push(event(identity));
        }
    }

    #[test]
    fn an_identity_that_fills_the_queue_leaves_room_to_others_and_not_without_a_limit() {
        let mut queue = Queue::default();
        let [greedy, second, third] = ["greedy", "second", "third"].map(Identity::from_stored);
        fill(&mut queue, &greedy);
        assert!(queue.bytes >= BYTES_MAX);
        assert!(queue.has_room(&second));
        fill(&mut queue, &second);
        assert!(queue.has_room(&third));
        for number in 0..1000 {
            fill(&mut queue, &Identity::from_stored(&number.to_string()));
        }
        let entry = event(&greedy).bytes();
        assert!(queue.bytes <= BYTES_MAX + OTHERS_BYTES_MAX + entry, "{}", queue.bytes);
        queue.take_entries();
        assert!(queue.has_room(&greedy));
    }
}
