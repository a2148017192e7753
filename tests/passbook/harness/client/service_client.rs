//! The client of AccountService: calls take `&self`, and return the message without its metadata.

use bytes::Bytes;
use http_body::Body as HttpBody;
use hyper_util::client::legacy::{Client as Http, connect::HttpConnector};
use passbook::proto::{account_service_client::AccountServiceClient, *};
use tonic::{
    IntoRequest, IntoStreamingRequest, Status, Streaming, body::Body, client::GrpcService,
    codegen::StdError, service::interceptor::InterceptedService, transport::Channel,
};

use crate::harness::credentials::Credential;

/// `raw` gives access to the metadata of responses.
#[derive(Clone)]
pub struct ServiceClient<Transport> {
    pub raw: AccountServiceClient<Transport>,
}

/// A client that sends a credential with each call, if it has one.
pub type Client = ServiceClient<InterceptedService<Channel, Credential>>;

impl Client {
    pub fn over(channel: Channel, credential: Credential) -> Self {
        Self { raw: AccountServiceClient::with_interceptor(channel, credential) }
    }

    /// A client without a credential.
    pub fn anonymous(channel: Channel) -> Self {
        Self::over(channel, Credential::default())
    }
}

/// A client that leaves the deadline to the server. tonic's own client gives up at the deadline,
/// and on a busy machine before it reads an answer that arrived in time.
pub type Patient = ServiceClient<Http<HttpConnector, Body>>;

macro_rules! unary_calls {
    ($($call:ident($request:ty) -> $response:ty;)+) => {$(
        pub async fn $call(
            &self,
            request: impl IntoRequest<$request>,
        ) -> Result<$response, Status> {
            self.raw.clone().$call(request).await.map(tonic::Response::into_inner)
        }
    )+};
}

impl<Transport> ServiceClient<Transport>
where
    Transport: GrpcService<Body, Error: Into<StdError>> + Clone,
    Transport::ResponseBody: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
{
    unary_calls! {
        create_account(CreateAccountRequest) -> CreateAccountResponse;
        batch_create_accounts(BatchCreateAccountsRequest) -> BatchCreateAccountsResponse;
        get_account(GetAccountRequest) -> GetAccountResponse;
        batch_get_accounts(BatchGetAccountsRequest) -> BatchGetAccountsResponse;
        list_accounts(ListAccountsRequest) -> ListAccountsResponse;
        sum_balances(SumBalancesRequest) -> SumBalancesResponse;
        update_account(UpdateAccountRequest) -> UpdateAccountResponse;
        freeze_account(FreezeAccountRequest) -> FreezeAccountResponse;
        unfreeze_account(UnfreezeAccountRequest) -> UnfreezeAccountResponse;
        close_account(CloseAccountRequest) -> CloseAccountResponse;
        list_account_changes(ListAccountChangesRequest) -> ListAccountChangesResponse;
        deposit(DepositRequest) -> DepositResponse;
        withdraw(WithdrawRequest) -> WithdrawResponse;
        transfer(TransferRequest) -> TransferResponse;
        post_transaction(PostTransactionRequest) -> PostTransactionResponse;
        batch_post_transactions(BatchPostTransactionsRequest) -> BatchPostTransactionsResponse;
        place_hold(PlaceHoldRequest) -> PlaceHoldResponse;
        capture_hold(CaptureHoldRequest) -> CaptureHoldResponse;
        release_hold(ReleaseHoldRequest) -> ReleaseHoldResponse;
        update_hold(UpdateHoldRequest) -> UpdateHoldResponse;
        get_hold(GetHoldRequest) -> GetHoldResponse;
        list_holds(ListHoldsRequest) -> ListHoldsResponse;
        reverse_transaction(ReverseTransactionRequest) -> ReverseTransactionResponse;
        get_transaction(GetTransactionRequest) -> GetTransactionResponse;
        list_transactions(ListTransactionsRequest) -> ListTransactionsResponse;
        list_entries(ListEntriesRequest) -> ListEntriesResponse;
        get_balance(GetBalanceRequest) -> GetBalanceResponse;
        get_request_outcome(GetRequestOutcomeRequest) -> GetRequestOutcomeResponse;
        fence_request(FenceRequestRequest) -> FenceRequestResponse;
        verify_account(VerifyAccountRequest) -> VerifyAccountResponse;
    }

    pub async fn stream_transactions(
        &self,
        requests: impl IntoStreamingRequest<Message = StreamTransactionsRequest>,
    ) -> Result<Streaming<StreamTransactionsResponse>, Status> {
        let responses = self.raw.clone().stream_transactions(requests).await;
        responses.map(tonic::Response::into_inner)
    }

    pub async fn watch_entries(
        &self,
        request: impl IntoRequest<WatchEntriesRequest>,
    ) -> Result<Streaming<WatchEntriesResponse>, Status> {
        self.raw.clone().watch_entries(request).await.map(tonic::Response::into_inner)
    }

    pub async fn watch_events(
        &self,
        request: impl IntoRequest<WatchEventsRequest>,
    ) -> Result<Streaming<WatchEventsResponse>, Status> {
        self.raw.clone().watch_events(request).await.map(tonic::Response::into_inner)
    }
}
