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

/// Lists all values of an enum: one that is missing does not compile.
macro_rules! all_values {
    ($enum:ident { $($value:ident,)+ }) => {
        impl $enum {
            /// All values.
            pub const ALL: [Self; [$(stringify!($value)),+].len()] = {
                // Nothing calls it: it compiles only with all values.
                const fn _complete(value: &$enum) {
                    match value {
                        $($enum::$value => (),)+
                    }
                }
                [$(Self::$value),+]
            };
        }
    };
}

/// Gives each value of an enum its name in SQL, in the policy, in errors and in fingerprints.
macro_rules! names {
    ($enum:ident { $($value:ident = $name:literal,)+ }) => {
        all_values!($enum { $($value,)+ });

        impl $enum {
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
