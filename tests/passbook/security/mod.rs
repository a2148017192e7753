//! Authorization, and what a hostile peer can reach.

mod append_only_triggers;
mod append_only_triggers_of_holds;
mod audit;
mod audit_files;
mod authorization_matrix;
mod call_limits;
mod credential_files;
mod front_door;
mod http2_abuse;
mod identities_and_grants;
mod identities_changed;
mod jwt;
mod jwt_keys;
mod names_of_others;
mod revocation;
mod rights;
mod tls;
