-- The least that is needed, beside the role that owns the schema (who ran the migrations). Name your own roles.
--
-- The service:
grant usage on schema incident_manager to incident_manager_service;
grant select on all tables in schema incident_manager to incident_manager_service;
grant insert (id, title, description, severity, incident_type, source, affected_resources, labels, metadata, assigned_to, fingerprint),
      update (title, description, severity, state, incident_type, affected_resources, labels, metadata, assigned_to, resolution, root_cause)
  on incident_manager.incident to incident_manager_service;
grant insert (id, incident_id, body) on incident_manager.comment to incident_manager_service;
grant insert (id, name, description, enabled, severities, incident_types, sources, steps),
      update (name, description, enabled, severities, incident_types, sources, steps), delete
  on incident_manager.playbook to incident_manager_service;
grant insert (a, b) on incident_manager.incident_link to incident_manager_service;
grant select on sequence incident_manager.event_doorbell to incident_manager_service;
grant execute on function
  incident_manager.submit_alerts(jsonb),
  incident_manager.sequence_events(integer, boolean),
  incident_manager.event_maintain(interval, bigint, bigint),
  incident_manager.event_writers(),
  incident_manager.event_rewound_to(uuid)
  to incident_manager_service;

-- Any other program that writes incidents, comments and alerts by SQL:
grant usage on schema incident_manager to incident_manager_writer;
grant select on incident_manager.incident, incident_manager.comment, incident_manager.alert to incident_manager_writer;
grant insert (id, title, description, severity, incident_type, source, affected_resources, labels, metadata, assigned_to, fingerprint),
      update (title, description, severity, state, incident_type, affected_resources, labels, metadata, assigned_to, resolution, root_cause, fingerprint, merged_into)
  on incident_manager.incident to incident_manager_writer;
grant insert (id, incident_id, body) on incident_manager.comment to incident_manager_writer;
grant insert (id, external_id, source, title, description, severity, alert_type, labels, annotations, affected_services, runbook_url, firing, fingerprint)
  on incident_manager.alert to incident_manager_writer;
