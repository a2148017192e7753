//! A change of balances as a value: it can be sent, sent again, and brought to a verdict.

use std::time::Duration;

use bytes::Bytes;
use http_body::Body as HttpBody;
use passbook::proto::{
    DepositRequest, Transaction, TransferRequest, WithdrawRequest,
    account_service_client::AccountServiceClient,
};
use tonic::{Code, Status, body::Body, client::GrpcService, codegen::StdError};

use crate::harness::{Client, PATIENCE, within};

/// One request that moves money.
#[derive(Clone, Debug)]
pub enum Change {
    Deposit(DepositRequest),
    Withdraw(WithdrawRequest),
    Transfer(TransferRequest),
}

/// A change that was made.
#[derive(Clone, Debug)]
pub struct Answer {
    pub transaction: Transaction,
    pub replayed: bool,
}

/// What became of a change, once that is certain.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one")]
pub enum Verdict {
    Applied(Answer),
    Refused(Status),
}

impl Change {
    pub fn request_id(&self) -> &str {
        match self {
            Self::Deposit(request) => &request.request_id,
            Self::Withdraw(request) => &request.request_id,
            Self::Transfer(request) => &request.request_id,
        }
    }

    /// Sends it once.
    pub async fn send<Transport>(
        &self,
        client: &AccountServiceClient<Transport>,
        deadline: Duration,
    ) -> Result<Answer, Status>
    where
        Transport: GrpcService<Body, Error: Into<StdError>> + Clone,
        Transport::ResponseBody: HttpBody<Data = Bytes, Error: Into<StdError> + Send>,
        Transport::ResponseBody: Send + 'static,
    {
        let mut client = client.clone();
        let (transaction, replayed) = match self.clone() {
            Self::Deposit(request) => {
                let answer = client.deposit(within(deadline, request)).await?.into_inner();
                (answer.transaction, answer.replayed)
            }
            Self::Withdraw(request) => {
                let answer = client.withdraw(within(deadline, request)).await?.into_inner();
                (answer.transaction, answer.replayed)
            }
            Self::Transfer(request) => {
                let answer = client.transfer(within(deadline, request)).await?.into_inner();
                (answer.transaction, answer.replayed)
            }
        };
        Ok(Answer { transaction: transaction.expect("an OK has a transaction"), replayed })
    }

    /// Sends it, under one `request_id`, to one server after another until the answer is
    /// certain: what the contract tells callers to do.
    pub async fn settle(&self, clients: &[Client]) -> Verdict {
        let end = tokio::time::Instant::now() + PATIENCE;
        let first = fastrand::usize(..clients.len());
        let mut last = String::new();
        for attempt in 0.. {
            if tokio::time::Instant::now() > end {
                panic!(
                    "no verdict on {} within {PATIENCE:?}; the last answer: {last}",
                    self.request_id()
                );
            }
            let client = &clients[(first + attempt) % clients.len()];
            match self.send(client, Duration::from_secs(5)).await {
                Ok(answer) => return Verdict::Applied(answer),
                Err(status) if is_definite(&status) => return Verdict::Refused(status),
                Err(status) => last = format!("{status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(2..40))).await;
        }
        unreachable!("the loop ends by return or panic")
    }
}

/// Brings what was answered with an error that does not stand to a verdict, which takes its place in
/// the history.
pub async fn settle_the_rest(history: &mut Vec<(Change, Verdict)>, client: &Client) {
    let is_open = |verdict: &Verdict| matches!(verdict, Verdict::Refused(it) if !is_definite(it));
    let open: Vec<_> = history.extract_if(.., |(_, verdict)| is_open(verdict)).collect();
    for (change, _) in open {
        let verdict = change.settle(std::slice::from_ref(client)).await;
        history.push((change, verdict));
    }
}

/// Whether this answer stands: a refusal by state or by form, which a repeat would get again.
pub fn is_definite(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::OutOfRange
    )
}
