-- Incidents, alerts, comments, the timeline: the tables that any program may write, and the rules that hold for each.
--
-- Constraints are named <table>_<column>_<rule>: the service reads from the name which field was refused.
-- Texts are enums by CHECK, with the names of the GraphQL contract.

-- Who acts: what the writer says of itself (`set local incident_manager.actor = '…'`), else the role it works as.
-- Its body is parsed here and not by the caller's search_path, so that it needs none of its own and can be inlined.
create function incident_manager.current_actor() returns text
language sql stable
begin atomic
  select left(coalesce(nullif(current_setting('incident_manager.actor', true), ''),
                       nullif(current_setting('role', true), 'none'),
                       session_user::text), 200);
end;

-- Labels and annotations: an object whose values are strings. (In lax mode `?` would look into arrays.)
create function incident_manager.is_string_map(value jsonb) returns boolean
language sql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
  select jsonb_typeof(value) = 'object' and not jsonb_path_exists(value, 'strict $.* ? (@.type() != "string")')
$$;

create table incident_manager.incident (
  id uuid constraint incident_pkey primary key default gen_random_uuid(),
  title text not null
    constraint incident_title_length check (length(title) between 1 and 500),
  description text not null default ''
    constraint incident_description_size check (octet_length(description) <= 65536),
  severity text not null
    constraint incident_severity_name check (severity in ('P0', 'P1', 'P2', 'P3', 'P4')),
  state text not null default 'DETECTED'
    constraint incident_state_name check (state in ('DETECTED', 'TRIAGED', 'INVESTIGATING', 'REMEDIATING', 'RESOLVED', 'CLOSED')),
  incident_type text not null default 'UNKNOWN'
    constraint incident_incident_type_name check (incident_type in
      ('INFRASTRUCTURE', 'APPLICATION', 'AVAILABILITY', 'PERFORMANCE', 'SECURITY', 'DATA', 'COMPLIANCE', 'COST',
       'MODEL_DRIFT', 'MODEL_QUALITY', 'PROMPT_INJECTION', 'CONTENT_SAFETY', 'UNKNOWN')),
  source text not null
    constraint incident_source_length check (length(source) between 1 and 200),
  assigned_to text
    constraint incident_assigned_to_length check (length(assigned_to) between 1 and 200),
  affected_resources text[] not null default '{}'
    constraint incident_affected_resources_size check (affected_resources = '{}' or
      (octet_length(array_to_json(affected_resources)::text) <= 16384 and array_ndims(affected_resources) = 1
       and array_position(affected_resources, null) is null)),
  labels jsonb not null default '{}'
    constraint incident_labels_size check (labels = '{}' or
      (incident_manager.is_string_map(labels) and octet_length(labels::text) <= 16384)),
  metadata jsonb not null default '{}'
    constraint incident_metadata_size check (metadata = '{}' or
      (jsonb_typeof(metadata) = 'object' and octet_length(metadata::text) <= 16384)),
  resolution text
    constraint incident_resolution_size check (octet_length(resolution) <= 65536),
  root_cause text
    constraint incident_root_cause_size check (octet_length(root_cause) <= 65536),
  fingerprint text
    constraint incident_fingerprint_length check (length(fingerprint) between 1 and 200),
  created_at timestamptz not null default now()
    constraint incident_created_at_range check (created_at >= '0001-01-01 00:00+00' and created_at < '10000-01-01 00:00+00'),
  updated_at timestamptz not null default now(),
  acknowledged_at timestamptz,
  resolved_at timestamptz,
  closed_at timestamptz,
  merged_into uuid constraint incident_merged_into_fk references incident_manager.incident,
  opened_by_alert boolean not null default false,
  description_version integer not null default 1,
  version integer not null default 1,
  constraint incident_merged_into_closes check (merged_into is null or (state = 'CLOSED' and merged_into <> id))
);
comment on table incident_manager.incident is
  'Any program may insert (title, severity and source suffice) and update; DELETE and TRUNCATE are refused, because no subscriber would hear of them.';
comment on column incident_manager.incident.source is 'Never changes, like the id.';
comment on column incident_manager.incident.version is 'Goes up by one with every change; kept by the database, like all columns that follow from the state.';
comment on column incident_manager.incident.description_version is 'The version in which the description was last set.';
comment on column incident_manager.incident.merged_into is 'Set in the update that closes this incident as a part of another; then it stays.';
comment on column incident_manager.incident.opened_by_alert is 'Such an incident is resolved when none of its alerts fires any more.';

create unique index incident_active_fingerprint on incident_manager.incident (source, fingerprint)
  where state not in ('RESOLVED', 'CLOSED');
create index incident_created on incident_manager.incident (created_at, id);
create index incident_updated on incident_manager.incident (updated_at, id);
create index incident_severity on incident_manager.incident (severity, created_at desc, id desc);
create index incident_merged_into on incident_manager.incident (merged_into) where merged_into is not null;

create table incident_manager.comment (
  id uuid constraint comment_pkey primary key default gen_random_uuid(),
  incident_id uuid not null constraint comment_incident_fk references incident_manager.incident,
  author text not null default incident_manager.current_actor()
    constraint comment_author_length check (length(author) between 1 and 200),
  body text not null
    constraint comment_body_size check (octet_length(body) between 1 and 65536),
  created_at timestamptz not null default clock_timestamp()
    constraint comment_created_at_range check (created_at >= '0001-01-01 00:00+00' and created_at < '10000-01-01 00:00+00')
);
comment on table incident_manager.comment is 'Comments are added, also to closed incidents, and never changed.';
create index comment_incident on incident_manager.comment (incident_id, created_at, id);

create table incident_manager.alert (
  id uuid constraint alert_pkey primary key default gen_random_uuid(),
  external_id text
    constraint alert_external_id_length check (length(external_id) between 1 and 500),
  source text not null
    constraint alert_source_length check (length(source) between 1 and 200),
  title text not null
    constraint alert_title_length check (length(title) between 1 and 500),
  description text not null default ''
    constraint alert_description_size check (octet_length(description) <= 65536),
  severity text not null
    constraint alert_severity_name check (severity in ('P0', 'P1', 'P2', 'P3', 'P4')),
  alert_type text not null default 'UNKNOWN'
    constraint alert_alert_type_name check (alert_type in
      ('INFRASTRUCTURE', 'APPLICATION', 'AVAILABILITY', 'PERFORMANCE', 'SECURITY', 'DATA', 'COMPLIANCE', 'COST',
       'MODEL_DRIFT', 'MODEL_QUALITY', 'PROMPT_INJECTION', 'CONTENT_SAFETY', 'UNKNOWN')),
  labels jsonb not null default '{}'
    constraint alert_labels_size check (labels = '{}' or
      (incident_manager.is_string_map(labels) and octet_length(labels::text) <= 16384)),
  annotations jsonb not null default '{}'
    constraint alert_annotations_size check (annotations = '{}' or
      (incident_manager.is_string_map(annotations) and octet_length(annotations::text) <= 16384)),
  affected_services text[] not null default '{}'
    constraint alert_affected_services_size check (affected_services = '{}' or
      (octet_length(array_to_json(affected_services)::text) <= 16384 and array_ndims(affected_services) = 1
       and array_position(affected_services, null) is null)),
  runbook_url text
    constraint alert_runbook_url_length check (length(runbook_url) between 1 and 2000),
  firing boolean not null default true,
  fingerprint text
    constraint alert_fingerprint_length check (length(fingerprint) between 1 and 200),
  received_at timestamptz not null default clock_timestamp(),
  deduplicated boolean not null default false,
  incident_id uuid constraint alert_incident_fk references incident_manager.incident,
  status text
    constraint alert_status_name check (status in ('CREATED', 'DEDUPLICATED', 'RESOLVED', 'IGNORED'))
);
comment on table incident_manager.alert is
  'What sources send, a row for each submission. The columns fingerprint (where it is null), received_at, deduplicated, incident_id and status are decided on insert.';
comment on column incident_manager.alert.firing is 'False once the source has said that it is over.';
comment on column incident_manager.alert.status is 'What became of the submission.';

create index alert_received on incident_manager.alert (received_at, id);
create index alert_source on incident_manager.alert (source, received_at, id);
create index alert_incident on incident_manager.alert (incident_id, received_at, id);
create index alert_firing_external on incident_manager.alert (source, external_id) where firing and external_id is not null;
create index alert_firing_fingerprint on incident_manager.alert (source, fingerprint) where firing;
create index alert_firing_incident on incident_manager.alert (incident_id) where firing;

-- No foreign key: the sequencer, which fills it, must not wait for a lock that somebody holds on an incident.
create table incident_manager.timeline (
  incident_id uuid not null,
  pos bigint not null,
  at timestamptz not null,
  update_type text not null,
  actor text not null,
  summary text not null,
  changed_fields text[] not null,
  constraint timeline_pkey primary key (incident_id, pos)
);
comment on table incident_manager.timeline is
  'The audit trail: one entry for each event of an incident. It comes with the event and outlives the event log.';
