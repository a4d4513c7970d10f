//! The root `Query`.

use std::sync::Arc;

use async_graphql::{Context, Object, Result};

use super::access::{needs, open, require};
use super::alert::Alert;
use super::api_key::{self, ApiKey};
use super::connection::{Counted, TotalCount, connection};
use super::error::{Internal, nullable, shared};
use super::incident::Incident;
use super::input::IncidentFilter;
use super::loader::Loaders;
use super::playbook::Playbook;
use super::scalar::Id;
use super::stream::{Position, StreamPosition};
use crate::auth::{Caller, Viewer};
use crate::domain::Permission::{AlertsRead, IncidentsRead, KeysManage, PlaybooksRead};
use crate::domain::{AlertFilter, AlertId, IncidentId, IncidentOrder, ListTag, PageRequest, PlaybookId, text_list};
use crate::store::Store;

pub struct Query;

#[Object]
impl Query {
    #[graphql(directive = needs::apply(IncidentsRead.into()))]
    async fn incident(&self, context: &Context<'_>, id: Id) -> Option<Incident> {
        let found = async {
            require(context, IncidentsRead)?;
            Ok(context.data::<Loaders>()?.incident(IncidentId(id.0)).await?.map(Incident))
        };
        nullable(context, found.await)
    }

    /// 20 where neither `first` nor `last` is given.
    #[graphql(directive = needs::apply(IncidentsRead.into()))]
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
        let scope = require(context, IncidentsRead)?;
        let order = order_by.unwrap_or(IncidentOrder::CreatedAtDesc);
        let tag = ListTag::Incidents(order);
        let page = PageRequest::from_args(tag, 20, (first, after.as_deref()), (last, before.as_deref()))?;
        let filter = filter.unwrap_or_default().check()?;
        let found = context.data::<Store>()?.incidents(scope, &filter, order, page).await?;
        Ok(connection(found, tag, TotalCount::Incidents(filter)))
    }

    #[graphql(directive = needs::apply(AlertsRead.into()))]
    async fn alert(&self, context: &Context<'_>, id: Id) -> Option<Alert> {
        let found = async {
            let scope = require(context, AlertsRead)?;
            Ok(context.data::<Store>()?.alert(scope, AlertId(id.0)).await?.map(Alert::from))
        };
        nullable(context, found.await)
    }

    /// Newest first.
    #[graphql(directive = needs::apply(AlertsRead.into()))]
    async fn alerts(
        &self,
        context: &Context<'_>,
        sources: Option<Vec<String>>,
        incident_id: Option<Id>,
        firing: Option<bool>,
        #[graphql(default_with = "Some(20)")] first: Option<i32>,
        after: Option<String>,
    ) -> Result<Counted<Alert>> {
        let scope = require(context, AlertsRead)?;
        let page = PageRequest::from_args(ListTag::Alerts, 20, (first, after.as_deref()), (None, None))?;
        text_list("sources", sources.as_deref().unwrap_or_default())?;
        let filter = AlertFilter { sources, incident_id: incident_id.map(|id| IncidentId(id.0)), firing };
        let found = context.data::<Store>()?.alerts(scope, &filter, page).await?;
        Ok(connection(found, ListTag::Alerts, TotalCount::Alerts(filter)))
    }

    #[graphql(directive = needs::apply(PlaybooksRead.into()))]
    async fn playbook(&self, context: &Context<'_>, id: Id) -> Option<Playbook> {
        let found = async {
            require(context, PlaybooksRead)?;
            Ok(context.data::<Store>()?.playbook(PlaybookId(id.0)).await?.map(Playbook::from))
        };
        nullable(context, found.await)
    }

    /// Oldest first.
    #[graphql(directive = needs::apply(PlaybooksRead.into()))]
    async fn playbooks(
        &self,
        context: &Context<'_>,
        #[graphql(default_with = "Some(20)")] first: Option<i32>,
        after: Option<String>,
    ) -> Result<Counted<Playbook>> {
        require(context, PlaybooksRead)?;
        let page = PageRequest::from_args(ListTag::Playbooks, 20, (first, after.as_deref()), (None, None))?;
        let found = context.data::<Store>()?.playbooks(page).await?;
        Ok(connection(found, ListTag::Playbooks, TotalCount::Playbooks))
    }

    /// The newest position of the stream, taken before any other field of the operation is read: query it with your state,
    /// then subscribe with `after`. Nothing falls in between; what `version` shows that you have may come again.
    #[graphql(directive = open::apply())]
    #[expect(clippy::unused_async, reason = "the derive takes async resolvers only; the gateway has read it")]
    async fn stream_position(&self, context: &Context<'_>) -> Result<StreamPosition> {
        let Position(read) = context.data_opt::<Position>().ok_or(Internal)?;
        read.as_ref().map(StreamPosition::from).map_err(|failed| shared(Arc::clone(failed)))
    }

    /// Who asks, and what that one may do.
    #[graphql(directive = open::apply())]
    #[expect(clippy::unused_async, reason = "the derive takes async resolvers only")]
    async fn viewer<'c>(&self, context: &Context<'c>) -> Result<&'c Viewer> {
        Ok(context.data::<Caller>()?.viewer())
    }

    /// API keys within one's own permissions and sources, the newest first.
    #[graphql(directive = needs::apply(KeysManage.into()))]
    async fn api_keys(&self, context: &Context<'_>) -> Result<Vec<ApiKey>> {
        require(context, KeysManage)?;
        api_key::list(context).await
    }
}
