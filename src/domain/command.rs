//! Commands: the changes that the ledger executes.

use std::{mem, sync::Arc};

use crate::domain::{
    account::{AccountUpdate, AttributeChange, ContraAccount, Labels, NewAccount, label_bytes},
    hold::{Capture, HoldRef, HoldUpdate, NewHold},
    ids::{AccountId, HoldId, ID_LENGTH_MAX, RequestKey, TransactionId},
    money::{Amount, Currency},
    transaction::{Entry, Transaction, TransactionKind},
};

/// The kind of requests that place holds, in SQL and in fingerprints.
pub const PLACE_HOLD: &str = "place_hold";
/// The kind of requests that change holds.
pub const UPDATE_HOLD: &str = "update_hold";
/// The kind of requests that release holds.
pub const RELEASE_HOLD: &str = "release_hold";
/// The kind of fences.
pub const FENCE: &str = "fence";

/// About the memory of a label beside its texts: two strings, in a tree.
const LABEL_BYTES: usize = 128;

/// A change that goes through the write path.
#[derive(Clone, Debug)]
pub enum Command {
    /// Open an account.
    CreateAccount(NewAccount),
    /// Change an account's attributes.
    UpdateAccount(AccountUpdate),
    /// Move or hold money.
    Request(Arc<Request>),
    /// Record which holds on an account have expired, as any change of the account does first. No caller's
    /// command: a read asks for it.
    ExpireHolds(AccountId),
}

/// A request that is executed at most once. Its result is permanent.
#[derive(Clone, Debug)]
pub struct Request {
    /// The permanent name of the request: a repeat gets the recorded result.
    pub key: RequestKey,
    /// The id of the transaction that this request will create. A record with this id comes from an
    /// earlier attempt at this very request, so its result is no replay.
    pub transaction_id: TransactionId,
    /// The change.
    pub action: Action,
    /// Stored with the transaction or hold.
    pub description: String,
    /// Stored with the transaction or hold.
    pub labels: Labels,
    /// Validate the request and change nothing.
    pub validate_only: bool,
    /// Apply the request although funds lack or an account is frozen.
    pub force: bool,
    /// When the transaction takes effect, in microseconds since the Unix epoch. None: when it is
    /// applied.
    pub effective_time_us: Option<i64>,
    /// Reject the transaction unless its amounts sum to zero in each currency.
    pub require_balanced: bool,
    /// The server has contra accounts, so the transaction must be balanced: these take what it lacks to
    /// sums of zero. No part of the fingerprint: the result of a repeat is that of the first time.
    pub contra_accounts: Option<Vec<ContraAccount>>,
    /// It is allowed only because it has a record: without one it decides nothing. No part of the
    /// fingerprint.
    pub is_repeat: bool,
}

/// The change that a request describes.
#[derive(Clone, Debug)]
pub enum Action {
    /// Change balances: all of the legs or none.
    Post(TransactionKind, Vec<Leg>),
    /// Set money aside.
    PlaceHold(NewHold),
    /// Change the amount or the expire time of a hold.
    UpdateHold(HoldUpdate),
    /// Take the money of a hold, all or part.
    CaptureHold(Capture),
    /// Release a hold.
    ReleaseHold(HoldRef),
    /// Undo a transaction, all or a part.
    Reverse(Reversal),
    /// Reject the request of this id permanently, unless it has a record already.
    Fence,
}

/// One change of one account.
#[derive(Clone, Debug)]
pub struct Leg {
    /// The account whose balance changes.
    pub account_id: AccountId,
    /// The currency of the amount and of the amounts in the condition.
    pub currency: Currency,
    /// Signed, never zero.
    pub amount: Amount,
    /// The condition on the account.
    pub condition: Condition,
}

/// A condition on an account without which a leg is rejected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// The version before the change.
    pub expected_version: Option<i64>,
    /// The balance after all legs is at least this.
    pub min_balance_after: Option<Amount>,
    /// The balance after all legs is at most this.
    pub max_balance_after: Option<Amount>,
}

/// A transaction to reverse.
#[derive(Clone, Debug)]
pub struct Reversal {
    /// The transaction to reverse.
    pub transaction: TransactionRef,
    /// The amount; None: all that is not reversed yet.
    pub amount: Option<(Currency, Amount)>,
}

/// A transaction that a request names, looked up when the request arrives. It never changes, and
/// names the accounts to lock.
#[derive(Clone, Debug)]
pub struct TransactionRef {
    /// Its name.
    pub transaction_id: TransactionId,
    /// None if it did not exist when the request arrived. Then the request is rejected, unless the
    /// transaction exists by now.
    pub resolved: Option<Arc<Transaction>>,
}

impl Action {
    /// Whether its amount is that of the hold which it names.
    #[must_use]
    pub fn has_amount_of_hold(&self) -> bool {
        match self {
            Self::UpdateHold(HoldUpdate { amount, .. })
            | Self::CaptureHold(Capture { amount, .. }) => amount.is_none(),
            Self::ReleaseHold(_) => true,
            Self::Reverse(_) | Self::Post(..) | Self::PlaceHold(_) | Self::Fence => false,
        }
    }

    /// Whether it names a hold or a transaction, which must be looked up before it is executed.
    #[must_use]
    pub fn has_references(&self) -> bool {
        match self {
            Self::UpdateHold(_)
            | Self::CaptureHold(_)
            | Self::ReleaseHold(_)
            | Self::Reverse(_) => true,
            Self::Post(..) | Self::PlaceHold(_) | Self::Fence => false,
        }
    }
}

impl Command {
    /// Whether its result is stored, even if it is rejected.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.request().is_some() && !self.is_dry_run()
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.request().is_some_and(|request| request.validate_only)
    }

    /// Whether it changes or releases a hold.
    #[must_use]
    pub fn changes_a_hold(&self) -> bool {
        let changes = |it: &Request| match &it.action {
            Action::UpdateHold(_) | Action::ReleaseHold(_) => true,
            // A capture moves the money of a hold that was placed.
            Action::PlaceHold(_) | Action::CaptureHold(_) => false,
            Action::Post(..) | Action::Reverse(_) | Action::Fence => false,
        };
        self.request().is_some_and(changes)
    }

    /// The length of the labels and the description of a request, in bytes.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.request().map_or(0, |it| label_bytes(&it.labels) + it.description.len())
    }

    /// Whether it is to be applied although funds lack or an account is frozen.
    pub fn is_forced(&self) -> bool {
        self.request().is_some_and(|request| request.force)
    }

    /// About the memory of the hold or the transaction that was looked up for it, in bytes.
    pub fn resolved_bytes(&self) -> usize {
        let resolved = self.request().and_then(|request| match &request.action {
            Action::UpdateHold(HoldUpdate { hold, .. })
            | Action::CaptureHold(Capture { hold, .. })
            | Action::ReleaseHold(hold) => {
                hold.resolved.as_ref().map(|it| (0, &it.description, &it.labels))
            }
            Action::Reverse(Reversal { transaction, .. }) => {
                let resolved = transaction.resolved.as_ref();
                resolved.map(|it| (it.entries.len(), &it.description, &it.labels))
            }
            Action::Post(..) | Action::PlaceHold(_) | Action::Fence => None,
        });
        resolved.map_or(0, |(entries, description, labels)| {
            let labels = labels.iter().map(|(key, value)| key.len() + value.len() + LABEL_BYTES);
            let entries = entries * (mem::size_of::<Entry>() + ID_LENGTH_MAX);
            entries + description.len() + labels.sum::<usize>()
        })
    }

    /// About the memory of its texts, and of what was looked up for it, in bytes.
    pub fn memory(&self) -> usize {
        let (text, labels) = match self {
            Self::CreateAccount(new) => ("", Some(&new.labels)),
            Self::UpdateAccount(update) => match &update.change {
                AttributeChange::Update { labels, .. } => (&*update.reason, labels.as_ref()),
                _ => (&*update.reason, None),
            },
            Self::Request(request) => (&*request.description, Some(&request.labels)),
            Self::ExpireHolds(_) => ("", None),
        };
        let labels = labels.map_or(0, |it| label_bytes(it) + it.len() * LABEL_BYTES);
        text.len() + labels + self.resolved_bytes()
    }

    /// The accounts whose rows must be locked.
    pub fn account_ids(&self) -> impl Iterator<Item = &AccountId> {
        let (mut ids, mut legs, mut entries): (_, &[Leg], &[Entry]) = ([None; 2], &[], &[]);
        let contra_accounts = self.request().and_then(|it| it.contra_accounts.as_deref());
        match self {
            Self::CreateAccount(new) => ids[0] = Some(&new.account_id),
            Self::UpdateAccount(update) => ids[0] = Some(&update.account_id),
            Self::Request(request) => match &request.action {
                Action::Post(_, posted) => legs = posted,
                Action::PlaceHold(new) => ids[0] = Some(&new.account_id),
                Action::UpdateHold(update) => ids[0] = update.hold.account_id(),
                Action::CaptureHold(Capture { hold, destination_account_id, .. }) => {
                    ids = [hold.account_id(), destination_account_id.as_ref()];
                }
                Action::ReleaseHold(hold) => ids[0] = hold.account_id(),
                Action::Reverse(reversal) => {
                    let resolved = reversal.transaction.resolved.as_ref();
                    entries = resolved.map_or(&[], |it| &it.entries);
                }
                Action::Fence => {}
            },
            Self::ExpireHolds(account_id) => ids[0] = Some(account_id),
        }
        let of_legs = legs.iter().map(|leg| &leg.account_id);
        let of_entries = entries.iter().map(|entry| &entry.account_id);
        let contra = contra_accounts.unwrap_or_default().iter().map(|it| &it.account_id);
        ids.into_iter().flatten().chain(of_legs).chain(of_entries).chain(contra)
    }

    /// The holds that must be read under the lock.
    pub fn hold_ids(&self) -> impl Iterator<Item = HoldId> + use<> {
        let own = |request: &Request| match &request.action {
            Action::PlaceHold(new) => {
                let own = new.hold_id.as_ref().map(|name| name.placed_by(&request.key.caller));
                [own, new.hold_id.clone()]
            }
            Action::UpdateHold(HoldUpdate { hold, .. })
            | Action::CaptureHold(Capture { hold, .. })
            | Action::ReleaseHold(hold) => match &hold.resolved {
                Some(resolved) => [Some(resolved.hold_id.clone()), None],
                // It may exist by now.
                None => hold.hold_id.candidates(&request.key.caller).map(Some),
            },
            Action::Post(..) | Action::Reverse(_) | Action::Fence => [None, None],
        };
        self.request().map(own).into_iter().flatten().flatten()
    }

    /// The transaction to reverse: whether it exists, and what was reversed of it before, must be read.
    pub fn reverses(&self) -> Option<TransactionId> {
        match &self.request()?.action {
            Action::Reverse(reversal) => Some(reversal.transaction.transaction_id),
            _ => None,
        }
    }

    /// The account that the command opens, if it opens one.
    pub fn opens(&self) -> Option<&AccountId> {
        match self {
            Self::CreateAccount(new) => Some(&new.account_id),
            Self::UpdateAccount(_) | Self::Request(_) | Self::ExpireHolds(_) => None,
        }
    }

    /// Whether all legs are on one account.
    pub fn has_one_account(&self) -> bool {
        let mut account_ids = self.account_ids();
        let first = account_ids.next();
        account_ids.all(|account_id| Some(account_id) == first)
    }

    /// The part of `batch_size_max` that the command takes: its number of changes of accounts, or 1.
    pub fn cost(&self) -> usize {
        self.account_ids().count().max(1)
    }

    /// Whether the record under its request id must be looked up first: the command inserts no
    /// record that would collide with it, or it returns the record, or is allowed only if there is one.
    pub fn needs_lookup(&self) -> bool {
        let needs_lookup =
            |it: &Request| it.validate_only || it.is_repeat || matches!(it.action, Action::Fence);
        self.request().is_some_and(needs_lookup)
    }

    /// The request id to look up, where there is one.
    pub fn key(&self) -> Option<&RequestKey> {
        self.request().map(|request| &request.key)
    }

    fn request(&self) -> Option<&Request> {
        match self {
            Self::CreateAccount(_) | Self::UpdateAccount(_) | Self::ExpireHolds(_) => None,
            Self::Request(request) => Some(request),
        }
    }
}

impl Leg {
    /// Its currency and its amount.
    pub fn money(&self) -> (&Currency, Amount) {
        (&self.currency, self.amount)
    }

    /// This leg with the decimals of the account's `own` currency. None if it has these decimals already,
    /// if the code is another one, or if an amount has more decimals.
    #[must_use]
    pub fn in_scale_of(&self, own: &Currency) -> Option<Self> {
        if self.currency == *own {
            return None;
        }
        let convert = |amount| own.convert(&self.currency, amount);
        let convert_if = |amount: Option<Amount>| match amount {
            None => Some(None),
            Some(amount) => convert(amount).map(Some),
        };
        let Condition { expected_version, min_balance_after, max_balance_after } = self.condition;
        Some(Self {
            account_id: self.account_id.clone(),
            currency: own.clone(),
            amount: convert(self.amount)?,
            condition: Condition {
                expected_version,
                min_balance_after: convert_if(min_balance_after)?,
                max_balance_after: convert_if(max_balance_after)?,
            },
        })
    }
}

impl HoldRef {
    fn account_id(&self) -> Option<&AccountId> {
        self.resolved.as_ref().map(|resolved| &resolved.account_id)
    }
}

impl Request {
    /// A request with this action and nothing else.
    pub fn new(key: RequestKey, transaction_id: TransactionId, action: Action) -> Self {
        Self {
            key,
            transaction_id,
            action,
            description: String::new(),
            labels: Labels::new(),
            validate_only: false,
            is_repeat: false,
            force: false,
            effective_time_us: None,
            require_balanced: false,
            contra_accounts: None,
        }
    }
}

impl Action {
    /// The kind of request in SQL and in fingerprints.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Post(kind, _) => kind.name(),
            Self::PlaceHold(_) => PLACE_HOLD,
            Self::UpdateHold(_) => UPDATE_HOLD,
            Self::CaptureHold(_) => TransactionKind::Capture.name(),
            Self::ReleaseHold(_) => RELEASE_HOLD,
            Self::Reverse(_) => TransactionKind::Reversal.name(),
            Self::Fence => FENCE,
        }
    }
}
