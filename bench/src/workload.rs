//! The requests of a workload.

use std::{sync::Arc, time::Duration};

use crate::{
    Mode, Workload,
    proto::{
        self, DepositRequest, StreamedRequest, TransferRequest, WithdrawRequest,
        streamed_request::Request,
    },
};

/// The deadline of one request. A healthy server needs far less.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// One request.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Deposits one dollar.
    Deposit { account_id: String },
    /// Withdraws one dollar.
    Withdraw { account_id: String },
    /// Transfers one dollar from one account to another.
    Transfer { source: String, destination: String },
    /// Reads an account by GetAccount.
    Read { account_id: String },
    /// Calls GetWritePathStats.
    Stats,
}

/// Chooses the requests of a workload. The same seed gives the same requests.
pub struct Plan {
    workload: Workload,
    mode: Mode,
    account_ids: Arc<Vec<String>>,
    /// For `zipf`: the cumulative weight up to each account.
    weights: Vec<f64>,
}

impl Plan {
    /// The plan of a workload over these accounts.
    pub fn new(workload: Workload, mode: Mode, account_ids: Arc<Vec<String>>) -> Self {
        let mut sum = 0.0;
        let weights = match workload {
            Workload::Zipf => (1..=account_ids.len())
                .map(|rank| {
                    // Weights may be floats. They are not money.
                    sum += 1.0 / rank as f64;
                    sum
                })
                .collect(),
            _ => Vec::new(),
        };
        Self { workload, mode, account_ids, weights }
    }

    /// Chooses the next request.
    pub fn next(&self, random: &mut fastrand::Rng) -> Operation {
        match self.workload {
            Workload::Hot | Workload::Uniform => {
                self.deposit_or_withdraw(self.random_account(random), random)
            }
            Workload::Zipf => self.deposit_or_withdraw(self.weighted_account(random), random),
            Workload::Transfer => self.transfer(random),
            Workload::Stats => Operation::Stats,
            Workload::Mixed => match (random.u8(..4), self.mode) {
                (0, _) => self.deposit(self.random_account(random)),
                (1, _) => self.withdraw(self.random_account(random)),
                (2, Mode::Unary) => {
                    Operation::Read { account_id: self.id(self.random_account(random)) }
                }
                (2.., _) => self.transfer(random),
            },
        }
    }

    fn deposit_or_withdraw(&self, index: usize, random: &mut fastrand::Rng) -> Operation {
        if random.bool() { self.deposit(index) } else { self.withdraw(index) }
    }

    fn deposit(&self, index: usize) -> Operation {
        Operation::Deposit { account_id: self.id(index) }
    }

    fn withdraw(&self, index: usize) -> Operation {
        Operation::Withdraw { account_id: self.id(index) }
    }

    fn transfer(&self, random: &mut fastrand::Rng) -> Operation {
        let count = self.account_ids.len();
        let source = self.random_account(random);
        let step = if random.bool() { 1 } else { random.usize(1..count) };
        let destination = (source + step) % count;
        Operation::Transfer { source: self.id(source), destination: self.id(destination) }
    }

    fn random_account(&self, random: &mut fastrand::Rng) -> usize {
        random.usize(..self.account_ids.len())
    }

    fn weighted_account(&self, random: &mut fastrand::Rng) -> usize {
        let total = self.weights.last().copied().unwrap_or_default();
        let point = random.f64() * total;
        self.weights.partition_point(|sum| *sum < point).min(self.account_ids.len() - 1)
    }

    fn id(&self, index: usize) -> String {
        self.account_ids[index].clone()
    }
}

impl Operation {
    /// The change of the sum of all balances, in dollars, if the request is applied.
    pub fn net(&self) -> i64 {
        match self {
            Self::Deposit { .. } => 1,
            Self::Withdraw { .. } => -1,
            Self::Transfer { .. } | Self::Read { .. } | Self::Stats => 0,
        }
    }

    /// The number of new entries if the request is applied.
    pub fn entries(&self) -> i64 {
        match self {
            Self::Deposit { .. } | Self::Withdraw { .. } => 1,
            Self::Transfer { .. } => 2,
            Self::Read { .. } | Self::Stats => 0,
        }
    }

    /// The request in the `requests` of a stream. A read is none.
    pub fn streamed(&self, request_id: String) -> StreamedRequest {
        let request = match self.clone() {
            Self::Deposit { account_id } => Some(Request::Deposit(deposit(request_id, account_id))),
            Self::Withdraw { account_id } => {
                Some(Request::Withdraw(withdrawal(request_id, account_id)))
            }
            Self::Transfer { source, destination } => {
                Some(Request::Transfer(transfer(request_id, source, destination)))
            }
            Self::Read { .. } | Self::Stats => None,
        };
        let seconds = REQUEST_TIMEOUT.as_secs() as i64;
        StreamedRequest { request, timeout: Some(prost_types::Duration { seconds, nanos: 0 }) }
    }

    /// The request as a posting, for streams.
    pub fn posting(&self, request_id: String) -> proto::PostTransactionRequest {
        let leg = |account_id: &str, value: &str| proto::Leg {
            account_id: account_id.to_owned(),
            amount: Some(dollars(value)),
            condition: None,
        };
        let legs = match self {
            Self::Deposit { account_id } => vec![leg(account_id, "1.00")],
            Self::Withdraw { account_id } => vec![leg(account_id, "-1.00")],
            Self::Transfer { source, destination } => {
                vec![leg(source, "-1.00"), leg(destination, "1.00")]
            }
            Self::Read { .. } | Self::Stats => Vec::new(),
        };
        proto::PostTransactionRequest { request_id, legs, ..Default::default() }
    }
}

/// A deposit of one dollar.
pub fn deposit(request_id: String, account_id: String) -> DepositRequest {
    let amount = Some(dollars("1.00"));
    DepositRequest { request_id, account_id, amount, ..Default::default() }
}

/// A withdrawal of one dollar.
pub fn withdrawal(request_id: String, account_id: String) -> WithdrawRequest {
    let amount = Some(dollars("1.00"));
    WithdrawRequest { request_id, account_id, amount, ..Default::default() }
}

/// A transfer of one dollar.
pub fn transfer(request_id: String, source: String, destination: String) -> TransferRequest {
    TransferRequest {
        request_id,
        source_account_id: source,
        destination_account_id: destination,
        amount: Some(dollars("1.00")),
        ..Default::default()
    }
}

/// An amount of US dollars.
pub fn dollars(value: &str) -> proto::Money {
    proto::Money { currency_code: "USD".to_owned(), value: value.to_owned() }
}
