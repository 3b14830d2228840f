//! Values that must not be printed by accident, and the random generator that they come from.

use std::fmt;

use rand::{rand_core::UnwrapErr, rngs::SysRng};

/// Holds a `T` that `{:?}` never shows. [`Secret::expose`] returns it.
///
/// ```
/// use loyalty_codes::secret::Secret;
/// let password = Secret::new("server123");
/// assert_eq!(format!("{password:?}"), "[secret]");
/// assert_eq!(*password.expose(), "server123");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Hides `value` from every formatter.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Call this only where the plain value is needed.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// The operating system's random generator. Every code, password and key comes from it.
///
/// Panics when the operating system provides no randomness: a secret must not be made without it.
pub fn os_rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}
