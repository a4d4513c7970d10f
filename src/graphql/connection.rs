//! Connections, by the Relay Cursor Connections Specification.

use async_graphql::connection::{
    Connection, ConnectionNameType, DefaultConnectionName, DefaultEdgeName, Edge, EdgeNameType, EmptyFields,
};
use async_graphql::{Context, Lookahead, Object, OutputType, Result};

use super::alert::Alert;
use super::comment::Comment;
use super::incident::Incident;
use super::loader::Loaders;
use super::playbook::Playbook;
use super::timeline::TimelineEntry;
use crate::domain::{Access, AlertFilter, Detail, IncidentFilter, IncidentId, Keyset, ListTag, Page, Severity};
use crate::store::Store;

/// A page of a list, with the count of all of it.
pub type Counted<Node, Name = DefaultConnectionName, EdgeName = DefaultEdgeName> =
    Connection<String, Node, TotalCount, EmptyFields, Name, EdgeName>;

/// A page of a timeline: its types are named after the list, not after its entries.
pub type TimelineConnection = Counted<TimelineEntry, TimelineName, TimelineName>;

pub struct TimelineName;

impl ConnectionNameType for TimelineName {
    fn type_name<T: OutputType>() -> String {
        "TimelineConnection".to_owned()
    }
}

impl EdgeNameType for TimelineName {
    fn type_name<T: OutputType>() -> String {
        "TimelineEdge".to_owned()
    }
}

/// What a connection counts, if it is asked to.
pub enum TotalCount {
    Incidents(IncidentFilter),
    Alerts(AlertFilter),
    AlertsOf(IncidentId),
    CommentsOf(IncidentId),
    TimelineOf(IncidentId),
    Playbooks,
    /// Of a list that the viewer may not see.
    Nothing,
}

#[Object]
impl TotalCount {
    /// How many there are in all; counted only when it is asked for.
    async fn total_count(&self, context: &Context<'_>) -> Result<i32> {
        let (store, loaders) = (context.data::<Store>()?, context.data::<Loaders>()?);
        let scope = &context.data::<Access>()?.scope;
        // boxed, as every field of a connection is a future with room for the largest of them
        let count = Box::pin(async move {
            match self {
                Self::Incidents(filter) => Ok(store.count_incidents(scope, filter).await?),
                Self::Alerts(filter) => Ok(store.count_alerts(scope, filter).await?),
                Self::AlertsOf(incident) => loaders.alert_count(*incident).await,
                Self::CommentsOf(incident) => loaders.comment_count(*incident).await,
                Self::TimelineOf(incident) => loaders.timeline_count(*incident).await,
                Self::Playbooks => Ok(store.count_playbooks().await?),
                Self::Nothing => Ok(0),
            }
        });
        Ok(i32::try_from(count.await?).unwrap_or(i32::MAX))
    }
}

/// An object of a list, with its place in it.
pub trait Node: OutputType {
    /// Where this one stands in the list.
    fn key(&self, tag: ListTag) -> Keyset;
}

impl Node for Incident {
    fn key(&self, tag: ListTag) -> Keyset {
        self.0.key(tag)
    }
}

impl Node for Alert {
    fn key(&self, tag: ListTag) -> Keyset {
        Keyset { tag, severity: Severity::P0, at: self.0.received_at, id: self.0.id.0 }
    }
}

impl Node for Comment {
    fn key(&self, _: ListTag) -> Keyset {
        self.0.key()
    }
}

impl Node for TimelineEntry {
    fn key(&self, tag: ListTag) -> Keyset {
        Keyset::of_position(tag, self.0.position)
    }
}

impl Node for Playbook {
    fn key(&self, tag: ListTag) -> Keyset {
        Keyset { tag, severity: Severity::P0, at: self.0.created_at, id: self.0.id.0 }
    }
}

/// Where the objects of a connection are selected.
pub fn nodes<'c>(context: &'c Context<'_>) -> [Lookahead<'c>; 2] {
    let connection = context.look_ahead();
    [connection.field("nodes"), connection.field("edges").field("node")]
}

/// Whether one of the fields that may be `long` is selected.
pub fn detail(selected: &[Lookahead<'_>], long: &[&str]) -> Detail {
    let asked = selected.iter().any(|object| long.iter().any(|field| object.field(field).exists()));
    if asked { Detail::Whole } else { Detail::Brief }
}

/// The connection of a list that the viewer may not see.
pub fn empty<N, Name, EdgeName>() -> Counted<N, Name, EdgeName>
where
    N: Node,
    Name: ConnectionNameType,
    EdgeName: EdgeNameType,
{
    Connection::with_additional_fields(false, false, TotalCount::Nothing)
}

/// Makes a connection of a page.
pub fn connection<T, N, Name, EdgeName>(page: Page<T>, tag: ListTag, count: TotalCount) -> Counted<N, Name, EdgeName>
where
    N: Node + From<T>,
    Name: ConnectionNameType,
    EdgeName: EdgeNameType,
{
    let mut connection = Connection::with_additional_fields(page.has_previous, page.has_next, count);
    connection.edges.extend(page.items.into_iter().map(|item| {
        let node = N::from(item);
        Edge::new(node.key(tag).encode(), node)
    }));
    connection
}
