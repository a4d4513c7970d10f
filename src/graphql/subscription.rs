//! The root `Subscription`. A resolver says what it filters for and gets its stream; who fills that, and from where on
//! (`after`), is none of its business.

#![expect(clippy::unused_async, reason = "the derive takes async resolvers only")]

use std::sync::Arc;

use async_graphql::{Context, Object, Result, Subscription};
use futures::{Stream, StreamExt as _};

use super::access::{needs, require};
use super::alert::Alert;
use super::error::Internal;
use super::incident::Incident;
use super::scalar::{DateTime, Id};
use crate::clock::Clock;
use crate::domain::Permission::{AlertsSubscribe, IncidentsSubscribe};
use crate::domain::{
    Change, Cursor, Event, Filter, IncidentChange, IncidentId, IncidentState, Interest, Permission, Severity,
    Timestamp, UpdateType,
};
use crate::events::{Delivery, EventSlot};

/// `after` resumes: first everything that matched since that cursor, in order, then live, with nothing lost or doubled.
/// Of lists that filter, null is no filter and [] matches nothing. Fields of the changed object itself are as the change left
/// them; what hangs on it (alerts, comments, an alert's incident) is as it is when the result is made.
pub struct Subscription;

fn set<T: Ord>(list: Option<Vec<T>>) -> Option<std::collections::BTreeSet<T>> {
    list.map(|list| list.into_iter().collect())
}

/// Opens the operation's stream of what `filter` matches and may be seen.
fn open<T>(
    context: &Context<'_>,
    permission: Permission,
    filter: Filter,
    view: impl Fn(Delivery) -> Result<T> + Send,
) -> Result<impl Stream<Item = Result<T>>> {
    let scope = require(context, permission)?.clone();
    Ok(context.data::<EventSlot>()?.open(Interest { filter, scope })?.map(view))
}

/// The incident of a delivery to a subscription that gets incidents only.
fn incident_of(delivery: Delivery) -> Result<Incident> {
    match delivery {
        Delivery::Event(event) => match &event.change {
            Change::Incident(change) => Ok(Incident(Arc::clone(&change.incident))),
            Change::Alert(_) | Change::Unreadable => Err(Internal.into()),
        },
        Delivery::Heartbeat(_) => Err(Internal.into()),
    }
}

#[Subscription]
impl Subscription {
    /// Every change of an incident, and a HEARTBEAT (incidentId null) while nothing happens, unless `updateTypes` leaves it out.
    #[graphql(directive = needs::apply(IncidentsSubscribe.into()))]
    async fn incident_updates(
        &self,
        context: &Context<'_>,
        incident_ids: Option<Vec<Id>>,
        severities: Option<Vec<Severity>>,
        update_types: Option<Vec<UpdateType>>,
        #[graphql(default_with = "Some(false)")] active_only: Option<bool>,
        #[graphql(name = "after")] _after: Option<String>,
    ) -> Result<impl Stream<Item = Result<IncidentUpdate>>> {
        let filter = Filter::IncidentUpdates {
            incident_ids: incident_ids.map(|ids| ids.into_iter().map(|id| IncidentId(id.0)).collect()),
            severities: set(severities),
            update_types: set(update_types),
            active_only: active_only.unwrap_or(false),
        };
        let clock = context.data::<Clock>()?.clone();
        open(context, IncidentsSubscribe, filter, move |delivery| {
            Ok(match delivery {
                Delivery::Event(event) => IncidentUpdate::Changed(event),
                Delivery::Heartbeat(cursor) => IncidentUpdate::Heartbeat { cursor, at: clock.now() },
            })
        })
    }

    #[graphql(directive = needs::apply(IncidentsSubscribe.into()))]
    async fn new_incidents(
        &self,
        context: &Context<'_>,
        severities: Option<Vec<Severity>>,
        #[graphql(name = "after")] _after: Option<String>,
    ) -> Result<impl Stream<Item = Result<Incident>>> {
        open(context, IncidentsSubscribe, Filter::NewIncidents { severities: set(severities) }, incident_of)
    }

    /// Incidents created as P0 or P1, and those raised from P2–P4 to P0 or P1 later.
    #[graphql(directive = needs::apply(IncidentsSubscribe.into()))]
    async fn critical_incidents(
        &self,
        context: &Context<'_>,
        #[graphql(name = "after")] _after: Option<String>,
    ) -> Result<impl Stream<Item = Result<Incident>>> {
        open(context, IncidentsSubscribe, Filter::CriticalIncidents, incident_of)
    }

    #[graphql(directive = needs::apply(IncidentsSubscribe.into()))]
    async fn incident_state_changes(
        &self,
        context: &Context<'_>,
        incident_id: Option<Id>,
        #[graphql(name = "after")] _after: Option<String>,
    ) -> Result<impl Stream<Item = Result<IncidentStateChange>>> {
        let filter = Filter::StateChanges { incident_id: incident_id.map(|id| IncidentId(id.0)) };
        open(context, IncidentsSubscribe, filter, |delivery| match delivery {
            Delivery::Event(event) => Ok(IncidentStateChange(event)),
            Delivery::Heartbeat(_) => Err(Internal.into()),
        })
    }

    /// Every alert as it comes in, repeats and ends included.
    #[graphql(directive = needs::apply(AlertsSubscribe.into()))]
    async fn alerts(
        &self,
        context: &Context<'_>,
        sources: Option<Vec<String>>,
        #[graphql(name = "after")] _after: Option<String>,
    ) -> Result<impl Stream<Item = Result<Alert>>> {
        open(context, AlertsSubscribe, Filter::Alerts { sources: set(sources) }, |delivery| match delivery {
            Delivery::Event(event) => match &event.change {
                Change::Alert(alert) => Ok(Alert(Arc::clone(alert))),
                Change::Incident(_) | Change::Unreadable => Err(Internal.into()),
            },
            Delivery::Heartbeat(_) => Err(Internal.into()),
        })
    }
}

/// One change of an incident, or a sign of life.
pub enum IncidentUpdate {
    Changed(Arc<Event>),
    Heartbeat { cursor: Cursor, at: Timestamp },
}

impl IncidentUpdate {
    fn change(&self) -> Option<&IncidentChange> {
        match self {
            Self::Changed(event) => match &event.change {
                Change::Incident(change) => Some(change),
                Change::Alert(_) | Change::Unreadable => None,
            },
            Self::Heartbeat { .. } => None,
        }
    }
}

#[Object]
impl IncidentUpdate {
    async fn update_type(&self) -> UpdateType {
        self.change().map_or(UpdateType::Heartbeat, |change| change.update_type)
    }

    async fn incident_id(&self) -> Option<Id> {
        self.change().map(|change| Id(change.incident.id.0))
    }

    async fn timestamp(&self) -> DateTime {
        match self {
            Self::Changed(event) => event.at.into(),
            Self::Heartbeat { at, .. } => (*at).into(),
        }
    }

    /// The stream's position after this result; a HEARTBEAT moves it on past events that the filter left out.
    async fn cursor(&self) -> String {
        match self {
            Self::Changed(event) => event.cursor().encode(),
            Self::Heartbeat { cursor, .. } => cursor.encode(),
        }
    }

    /// The incident as this change left it. Null on HEARTBEAT.
    async fn incident(&self) -> Option<Incident> {
        self.change().map(|change| Incident(Arc::clone(&change.incident)))
    }

    /// Names of the Incident fields that changed, but for version and updatedAt, which always do; empty on CREATED,
    /// COMMENT_ADDED and HEARTBEAT.
    async fn changed_fields(&self) -> &[String] {
        self.change().map_or(&[], |change| &change.changed_fields)
    }

    /// Who made the change: the API key's or token's subject, or the database role of a direct writer.
    async fn actor(&self) -> Option<&str> {
        match self {
            Self::Changed(event) => Some(&event.actor),
            Self::Heartbeat { .. } => None,
        }
    }
}

/// One step of an incident's state machine.
pub struct IncidentStateChange(Arc<Event>);

impl IncidentStateChange {
    fn change(&self) -> Result<&IncidentChange> {
        match &self.0.change {
            Change::Incident(change) => Ok(change),
            Change::Alert(_) | Change::Unreadable => Err(Internal.into()),
        }
    }
}

#[Object]
impl IncidentStateChange {
    async fn incident_id(&self) -> Result<Id> {
        Ok(Id(self.change()?.incident.id.0))
    }

    async fn old_state(&self) -> Result<IncidentState> {
        Ok(self.change()?.old_state.ok_or(Internal)?)
    }

    async fn new_state(&self) -> Result<IncidentState> {
        Ok(self.change()?.incident.state)
    }

    async fn changed_by(&self) -> &str {
        &self.0.actor
    }

    async fn timestamp(&self) -> DateTime {
        self.0.at.into()
    }
}
