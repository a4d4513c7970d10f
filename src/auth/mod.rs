//! Who asks.

/// The one on whose behalf a request is answered.
#[derive(Debug, Clone)]
pub struct Viewer {
    /// Named as the actor of every change.
    pub subject: String,
}

impl Viewer {
    /// Whoever asks while authentication is off.
    pub fn anonymous() -> Self {
        Self { subject: "anonymous".to_owned() }
    }
}
