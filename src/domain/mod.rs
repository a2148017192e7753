//! The rules of accounts and money. Pure: no clock, no randomness, no I/O, no async.
//!
//! Reading order: [`money`] and [`ids`] (the types that carry their checks), [`account`]
//! and [`hold`], [`command`] (the changes), [`fingerprint`] (whether a repeat is the same),
//! [`unit_of_work`] (applies commands to locked accounts), [`balancing`] (sums of zero),
//! [`transaction`] (what it leaves behind), [`effective_time`] (when that counts), [`rejection`]
//! (why not), [`event`] (what happened), [`query`] (what lists select), [`balance_sum`] (what they
//! add up to), [`authorization`] (rights of callers), [`verification`] (checks of what is stored),
//! [`hex`] (bytes as text).
//!
//! In here: rules as functions of their arguments. Not in here: anything of the wire, the database
//! or the runtime.

/// Gives each value of an enum its name in SQL, in errors and in fingerprints.
macro_rules! stored_names {
    ($enum:ident { $($value:ident = $name:literal,)+ }) => {
        impl $enum {
            /// All values.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$value),+];

            /// The name of this value.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)+
                }
            }

            /// The value with this name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|value| value.name() == name)
            }
        }
    };
}

pub mod account;
pub mod authorization;
pub mod balance_sum;
pub mod balancing;
pub mod command;
pub mod effective_time;
pub mod event;
pub mod fingerprint;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod hex;
pub mod hold;
pub mod ids;
pub mod money;
pub mod query;
pub mod rejection;
pub mod transaction;
pub mod unit_of_work;
pub mod verification;

#[cfg(test)]
mod money_tests;
