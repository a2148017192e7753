//! Results of verification.

use crate::{
    domain::verification::{Fault, FaultKind, VerifiedAccount},
    proto,
};

/// Encodes the result for one account.
pub fn verified_account(verified: VerifiedAccount) -> proto::VerifyAccountResponse {
    proto::VerifyAccountResponse {
        valid: verified.fault.is_none(),
        entries_verified: verified.entries_verified,
        fault: verified.fault.map(fault),
    }
}

fn fault(fault: Fault) -> proto::VerificationFault {
    use proto::VerificationFaultKind as Kind;
    proto::VerificationFault {
        account_id: fault.account_id.to_string(),
        sequence: fault.sequence,
        kind: match fault.kind {
            FaultKind::MissingEntry => Kind::MissingEntry,
            FaultKind::SurplusEntry => Kind::SurplusEntry,
            FaultKind::WrongSum => Kind::WrongSum,
            FaultKind::WrongHash => Kind::WrongHash,
            FaultKind::WrongBalance => Kind::WrongBalance,
            FaultKind::WrongHeld => Kind::WrongHeld,
            FaultKind::WrongLimit => Kind::WrongLimit,
            FaultKind::WrongTime => Kind::WrongTime,
            FaultKind::Unreadable => Kind::Unreadable,
        }
        .into(),
        description: fault.description,
    }
}
