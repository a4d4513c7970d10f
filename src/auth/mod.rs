//! Who asks, and what that one may do.

use crate::domain::Access;

/// The one on whose behalf a request is answered.
#[derive(Debug, Clone)]
pub struct Viewer {
    /// Named as the actor of every change.
    pub subject: String,
    pub access: Access,
}

impl Viewer {
    /// Whoever asks while authentication is off: everything is permitted.
    pub fn anonymous() -> Self {
        Self { subject: "anonymous".to_owned(), access: Access::all() }
    }
}
