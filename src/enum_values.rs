//! Macros that list the values of an enum, and name them.

/// Lists all values of an enum: one that is missing does not compile.
macro_rules! all_values {
    ($enum:ident { $($value:ident),+ $(,)? }) => {
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
        all_values!($enum { $($value),+ });

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
