//! What hangs on incidents, loaded for all that ask at a time, with one statement for each kind of thing.
//!
//! Loaders are of one operation and one scope, and keep nothing: a mutation's next field, and a subscription's next event, read anew.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use async_graphql::dataloader::{DataLoader, Loader};
use async_graphql::{Error, Result};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::error::{Internal, shared};
use super::turns::{AtOnce, Loads};
use crate::domain::{
    Alert, Comment, Detail, Incident, IncidentId, NestedPage, Page, Playbook, RelatedIncident, Scope, TimelineEntry,
};
use crate::store::{Store, StoreError};

/// The loaders of one operation.
pub struct Loaders(DataLoader<FromStore>);

/// Under the scope of whoever asks: nothing outside is loaded.
struct FromStore {
    store: Store,
    scope: Scope,
}

impl Loaders {
    /// Loads run where `loads` is driven.
    pub fn new(store: Store, scope: Scope, loads: Loads) -> Self {
        // as many keys as there are: a batch of a fixed size would be a statement more for every so many
        Self(DataLoader::new(FromStore { store, scope }, loads, AtOnce).max_batch_size(usize::MAX))
    }

    /// Boxed, as every field of an object is a future with room for the largest of them.
    fn one<K>(&self, key: K) -> BoxFuture<'_, Result<Option<<FromStore as Loader<K>>::Value>>>
    where
        K: Send + Sync + Hash + Eq + Clone + 'static,
        FromStore: Loader<K, Error = Arc<StoreError>>,
    {
        async move { self.0.load_one(key).await.map_err(shared) }.boxed()
    }

    pub async fn incident(&self, id: IncidentId) -> Result<Option<Arc<Incident>>> {
        self.one(IncidentKey(id)).await
    }

    pub async fn alerts(&self, page: NestedPage) -> Result<Page<Alert>> {
        whole(self.one(AlertsKey(page)).await?)
    }

    pub async fn comments(&self, page: NestedPage) -> Result<Page<Comment>> {
        whole(self.one(CommentsKey(page)).await?)
    }

    pub async fn timeline(&self, page: NestedPage) -> Result<Page<TimelineEntry>> {
        whole(self.one(TimelineKey(page)).await?)
    }

    pub async fn playbook_of(&self, id: IncidentId) -> Result<Option<Arc<Playbook>>> {
        self.one(PlaybookOf(id)).await
    }

    pub async fn related(&self, id: IncidentId, detail: Detail) -> Result<Arc<[RelatedIncident]>> {
        Ok(self.one(RelatedTo((id, detail))).await?.unwrap_or_default())
    }

    pub async fn alert_count(&self, id: IncidentId) -> Result<i64> {
        Ok(self.one(AlertCount(id)).await?.unwrap_or_default())
    }

    pub async fn comment_count(&self, id: IncidentId) -> Result<i64> {
        Ok(self.one(CommentCount(id)).await?.unwrap_or_default())
    }

    pub async fn timeline_count(&self, id: IncidentId) -> Result<i64> {
        Ok(self.one(TimelineCount(id)).await?.unwrap_or_default())
    }
}

/// A page that was asked for is there, if only with nothing on it.
fn whole<T: Clone>(page: Option<Arc<Page<T>>>) -> Result<Page<T>> {
    page.map(Arc::unwrap_or_clone).ok_or_else(|| Error::from(Internal))
}

/// Declares a kind of key, and how the store answers many of them.
macro_rules! loads {
    ($($key:ident($of:ty) -> $value:ty = $method:ident($($scope:ident)?);)*) => {$(
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        struct $key($of);

        impl Loader<$key> for FromStore {
            type Value = $value;
            type Error = Arc<StoreError>;

            async fn load(&self, keys: &[$key]) -> Result<HashMap<$key, $value>, Arc<StoreError>> {
                let keys: Vec<$of> = keys.iter().map(|key| key.0).collect();
                let found = self.store.$method($(&self.$scope,)? &keys).await.map_err(Arc::new)?;
                Ok(found.into_iter().map(|(key, value)| ($key(key), value.into())).collect())
            }
        }
    )*};
}

loads! {
    IncidentKey(IncidentId) -> Arc<Incident> = incidents_by_id(scope);
    AlertsKey(NestedPage) -> Arc<Page<Alert>> = alert_pages(scope);
    CommentsKey(NestedPage) -> Arc<Page<Comment>> = comment_pages();
    TimelineKey(NestedPage) -> Arc<Page<TimelineEntry>> = timeline_pages();
    PlaybookOf(IncidentId) -> Arc<Playbook> = playbooks_of();
    RelatedTo((IncidentId, Detail)) -> Arc<[RelatedIncident]> = related_incidents(scope);
    AlertCount(IncidentId) -> i64 = alert_counts(scope);
    CommentCount(IncidentId) -> i64 = comment_counts();
    TimelineCount(IncidentId) -> i64 = timeline_counts();
}
