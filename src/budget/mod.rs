//! Shares of what a server has, so that no caller takes all of it.
//!
//! Every limit on load is here, in up to three scopes: the server, an identity (callers without a
//! credential are one), a connection.
//!
//! | What | Is |
//! |---|---|
//! | [`Budget`] | an amount; [`Share::resize`] takes a share or fails, dropping the share returns it |
//! | [`Rate`] | an amount a minute or a second; [`Rate::charge`] takes it for good |
//! | [`Gate`] | so many of one identity at the same time; more of them wait |
//! | [`Connections`] | open connections, which have a place of their own after a credential was accepted |
//! | [`BriefCalls`] | health checks of nobody: one more ends the oldest of the caller with the most |
//!
//! A budget that is exhausted is one error, [`Exhausted`], whatever it was a budget of.
//! docs/operations/limits.md has the table of all limits; a test compares it with this module.
//!
//! In here: counting. Not in here: headers, messages, accounts, or what is done about a call.

mod brief_calls;
mod connections;
#[cfg(test)]
mod connections_tests;
mod gate;
mod kept_calls;
mod rate;
mod share;
mod shared_use;

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use tokio::time::Instant;

pub use crate::budget::{
    brief_calls::{BriefCall, BriefCalls},
    connections::{Connection, Connections, OpenCall, Unread},
    gate::{Gate, GatePermit},
    rate::Rate,
    share::{Budget, Exhausted, Maxima, Scope, Share},
    shared_use::SharedUse,
};
use crate::domain::ids::Identity;

/// An identity may have a half of the queue, so that it cannot shed the changes of all others.
const IDENTITY_QUEUE_PART: usize = 2;
/// Calls in flight of health, reflection and AdminService, which no call of AccountService can shed:
/// an orchestrator kills an overloaded server that fails its health checks.
const CONTROL_CALLS: Maxima =
    Maxima { server: 1024, identity: 256, anonymous: 512, connection: 64 };
/// Those of nobody that are streams: watches of health, and reflection. They have a small place of their
/// own, so that they cannot shed the checks of an orchestrator, and one connection has a part of it.
/// Lower, and load balancers that watch without a credential are shed. Without authentication, nearly
/// all control calls can be such streams.
const CONTROL_STREAMS_OF_NOBODY: Maxima =
    Maxima { server: 960, identity: 0, anonymous: 64, connection: 8 };
/// Control calls of nobody beyond the maximum, until connections that were closed for them have ended.
pub const CONTROL_CALLS_BEYOND: usize = 64;
/// Bytes of the requests that are being received, headers included, and of those that wait. Too low sheds
/// honest callers, which send far less at a time; too high exhausts the memory.
const REQUEST_BYTES: Maxima =
    Maxima { server: 64 * MIB, identity: 32 * MIB, anonymous: 8 * MIB, connection: 32 * MIB };
/// Bytes of responses that their callers have not read yet.
const RESPONSE_BYTES: Maxima =
    Maxima { server: 64 * MIB, identity: 32 * MIB, anonymous: 8 * MIB, connection: 32 * MIB };
/// Bytes of a request or of a response that are charged to no share if there are no more: the limits on
/// calls bound small ones, and large messages of others never shed a deposit.
pub const SMALL_BYTES_MAX: usize = 4 * 1024;
/// Streams of WatchEntries and WatchEvents. Each may keep one unread message in memory.
const WATCHERS: Maxima =
    Maxima { server: 10_000, identity: 5000, anonymous: 0, connection: usize::MAX };
/// Bytes of the pages that streams of WatchEvents keep until their callers have read them. A stream without
/// room for its page keeps the beginning of it, so nothing is shed. Lower, and many streams that catch up
/// at the same time read the database more often; higher, and slow callers take more memory.
const EVENT_PAGE_BYTES: Maxima =
    Maxima { server: 32 * MIB, identity: 16 * MIB, anonymous: 0, connection: usize::MAX };
const MIB: usize = 1024 * 1024;

/// What is limited, with its name in errors, metrics and docs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Calls of AccountService in flight.
    Calls,
    /// Calls in flight of health, reflection and AdminService.
    ControlCalls,
    /// Calls a second of an identity.
    CallRate,
    /// Bytes of requests that are being received or wait.
    RequestBytes,
    /// Bytes of responses that are not read yet.
    ResponseBytes,
    /// Changes in the queue or in a transaction.
    Queue,
    /// Streams of WatchEntries and WatchEvents.
    Watchers,
    /// Records a minute that move no money and are stored for good.
    Records,
    /// Connections of callers whose credential was accepted.
    Connections,
}

all_values!(Limit {
    Calls,
    ControlCalls,
    CallRate,
    RequestBytes,
    ResponseBytes,
    Queue,
    Watchers,
    Records,
    Connections,
});

impl Limit {
    /// The name in errors, metrics and docs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::ControlCalls => "control_calls",
            Self::CallRate => "call_rate",
            Self::RequestBytes => "request_bytes",
            Self::ResponseBytes => "response_bytes",
            Self::Queue => "queue",
            Self::Watchers => "watchers",
            Self::Records => "records",
            Self::Connections => "connections",
        }
    }

    /// What is used up, for a message.
    fn what(self) -> &'static str {
        match self {
            Self::Calls => "calls in flight",
            Self::ControlCalls => "calls of health, reflection and AdminService in flight",
            Self::CallRate => "calls a second",
            Self::RequestBytes => "bytes of requests that are being received or wait",
            Self::ResponseBytes => "bytes of responses that are not read yet",
            Self::Queue => "changes that wait or are being applied",
            Self::Watchers => "watchers",
            Self::Records => {
                "rejections, fences, changes of accounts and holds, and audited repeats a minute"
            }
            Self::Connections => "connections",
        }
    }
}

/// The settings that budgets follow from.
#[derive(Clone, Copy, Debug)]
pub struct BudgetConfig {
    /// Whether callers have identities. Without authentication all callers are one, which may then
    /// use all that the server has.
    pub is_authenticated: bool,
    /// Calls of AccountService in flight.
    pub calls_max: u32,
    /// Calls of AccountService in flight of one identity.
    pub identity_calls_max: u32,
    /// Calls a second of one identity, with a burst of as many. None: no limit.
    pub identity_rate_max: Option<NonZeroU32>,
    /// Changes in the queue or in a transaction.
    pub queue_capacity: u32,
    /// Records a minute that move no money.
    pub records_max: u32,
    /// Records a minute of one identity that move no money.
    pub identity_records_max: u32,
    /// Open connections.
    pub connections_max: u32,
}

/// All budgets of one server.
pub struct Budgets {
    /// [`Limit::Calls`].
    pub calls: Arc<Budget>,
    /// [`Limit::ControlCalls`].
    pub control_calls: Arc<Budget>,
    /// The control calls of nobody that are streams.
    pub streams_of_nobody: Arc<Budget>,
    /// The control calls of nobody that are no streams.
    pub brief_calls: Arc<BriefCalls>,
    /// [`Limit::CallRate`]. None: no limit.
    pub call_rate: Option<Rate>,
    /// [`Limit::RequestBytes`].
    pub request_bytes: Arc<Budget>,
    /// [`Limit::ResponseBytes`].
    pub response_bytes: Arc<Budget>,
    /// [`Limit::Queue`].
    pub queue: Arc<Budget>,
    /// [`Limit::Watchers`].
    pub watchers: Arc<Budget>,
    /// Bytes of the pages of watchers of all events.
    pub event_page_bytes: Arc<Budget>,
    /// [`Limit::Records`].
    pub records: Arc<Rate>,
    /// [`Limit::Connections`].
    pub connections: Arc<Connections>,
    is_authenticated: bool,
}

impl Budgets {
    /// The budgets that follow from these settings.
    ///
    /// Call it after metrics are installed: the budgets look up their counters here.
    #[must_use]
    pub fn new(config: &BudgetConfig) -> Arc<Self> {
        let is_authenticated = config.is_authenticated;
        let budget = |limit, maxima: Maxima| {
            Budget::new(limit, if is_authenticated { maxima } else { maxima.of_one_identity() })
        };
        let (queue, calls) = (config.queue_capacity as usize, config.calls_max as usize);
        let calls = Maxima {
            server: calls,
            identity: config.identity_calls_max as usize,
            anonymous: 0,
            // HTTP/2 bounds the calls of a connection.
            connection: usize::MAX,
        };
        let queue = Maxima {
            server: queue,
            identity: (queue / IDENTITY_QUEUE_PART).max(1),
            anonymous: 0,
            connection: usize::MAX,
        };
        let per_minute = Duration::from_secs(60);
        let records = Rate::new(
            Limit::Records,
            Some(config.records_max),
            is_authenticated.then_some(config.identity_records_max),
            per_minute,
        );
        let rate = config.identity_rate_max.filter(|_| is_authenticated);
        Arc::new(Self {
            calls: budget(Limit::Calls, calls),
            control_calls: budget(Limit::ControlCalls, CONTROL_CALLS),
            streams_of_nobody: budget(Limit::ControlCalls, CONTROL_STREAMS_OF_NOBODY),
            brief_calls: Arc::default(),
            call_rate: rate.map(|rate| {
                Rate::new(Limit::CallRate, None, Some(rate.get()), Duration::from_secs(1))
            }),
            request_bytes: budget(Limit::RequestBytes, REQUEST_BYTES),
            response_bytes: budget(Limit::ResponseBytes, RESPONSE_BYTES),
            queue: budget(Limit::Queue, queue),
            watchers: budget(Limit::Watchers, WATCHERS),
            event_page_bytes: budget(Limit::Watchers, EVENT_PAGE_BYTES),
            records: Arc::new(records),
            connections: Connections::new(config.connections_max as usize, is_authenticated),
            is_authenticated,
        })
    }

    /// Budgets for unit tests of the ledger.
    #[cfg(test)]
    pub fn for_tests(queue_capacity: u32, is_authenticated: bool) -> Arc<Self> {
        Self::new(&BudgetConfig {
            is_authenticated,
            calls_max: 1000,
            identity_calls_max: 1000,
            identity_rate_max: None,
            queue_capacity,
            records_max: 100_000,
            identity_records_max: 100_000,
            connections_max: 100,
        })
    }

    /// Takes a call from the rate of calls. A request of a stream counts as one.
    ///
    /// # Errors
    /// The rate has nothing left.
    pub fn take_call(&self, identity: &Identity) -> Result<(), Exhausted> {
        self.call_rate.as_ref().map_or(Ok(()), |rate| rate.take(identity, Instant::now()))
    }

    /// Takes the requests of a batch from the rate of calls, which has one for the call already. The
    /// batch is served even if they exceed the rate: then later calls have to wait.
    pub fn charge_batch(&self, identity: &Identity, length: usize) {
        let more = u32::try_from(length.saturating_sub(1)).unwrap_or(u32::MAX);
        if let Some(rate) = &self.call_rate {
            rate.charge(identity, more, Instant::now());
        }
    }

    /// A share for what a call keeps of its request, or has looked up for it, until it ends.
    ///
    /// # Errors
    /// There is no room.
    pub fn request_share(&self, identity: &Identity, bytes: usize) -> Result<Share, Exhausted> {
        let mut share = self.request_bytes.share(identity.clone(), None);
        share.resize_bytes(bytes)?;
        Ok(share)
    }

    /// A share for the results of a call, which stay in memory until the last one is there.
    ///
    /// # Errors
    /// There is no room.
    pub fn response_share(&self, identity: &Identity, bytes: usize) -> Result<Share, Exhausted> {
        let mut share = self.response_bytes.share(identity.clone(), None);
        share.resize(bytes)?;
        Ok(share)
    }

    /// A gate that lets at most `max` of one identity in. It is open if all callers are one identity.
    #[must_use]
    pub fn gate(&self, max: usize) -> Gate {
        Gate::new(self.is_authenticated.then_some(max.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = include_str!("../../docs/operations/limits.md");

    /// The cells of the rows whose first cell is a name.
    fn rows() -> Vec<Vec<&'static str>> {
        let rows =
            TABLE.lines().filter(|line| line.starts_with("| `") && !line.contains("`limit`"));
        rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
    }

    /// The number in a cell: `1,024`, "64 MiB", or the default beside the name of a setting.
    fn number(cell: &str) -> Option<usize> {
        let is_number = |word: &&str| word.starts_with(|it: char| it.is_ascii_digit());
        let digits: String = cell.split([' ', ',']).filter(is_number).collect();
        let number: usize = digits.parse().ok()?;
        Some(if cell.ends_with("MiB") { number * MIB } else { number })
    }

    #[test]
    fn the_table_of_limits_has_each_limit_in_order() {
        let names: Vec<_> = rows().iter().map(|row| row[0].trim_matches('`')).collect();
        assert_eq!(names, Limit::ALL.map(Limit::name));
    }

    #[test]
    fn the_table_of_limits_has_the_numbers_of_this_module() {
        let row =
            |limit: Limit| rows().into_iter().find(|row| row[0].contains(limit.name())).unwrap();
        let default =
            |limit, column: usize| u32::try_from(number(row(limit)[column]).unwrap()).unwrap();
        let budgets = Budgets::new(&BudgetConfig {
            is_authenticated: true,
            calls_max: default(Limit::Calls, 2),
            identity_calls_max: default(Limit::Calls, 3),
            identity_rate_max: None,
            queue_capacity: default(Limit::Queue, 2),
            records_max: default(Limit::Records, 2),
            identity_records_max: default(Limit::Records, 3),
            connections_max: 10_000,
        });
        let established = budgets.connections.established_budget().unwrap();
        for (limit, budget) in [
            (Limit::Calls, &budgets.calls),
            (Limit::ControlCalls, &budgets.control_calls),
            (Limit::RequestBytes, &budgets.request_bytes),
            (Limit::ResponseBytes, &budgets.response_bytes),
            (Limit::Queue, &budgets.queue),
            (Limit::Watchers, &budgets.watchers),
            (Limit::Connections, &established),
        ] {
            let Maxima { server, identity, anonymous, connection } = budget.maxima();
            let cells = row(limit);
            let expected = |column: usize, default: usize| match cells[column] {
                "half" => server / 2,
                cell => number(cell).unwrap_or(default),
            };
            assert_eq!(server, expected(2, server), "{limit:?} of the server");
            assert_eq!(identity, expected(3, 0), "{limit:?} of an identity");
            assert_eq!(anonymous, expected(4, usize::MAX), "{limit:?} of nobody");
            // HTTP/2 bounds the calls of a connection.
            if limit != Limit::Calls {
                assert_eq!(connection, expected(5, usize::MAX), "{limit:?} of a connection");
            }
        }
        let Maxima { server, identity, .. } = budgets.event_page_bytes.maxima();
        let (server, identity) = (server / MIB, identity / MIB);
        let expected = format!("| {server} MiB, and {identity} MiB of one identity");
        let row = TABLE.lines().find(|line| line.starts_with("| the pages of events"));
        assert!(row.is_some_and(|row| row.contains(&expected)), "{row:?} without {expected}");
    }
}
