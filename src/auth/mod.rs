//! Authentication of callers, and authorization of their calls.
//!
//! A caller sends a bearer token (`authorization: Bearer TOKEN`), which the file of tokens knows or
//! which is a JWT of the issuer, or, with mutual TLS, a client certificate. A token takes precedence;
//! an invalid one is rejected even beside a valid certificate, and a certificate that is not one of a
//! caller beside a valid token. The policy says which methods an identity may call, and which rights
//! it has on which accounts, up to which amounts. Everything else is denied. Methods are checked here,
//! before the request is read; accounts and amounts by the ledger
//! ([`crate::domain::authorization`]), which reads them.
//!
//! This folder knows HTTP headers and the list of methods. It knows no tonic and no `Status`: an
//! error is an [`AuthError`].

mod authenticator;
mod call_authorization;
mod credentials;
mod files;
mod jwt;
mod policy;
mod policy_file;
mod principal;
mod recorded_names;
mod tokens;

pub use crate::auth::{
    authenticator::{Authenticator, caller},
    call_authorization::CallAuthorization,
    credentials::{AuthError, Credentials, Peer, PeerCertificate, Unauthenticated},
    files::{CredentialFiles, CredentialTexts},
    jwt::{JwtError, JwtIssuer, JwtSettings, KeySet},
    policy::{AllowedMethods, MethodsError, Permission, Policy},
    principal::Principal,
    tokens::{Token, Tokens, bearer},
};
pub use crate::domain::authorization::{Caller, Grant};
