//! What a subscription asks for, and whether an event is that.

use std::collections::BTreeSet;

use super::event::{Change, Event, IncidentChange, UpdateType};
use super::ids::IncidentId;
use super::incident::{IncidentState, Severity};

/// One of the five subscriptions with its arguments. Of lists, `None` is no filter and an empty one matches nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Filter {
    /// `incidentUpdates`
    IncidentUpdates {
        incident_ids: Option<BTreeSet<IncidentId>>,
        /// The severity before or after the change, so that a board learns what leaves it.
        severities: Option<BTreeSet<Severity>>,
        update_types: Option<BTreeSet<UpdateType>>,
        /// Active before or after the change, so that a board learns what leaves it.
        active_only: bool,
    },
    /// `newIncidents`
    NewIncidents { severities: Option<BTreeSet<Severity>> },
    /// `criticalIncidents`: created as P0 or P1, or raised to it.
    CriticalIncidents,
    /// `incidentStateChanges`
    StateChanges { incident_id: Option<IncidentId> },
    /// `alerts`
    Alerts { sources: Option<BTreeSet<String>> },
}

impl Filter {
    /// Whether this event is what the subscription asks for.
    pub fn matches(&self, event: &Event) -> bool {
        match (self, &event.change) {
            (Self::Alerts { sources }, Change::Alert(alert)) => {
                sources.as_ref().is_none_or(|sources| sources.contains(&alert.source))
            }
            (Self::Alerts { .. }, Change::Incident(_)) | (_, Change::Alert(_) | Change::Unreadable) => false,
            (_, Change::Incident(change)) => self.matches_change(change),
        }
    }

    fn matches_change(&self, change: &IncidentChange) -> bool {
        let incident = &change.incident;
        match self {
            Self::IncidentUpdates { incident_ids, severities, update_types, active_only } => {
                has(incident_ids.as_ref(), &incident.id)
                    && severities.as_ref().is_none_or(|set| {
                        set.contains(&incident.severity) || change.old_severity.is_some_and(|old| set.contains(&old))
                    })
                    && has(update_types.as_ref(), &change.update_type)
                    && (!active_only
                        || incident.state.is_active()
                        || change.old_state.is_some_and(IncidentState::is_active))
            }
            Self::NewIncidents { severities } => {
                change.update_type == UpdateType::Created && has(severities.as_ref(), &incident.severity)
            }
            Self::CriticalIncidents => {
                incident.severity.is_critical()
                    && (change.update_type == UpdateType::Created
                        || change.old_severity.is_some_and(|old| !old.is_critical()))
            }
            Self::StateChanges { incident_id } => {
                change.old_state.is_some_and(|old| old != incident.state)
                    && incident_id.is_none_or(|wanted| wanted == incident.id)
            }
            Self::Alerts { .. } => false,
        }
    }

    /// Whether HEARTBEATs are asked for: of `incidentUpdates` alone, unless its list of types leaves them out.
    pub fn wants_heartbeat(&self) -> bool {
        match self {
            Self::IncidentUpdates { update_types, .. } => has(update_types.as_ref(), &UpdateType::Heartbeat),
            _ => false,
        }
    }
}

/// `None` is no filter.
fn has<T: Ord>(set: Option<&BTreeSet<T>>, value: &T) -> bool {
    set.is_none_or(|set| set.contains(value))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::{Alert, AlertId, EpochId, Incident, IncidentKind, Position, Timestamp};
    use uuid::Uuid;

    fn event(update_type: UpdateType, severity: Severity, state: IncidentState) -> Event {
        changed(update_type, (None, severity), (None, state))
    }

    fn changed(
        update_type: UpdateType,
        (old_severity, severity): (Option<Severity>, Severity),
        (old_state, state): (Option<IncidentState>, IncidentState),
    ) -> Event {
        let now = Timestamp::UNIX_EPOCH;
        let incident = Incident {
            id: IncidentId(Uuid::from_u128(1)),
            title: "title".to_owned(),
            description: String::new(),
            severity,
            state,
            kind: IncidentKind::Unknown,
            source: "source".to_owned(),
            created_at: now,
            updated_at: now,
            acknowledged_at: None,
            resolved_at: None,
            closed_at: None,
            assigned_to: None,
            affected_resources: Vec::new(),
            labels: serde_json::Map::new(),
            metadata: serde_json::Map::new(),
            resolution: None,
            root_cause: None,
            fingerprint: None,
            version: 1,
        };
        let change = IncidentChange {
            update_type,
            incident: Arc::new(incident),
            old_severity,
            old_state,
            changed_fields: Vec::new(),
        };
        of(Change::Incident(change))
    }

    fn of(change: Change) -> Event {
        Event {
            epoch: EpochId(Uuid::nil()),
            position: Position(1),
            logged_at: Timestamp::UNIX_EPOCH,
            at: Timestamp::UNIX_EPOCH,
            actor: "somebody".to_owned(),
            change,
        }
    }

    fn alert(source: &str) -> Event {
        of(Change::Alert(Arc::new(Alert {
            id: AlertId(Uuid::from_u128(2)),
            external_id: None,
            source: source.to_owned(),
            title: "title".to_owned(),
            description: String::new(),
            severity: Severity::P0,
            kind: IncidentKind::Unknown,
            labels: serde_json::Map::new(),
            annotations: serde_json::Map::new(),
            affected_services: Vec::new(),
            runbook_url: None,
            firing: true,
            received_at: Timestamp::UNIX_EPOCH,
            deduplicated: false,
            incident_id: Some(IncidentId(Uuid::from_u128(1))),
        })))
    }

    fn updates(severities: Option<&[Severity]>, types: Option<&[UpdateType]>, active_only: bool) -> Filter {
        Filter::IncidentUpdates {
            incident_ids: None,
            severities: severities.map(|list| list.iter().copied().collect()),
            update_types: types.map(|list| list.iter().copied().collect()),
            active_only,
        }
    }

    #[test]
    fn severities_match_before_and_after_the_change() {
        use IncidentState::Detected;
        use Severity::{P1, P2, P3};
        let p2 = updates(Some(&[P2]), None, false);
        let detected = (Some(Detected), Detected);
        assert!(p2.matches(&changed(UpdateType::Updated, (Some(P3), P2), detected)), "raised into it");
        assert!(p2.matches(&changed(UpdateType::Updated, (Some(P2), P1), detected)), "raised out of it");
        assert!(!p2.matches(&changed(UpdateType::Updated, (Some(P3), P1), detected)), "passed over it");
        assert!(p2.matches(&event(UpdateType::CommentAdded, P2, Detected)), "comments are of the severity that is");
    }

    #[test]
    fn active_only_hears_of_what_stops_being_active() {
        use IncidentState::{Closed, Investigating, Resolved};
        let active = updates(None, None, true);
        let p1 = (Some(Severity::P1), Severity::P1);
        assert!(active.matches(&changed(UpdateType::Resolved, p1, (Some(Investigating), Resolved))));
        assert!(active.matches(&changed(UpdateType::StateChanged, p1, (Some(Resolved), Investigating))));
        assert!(!active.matches(&changed(UpdateType::StateChanged, p1, (Some(Resolved), Closed))));
        assert!(!active.matches(&event(UpdateType::CommentAdded, Severity::P1, Closed)));
    }

    #[test]
    fn an_empty_list_matches_nothing_and_no_list_everything() {
        let created = event(UpdateType::Created, Severity::P0, IncidentState::Detected);
        assert!(updates(None, None, false).matches(&created));
        assert!(!updates(Some(&[]), None, false).matches(&created));
        assert!(!updates(None, Some(&[]), false).matches(&created));
        assert!(!Filter::NewIncidents { severities: Some(BTreeSet::new()) }.matches(&created));
        assert!(Filter::NewIncidents { severities: None }.matches(&created));
        assert!(!Filter::Alerts { sources: Some(BTreeSet::new()) }.matches(&alert("a")));
        assert!(Filter::Alerts { sources: None }.matches(&alert("a")));
        let nobody = Filter::IncidentUpdates {
            incident_ids: Some(BTreeSet::new()),
            severities: None,
            update_types: None,
            active_only: false,
        };
        assert!(!nobody.matches(&created));
    }

    #[test]
    fn critical_is_created_so_or_raised_to_it() {
        use IncidentState::Detected;
        use Severity::{P0, P1, P2, P3};
        let detected = (Some(Detected), Detected);
        let critical = Filter::CriticalIncidents;
        assert!(critical.matches(&event(UpdateType::Created, P1, Detected)));
        assert!(!critical.matches(&event(UpdateType::Created, P2, Detected)));
        assert!(critical.matches(&changed(UpdateType::Updated, (Some(P3), P1), detected)));
        assert!(!critical.matches(&changed(UpdateType::Updated, (Some(P1), P0), detected)), "was critical already");
        assert!(!critical.matches(&changed(UpdateType::Updated, (Some(P1), P2), detected)));
        assert!(!critical.matches(&event(UpdateType::CommentAdded, P0, Detected)));
    }

    #[test]
    fn state_changes_are_changes_of_state_of_the_incident_asked_for() {
        use IncidentState::{Detected, Resolved, Triaged};
        let p1 = (Some(Severity::P1), Severity::P1);
        let all = Filter::StateChanges { incident_id: None };
        let triaged = changed(UpdateType::StateChanged, p1, (Some(Detected), Triaged));
        assert!(all.matches(&triaged));
        assert!(all.matches(&changed(UpdateType::Resolved, p1, (Some(Triaged), Resolved))));
        assert!(!all.matches(&changed(UpdateType::Updated, p1, (Some(Triaged), Triaged))));
        assert!(!all.matches(&event(UpdateType::Created, Severity::P1, Detected)), "there was no state before");
        assert!(Filter::StateChanges { incident_id: Some(IncidentId(Uuid::from_u128(1))) }.matches(&triaged));
        assert!(!Filter::StateChanges { incident_id: Some(IncidentId(Uuid::from_u128(9))) }.matches(&triaged));
    }

    #[test]
    fn alerts_and_incidents_do_not_mix() {
        let created = event(UpdateType::Created, Severity::P0, IncidentState::Detected);
        let sources =
            |names: &[&str]| Filter::Alerts { sources: Some(names.iter().map(ToString::to_string).collect()) };
        assert!(sources(&["a", "b"]).matches(&alert("a")));
        assert!(!sources(&["b"]).matches(&alert("a")));
        assert!(!sources(&["source"]).matches(&created));
        assert!(!updates(None, None, false).matches(&alert("a")));
        assert!(!Filter::CriticalIncidents.matches(&alert("a")));
    }

    #[test]
    fn a_list_of_types_may_leave_heartbeats_out() {
        assert!(updates(None, None, false).wants_heartbeat());
        assert!(updates(None, Some(&[UpdateType::Heartbeat]), false).wants_heartbeat());
        assert!(!updates(None, Some(&[UpdateType::Created]), false).wants_heartbeat());
        assert!(!updates(None, Some(&[]), false).wants_heartbeat());
        assert!(!Filter::CriticalIncidents.wants_heartbeat());
    }
}
