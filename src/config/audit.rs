//! The settings of the audit log.

use std::path::PathBuf;

use clap::Args;
use passbook_command::can_be_file;

use crate::{audit::AuditConfig, config::values::parse_switch};

/// The audit log.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Audit")]
pub struct AuditSettings {
    /// The file of the audit log: a line of JSON for each change, each denial and each reload of
    /// tokens, policy, certificates and keys for JWTs. `-` is standard output. Default: no audit log.
    #[arg(long, env, value_name = "FILE")]
    pub audit_file: Option<PathBuf>,

    /// No audit, no change: apply a change only after a line with its intent is on the disk. If the
    /// line cannot be written, the change gets UNAVAILABLE, and is not applied.
    #[arg(long, env, value_parser = parse_switch)]
    pub audit_required: bool,

    /// Write the amounts of changes into the audit log.
    #[arg(long, env, value_parser = parse_switch)]
    pub audit_amounts: bool,
}

impl AuditSettings {
    /// The audit log; None without one.
    #[must_use]
    pub fn config(&self) -> Option<AuditConfig> {
        let file = self.audit_file.clone()?;
        let (is_required, has_amounts) = (self.audit_required, self.audit_amounts);
        Some(AuditConfig { file, is_required, has_amounts })
    }

    /// Checks that the settings do not contradict each other, and that the file can exist.
    pub(super) fn validate(&self) -> Result<(), String> {
        let Some(file) = &self.audit_file else {
            return match (self.audit_required, self.audit_amounts) {
                (false, false) => Ok(()),
                (true, _) => Err("audit_required needs audit_file".to_owned()),
                (false, true) => Err("audit_amounts needs audit_file".to_owned()),
            };
        };
        if can_be_file(file) {
            return Ok(());
        }
        Err(format!("audit_file {}: must be a file in a folder that exists", file.display()))
    }
}
