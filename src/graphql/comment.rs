//! The object type `Comment`.

use async_graphql::Object;

use super::scalar::{DateTime, Id};
use crate::domain;

/// What somebody said of an incident.
pub struct Comment(pub domain::Comment);

impl From<domain::Comment> for Comment {
    fn from(comment: domain::Comment) -> Self {
        Self(comment)
    }
}

#[Object]
impl Comment {
    async fn id(&self) -> Id {
        Id(self.0.id.0)
    }

    async fn author(&self) -> &str {
        &self.0.author
    }

    async fn body(&self) -> &str {
        &self.0.body
    }

    async fn created_at(&self) -> DateTime {
        self.0.created_at.into()
    }
}
