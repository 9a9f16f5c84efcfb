//! Checks for the message ratchet.

use crate::registry::{Check, VectorFile};

/// The check for `file`, if it is one of this family.
pub fn check_for(_file: &VectorFile) -> Option<Check> {
    None
}
