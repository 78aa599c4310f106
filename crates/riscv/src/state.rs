//! State as it is saved, apart from the live types that it is of (LAYOUT, "Live types never serialise themselves").
//!
//! A section of a snapshot holds a *state*: a struct that has its version in its name, in `state.rs` beside the live
//! type. Its fields in their order are the section's bytes, in postcard. To add, remove, retype or reorder one is a new
//! version of the section, and a struct of its own (`tests::states` has the bytes of every state that was ever written).
//!
//! States are read field by field, so that a build that finds something else says in which field.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use pollux_vocab::{Clock, ClockRate, DiskOp, GuestAddr, Icount, VirtTime};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A live type that has a state.
pub(crate) trait Saved: Sized {
    /// Its state.
    type State;

    /// The state that it is in.
    fn save(&self) -> Self::State;

    /// What is in that state. Whether it makes sense is for the caller to see.
    fn revive(state: Self::State) -> Self;
}

/// A state that is read field by field.
pub(crate) trait Fields: Sized {
    /// Its name and its fields, in order.
    #[allow(dead_code, reason = "for the test that compares them with what was ever written")]
    const FIELDS: &'static str;

    /// The state at the beginning of `bytes`, and what is behind it; else the name of the field that is not there.
    fn read(bytes: &[u8]) -> Result<(Self, &[u8]), &'static str>;
}

/// What is wrong with a section that goes on behind its last field.
pub(crate) const BEHIND_THE_END: &str = "(behind the last one)";
/// What is wrong with a section whose fields make no sense together, or not for this machine.
pub(crate) const UNFIT: &str = "(all together)";
/// What is wrong with a list that is shorter than it says.
const LENGTH: &str = "(their number)";

/// One field.
pub(crate) fn field<'a, T: DeserializeOwned>(
    bytes: &mut &'a [u8],
    name: &'static str,
) -> Result<T, &'static str> {
    let (value, rest): (T, &'a [u8]) = postcard::take_from_bytes(bytes).map_err(|_| name)?;
    *bytes = rest;
    Ok(value)
}

impl<T: Fields> Fields for Vec<T> {
    const FIELDS: &'static str = T::FIELDS;

    fn read(mut bytes: &[u8]) -> Result<(Self, &[u8]), &'static str> {
        let count: usize = field(&mut bytes, LENGTH)?;
        let mut all = Self::new();
        for _ in 0..count {
            let (one, rest) = T::read(bytes)?;
            all.push(one);
            bytes = rest;
        }
        Ok((all, bytes))
    }
}

/// The bytes of a state.
pub(crate) fn encode<T: Serialize>(state: &T) -> Vec<u8> {
    // Serialising plain data into a growing buffer cannot fail.
    postcard::to_allocvec(state).unwrap_or_default()
}

/// The state that is all that `bytes` hold; else the name of the field that is wrong.
pub(crate) fn decode<T: Fields>(bytes: &[u8]) -> Result<T, &'static str> {
    match T::read(bytes)? {
        (state, []) => Ok(state),
        _ => Err(BEHIND_THE_END),
    }
}

/// Reads a state field by field, and says what they are.
macro_rules! reading {
    ($state:ident { $($field:ident: $type:ty),* }) => {
        impl $crate::state::Fields for $state {
            const FIELDS: &'static str =
                concat!(stringify!($state), ":", $(" ", stringify!($field), " ", stringify!($type), ";",)*);

            fn read(mut bytes: &[u8]) -> Result<(Self, &[u8]), &'static str> {
                $(let $field = $crate::state::field(&mut bytes, stringify!($field))?;)*
                Ok((Self { $($field),* }, bytes))
            }
        }
    };
}
pub(crate) use reading;

/// Defines a state.
macro_rules! fields {
    ($(#[$doc:meta])* $state:ident { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
        pub(crate) struct $state {
            $(pub(crate) $field: $type,)*
        }

        $crate::state::reading!($state { $($field: $type),* });
    };
}
pub(crate) use fields;

/// Defines the state of a live struct: the same fields, each as its own state, and the way there and back. A field of the
/// live type that is not listed, or has another type, does not compile.
macro_rules! state {
    ($(#[$doc:meta])* $state:ident of $live:ident { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
        pub(crate) struct $state {
            $(pub(crate) $field: <$type as $crate::state::Saved>::State,)*
        }

        $crate::state::reading!($state { $($field: $type),* });

        impl $crate::state::Saved for $live {
            type State = $state;

            fn save(&self) -> $state {
                let Self { $($field),* } = self;
                $state { $($field: <$type as $crate::state::Saved>::save($field)),* }
            }

            fn revive(state: $state) -> Self {
                let $state { $($field),* } = state;
                Self { $($field: <$type as $crate::state::Saved>::revive($field)),* }
            }
        }
    };
}
pub(crate) use state;

/// Values that are their own state.
macro_rules! values {
    ($($value:ty),* $(,)?) => {
        $(impl Saved for $value {
            type State = Self;

            fn save(&self) -> Self {
                Self::clone(self)
            }

            fn revive(state: Self) -> Self {
                state
            }
        })*
    };
}

values!(bool, u8, u16, u32, u64, String, GuestAddr, Icount, VirtTime, ClockRate, DiskOp);

impl<T: Saved, const N: usize> Saved for [T; N] {
    type State = [T::State; N];

    fn save(&self) -> Self::State {
        core::array::from_fn(|index| self[index].save())
    }

    fn revive(state: Self::State) -> Self {
        state.map(T::revive)
    }
}

impl<T: Saved> Saved for Vec<T> {
    type State = Vec<T::State>;

    fn save(&self) -> Self::State {
        self.iter().map(T::save).collect()
    }

    fn revive(state: Self::State) -> Self {
        state.into_iter().map(T::revive).collect()
    }
}

impl<T: Saved> Saved for VecDeque<T> {
    type State = Vec<T::State>;

    fn save(&self) -> Self::State {
        self.iter().map(T::save).collect()
    }

    fn revive(state: Self::State) -> Self {
        state.into_iter().map(T::revive).collect()
    }
}

state!(
    /// The clock: version 1.
    ClockV1 of Clock { base_icount: Icount, base: VirtTime, rate: ClockRate }
);
