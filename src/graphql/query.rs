//! The root `Query`.

use async_graphql::{Context, Object, Result};
use uuid::Uuid;

use super::alert::Alert;
use super::connection::{Counted, TotalCount, connection};
use super::error::nullable;
use super::incident::Incident;
use super::input::IncidentFilter;
use crate::domain::{AlertFilter, AlertId, IncidentId, IncidentOrder, ListTag, PageRequest, text_list};
use crate::store::Store;

pub struct Query;

#[Object]
impl Query {
    async fn incident(&self, context: &Context<'_>, id: Uuid) -> Option<Incident> {
        let found = async { Ok(context.data::<Store>()?.incident(IncidentId(id)).await?.map(Incident::from)) };
        nullable(context, found.await)
    }

    /// 20 where neither `first` nor `last` is given.
    #[expect(clippy::too_many_arguments, reason = "the arguments of a connection, by its specification")]
    async fn incidents(
        &self,
        context: &Context<'_>,
        filter: Option<IncidentFilter>,
        #[graphql(default_with = "Some(IncidentOrder::CreatedAtDesc)")] order_by: Option<IncidentOrder>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> Result<Counted<Incident>> {
        let order = order_by.unwrap_or(IncidentOrder::CreatedAtDesc);
        let tag = ListTag::Incidents(order);
        let page = PageRequest::from_args(tag, 20, (first, after.as_deref()), (last, before.as_deref()))?;
        let filter = filter.unwrap_or_default().check()?;
        let found = context.data::<Store>()?.incidents(&filter, order, page).await?;
        Ok(connection(found, tag, TotalCount::Incidents(filter)))
    }

    async fn alert(&self, context: &Context<'_>, id: Uuid) -> Option<Alert> {
        let found = async { Ok(context.data::<Store>()?.alert(AlertId(id)).await?.map(Alert::from)) };
        nullable(context, found.await)
    }

    /// Newest first.
    #[expect(clippy::too_many_arguments, reason = "the contract's")]
    async fn alerts(
        &self,
        context: &Context<'_>,
        sources: Option<Vec<String>>,
        incident_id: Option<Uuid>,
        firing: Option<bool>,
        #[graphql(default_with = "Some(20)")] first: Option<i32>,
        after: Option<String>,
    ) -> Result<Counted<Alert>> {
        let page = PageRequest::from_args(ListTag::Alerts, 20, (first, after.as_deref()), (None, None))?;
        text_list("sources", sources.as_deref().unwrap_or_default())?;
        let filter = AlertFilter { sources, incident_id: incident_id.map(IncidentId), firing };
        let found = context.data::<Store>()?.alerts(&filter, page).await?;
        Ok(connection(found, ListTag::Alerts, TotalCount::Alerts(filter)))
    }
}
