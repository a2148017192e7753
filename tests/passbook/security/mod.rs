//! Authorization, and what a hostile peer can reach.

mod admin_port;
mod admin_port_attacks;
mod amounts_of_holds;
mod append_only_triggers;
mod append_only_triggers_of_holds;
mod audit;
mod audit_files;
mod authorization_matrix;
mod call_limits;
mod calls_of_every_method;
mod credential_files;
mod front_door;
mod identities_and_grants;
mod identities_changed;
mod jwt;
mod jwt_keys;
mod names_of_others;
mod revocation;
mod rights;
mod streamed_requests;
mod tls;
