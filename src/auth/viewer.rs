//! The one on whose behalf a request is answered.

use crate::domain::{Access, Timestamp};

/// The one on whose behalf a request is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    /// Named as the actor of every change.
    pub subject: String,
    pub access: Access,
    /// When the credential ends; `None` of one that does not end by itself.
    pub expires_at: Option<Timestamp>,
}

impl Viewer {
    /// Whoever asks while authentication is off: everything is permitted.
    pub fn anonymous() -> Self {
        Self { subject: "anonymous".to_owned(), access: Access::all(), expires_at: None }
    }
}
