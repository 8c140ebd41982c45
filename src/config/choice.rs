//! Settings that are one of a few words: enums, each with one table of its words.

/// An enum of which each value is a word of the configuration.
pub trait Choice: Copy + PartialEq + 'static {
    /// The words, in the order in which they are shown.
    const WORDS: &'static [&'static str];
    /// What they stand for, in the same order.
    const VALUES: &'static [Self];

    /// The word of this value.
    fn word(self) -> &'static str {
        let at = Self::VALUES.iter().position(|value| *value == self);
        at.map_or("", |at| Self::WORDS[at])
    }
}

/// The table of an enum. A value that has no word does not compile.
macro_rules! words {
    ($name:ident { $($value:ident = $word:literal),+ $(,)? }) => {
        impl $crate::config::choice::Choice for $name {
            const WORDS: &'static [&'static str] = &[$($word),+];
            const VALUES: &'static [$name] = &[$($name::$value),+];
        }

        const _: fn($name) = |value| match value {
            $($name::$value => {}),+
        };
    };
}

/// An enum and its table at once: a value and its word are one line. What a value carries beside
/// has a default, which the configuration replaces.
macro_rules! choice {
    ($(#[$doc:meta])* pub enum $name:ident {
        $($(#[$about:meta])* $value:ident $({ $field:ident: $type:ty = $default:expr })?
            = $word:literal),+ $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$about])* $value $({ $field: $type })?),+
        }

        impl $crate::config::choice::Choice for $name {
            const WORDS: &'static [&'static str] = &[$($word),+];
            const VALUES: &'static [$name] = &[$($name::$value $({ $field: $default })?),+];

            fn word(self) -> &'static str {
                match self {
                    $($name::$value { .. } => $word,)+
                }
            }
        }
    };
}

pub(crate) use {choice, words};
