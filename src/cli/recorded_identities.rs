//! The identities under which a ledger has requests, and the callers of this server.

use passbook_command::CliError;

use crate::{
    auth::Authenticator,
    config::SecurityConfig,
    domain::ids::{Identity, IdentityKind},
    storage::Store,
};

/// The most identities that a warning names.
const WARNED_OF_MAX: usize = 10;

/// Checks that every identity under which requests are recorded still belongs to a caller, for
/// example after authentication was switched on or off. A repeat of a request of another identity
/// would be applied a second time.
///
/// # Errors
/// One does not, and `callers_changed` is not set.
pub async fn check(
    store: &Store,
    authenticator: &Authenticator,
    config: &SecurityConfig,
) -> Result<(), CliError> {
    let recorded = store.recorded_names().await.map_err(CliError::run)?;
    let is_unknown = |name: &String| !authenticator.may_record_as(&Identity::from_stored(name));
    let unknown: Vec<String> = recorded.into_iter().filter(is_unknown).collect();
    let Some(first) = unknown.first() else { return Ok(()) };
    // Older versions recorded the requests of a caller with a DNS name under the name alone.
    let renamed = unknown.iter().find(|name| {
        let identity = Identity::new(IdentityKind::Dns, name);
        identity.is_ok_and(|identity| authenticator.may_record_as(&identity))
    });
    let danger = "a repeat of such a request, as after a timeout, would be applied a second time";
    let message = match (config.is_authenticating(), first.as_str(), renamed) {
        (true, "", _) => format!(
            "the ledger has requests of callers that were not authenticated, and no identity of \
             the policy continues them: {danger}. Set `recorded_as = \"\"` in policy_file for the \
             identity that continues them, or set callers_changed if no caller repeats one of them"
        ),
        (false, name, _) => format!(
            "the ledger has requests of identities such as {name:?}, but this server does not \
             authenticate callers: {danger}. Set policy_file with tokens_file, \
             tls_client_ca_file or jwt_issuer, or set callers_changed if no caller repeats one of \
             them"
        ),
        (true, _, Some(name)) => format!(
            "the ledger has requests of {name:?}, an identity of older versions that is \
             \"dns:{name}\" now: {danger}. Set `recorded_as = {name:?}` in policy_file for this \
             identity, or set callers_changed if no caller repeats one of them"
        ),
        (true, _, None) => {
            tracing::warn!(
                count = unknown.len(),
                first = ?&unknown[..unknown.len().min(WARNED_OF_MAX)],
                "the ledger has requests of identities that are not in the policy: if an identity \
                 was renamed, set `recorded_as`, or its repeats are applied a second time"
            );
            return Ok(());
        }
    };
    if !config.callers_changed {
        return Err(CliError::Usage(message));
    }
    tracing::warn!("serving because callers_changed is set: {message}");
    Ok(())
}
