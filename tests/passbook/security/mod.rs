//! Who may do what, and what a peer that means harm can reach.

mod append_only_triggers;
mod append_only_triggers_of_holds;
mod authorization_matrix;
mod call_limits;
mod http2_abuse;
mod identities_and_grants;
mod identities_changed;
mod tls;
