//! API keys: by what a program says who it is. Of its secret only a hash is kept, and that not here.

use super::access::Access;
use super::input::{self, InvalidInput, limits};
use super::{ApiKeyId, Timestamp};

/// A key as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub name: String,
    /// The part of the key that finds it.
    pub prefix: String,
    pub access: Access,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    /// At most a minute or so behind.
    pub last_used_at: Option<Timestamp>,
}

impl ApiKey {
    /// What the subjects of keys begin with, and those of tokens do not: whoever may make keys cannot act under a
    /// person's name.
    pub const SUBJECT_PREFIX: &str = "api-key:";

    /// Who acts with the key.
    pub fn subject(&self) -> String {
        format!("{}{}", Self::SUBJECT_PREFIX, self.name)
    }
}

/// What makes a key; checked.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    pub name: String,
    pub access: Access,
    pub expires_at: Option<Timestamp>,
}

impl NewApiKey {
    /// Checks texts and sizes against [`limits`], and that the key is good for something after `now`.
    pub fn check(self, now: Timestamp) -> Result<Self, InvalidInput> {
        input::text("name", &self.name, limits::KEY_NAME_CHARS)?;
        if self.name.chars().any(char::is_control) {
            return Err(InvalidInput::new("name", "must not contain control characters"));
        }
        if self.access.permissions.iter().next().is_none() {
            return Err(InvalidInput::new("permissions", "must not be empty"));
        }
        if let Some(sources) = self.access.scope.sources() {
            input::text_list("sources", &sources.iter().cloned().collect::<Vec<_>>())?;
        }
        if let Some(at) = self.expires_at
            && input::instant("expiresAt", at)? <= now
        {
            return Err(InvalidInput::new("expiresAt", "is over already"));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Role, Scope};

    fn check(change: impl FnOnce(&mut NewApiKey)) -> Result<NewApiKey, String> {
        let mut new = NewApiKey {
            name: "prometheus".to_owned(),
            access: Access { permissions: Role::Integration.permissions(), scope: Scope::of(["a"]) },
            expires_at: None,
        };
        change(&mut new);
        new.check(Timestamp::UNIX_EPOCH).map_err(|invalid| invalid.field)
    }

    #[test]
    fn a_key_has_a_name_permissions_and_a_future() {
        assert!(check(|_| {}).is_ok());
        assert!(check(|new| new.expires_at = Some(Timestamp::UNIX_EPOCH + chrono::TimeDelta::seconds(1))).is_ok());
        assert_eq!(check(|new| new.name.clear()).unwrap_err(), "name");
        assert_eq!(check(|new| new.name = "a\nb".to_owned()).unwrap_err(), "name");
        assert_eq!(check(|new| new.name = "x".repeat(limits::KEY_NAME_CHARS + 1)).unwrap_err(), "name");
        assert_eq!(check(|new| new.access.permissions = super::super::Permissions::NONE).unwrap_err(), "permissions");
        assert_eq!(check(|new| new.access.scope = Scope::of(["x".repeat(20_000)])).unwrap_err(), "sources");
        assert_eq!(check(|new| new.expires_at = Some(Timestamp::UNIX_EPOCH)).unwrap_err(), "expiresAt");
        assert_eq!(check(|new| new.expires_at = Some(Timestamp::MAX_UTC)).unwrap_err(), "expiresAt");
    }
}
