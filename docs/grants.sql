-- The least grants for two roles, run by the role that installed the schema (the tables' owner), after `migrate`, and again
-- after an update; name your own roles. Neither may migrate, write the event log, or delete anything but playbooks.

-- The service: every query, mutation and subscription, the sequencer and the log's maintenance.
grant usage on schema incident_manager to incident_manager_service;
grant select on
  incident_manager.incident, incident_manager.alert, incident_manager.comment, incident_manager.timeline,
  incident_manager.playbook, incident_manager.incident_playbook, incident_manager.incident_link,
  incident_manager.event_log, incident_manager.event_text, incident_manager.event_batch, incident_manager.event_epoch,
  incident_manager.event_doorbell, incident_manager._sqlx_migrations
  to incident_manager_service;
grant insert (id, title, description, severity, incident_type, source, affected_resources, labels, metadata, assigned_to,
              fingerprint),
      update (title, description, severity, state, incident_type, affected_resources, labels, metadata, assigned_to,
              resolution, root_cause)
  on incident_manager.incident to incident_manager_service;
grant insert (id, incident_id, body) on incident_manager.comment to incident_manager_service;
grant insert (id, name, description, enabled, severities, incident_types, sources, steps),
      update (name, description, enabled, severities, incident_types, sources, steps), delete
  on incident_manager.playbook to incident_manager_service;
grant insert (a, b) on incident_manager.incident_link to incident_manager_service;
grant select, insert (id, name, prefix, hash, permissions, sources, expires_at),
      update (revoked_at, revoked_by, last_used_at)
  on incident_manager.api_key to incident_manager_service;
grant execute on function
  incident_manager.submit_alerts(jsonb),
  incident_manager.related_candidates(uuid[], text[]),
  incident_manager.sequence_events(integer, boolean),
  incident_manager.event_maintain(interval, bigint, bigint),
  incident_manager.event_rewound_to(uuid),
  incident_manager.event_matches(incident_manager.event_filter, bigint, bigint, integer),
  incident_manager.event_is_asked_for(incident_manager.event_log, incident_manager.event_filter),
  incident_manager.event_writers()
  to incident_manager_service;

-- A program that writes by SQL. What it may not set, the database decides: an alert's incident and status, an incident's
-- version and times. It reads the columns by which it finds what it changes.
grant usage on schema incident_manager to incident_manager_writer;
grant select (id, source, fingerprint, state, version),
      insert (id, title, description, severity, incident_type, source, affected_resources, labels, metadata, assigned_to,
              fingerprint),
      update (title, description, severity, state, incident_type, affected_resources, labels, metadata, assigned_to,
              resolution, root_cause, fingerprint, merged_into)
  on incident_manager.incident to incident_manager_writer;
grant select (id), insert (id, incident_id, body) on incident_manager.comment to incident_manager_writer;
grant select (id),
      insert (id, external_id, source, title, description, severity, alert_type, labels, annotations, affected_services,
              runbook_url, firing, fingerprint)
  on incident_manager.alert to incident_manager_writer;
