//! Calls of the contract in the name of a session.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use http::StatusCode;
use passbook_command::proto::{
    account_service_client::AccountServiceClient, admin_service_client::AdminServiceClient,
};
use tonic::{
    Code, Request, Status,
    body::Body,
    metadata::{Ascii, MetadataValue},
};
use tonic_types::StatusExt;
use tower::util::BoxCloneSyncService;

/// The services of the server, behind the layers that every call passes.
pub type Services = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// How long a call may take. A person does not wait longer, and verifying a long account takes a
/// while.
const CALL_TIME_MAX: Duration = Duration::from_secs(10);

/// The address from which a browser is connected: an extension of its requests, and of the calls
/// that are made for it.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub SocketAddr);

/// Makes calls with one credential.
#[derive(Clone)]
pub struct Calls {
    services: Services,
    /// None: callers are not authenticated.
    authorization: Option<MetadataValue<Ascii>>,
    address: Option<ClientAddress>,
}

impl Calls {
    pub const fn new(
        services: Services,
        authorization: Option<MetadataValue<Ascii>>,
        address: Option<ClientAddress>,
    ) -> Self {
        Self { services, authorization, address }
    }

    /// The client of AccountService.
    pub fn accounts(&self) -> AccountServiceClient<Services> {
        AccountServiceClient::new(self.services.clone())
    }

    /// The client of AdminService.
    pub fn admin(&self) -> AdminServiceClient<Services> {
        AdminServiceClient::new(self.services.clone())
    }

    /// The request with the credential.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(CALL_TIME_MAX);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        if let Some(address) = self.address {
            request.extensions_mut().insert(address);
        }
        request
    }
}

/// Why a call has no response, as a page shows it.
#[derive(Clone, Debug)]
pub struct Problem {
    code: Code,
    pub reason: String,
    pub message: String,
}

impl Problem {
    /// Whether the credential is missing, or no longer valid.
    pub fn is_unauthenticated(&self) -> bool {
        self.code == Code::Unauthenticated
    }

    /// The status of a page that has only this problem.
    pub const fn http_status(&self) -> StatusCode {
        match self.code {
            Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::FailedPrecondition => StatusCode::CONFLICT,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// A problem of what the browser has sent.
    pub fn of_input(message: impl Into<String>) -> Self {
        Self { code: Code::InvalidArgument, reason: String::new(), message: message.into() }
    }

    /// The error that is the outcome of a request.
    pub fn of_outcome(status: &tonic_types::Status) -> Self {
        use tonic_types::RpcStatusExt;
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
        Self { code: Code::from_i32(status.code), reason, message: status.message.clone() }
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
        Self { code: status.code(), reason, message: status.message().to_owned() }
    }
}
