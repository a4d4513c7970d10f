-- Incidents, alerts, comments, the timeline: the tables that any program may write, and the rules that hold for each.
--
-- Limits are named <table>_<column>_<rule>: the service reads from the name which field was refused. Those of incidents and
-- alerts are in one function for each table, which one CHECK calls: PostgreSQL reads every CHECK of a table anew for every
-- statement, and fifteen of them cost a single-row insert more than all else. Texts are enums, with the names of the GraphQL contract.

-- Who acts: what the writer says of itself (`set local incident_manager.actor = '…'`), else the role it works as.
-- Its body is parsed here and not by the caller's search_path, so that it needs none of its own and can be inlined.
create function incident_manager.current_actor() returns text
language sql stable
begin atomic
  select left(coalesce(nullif(current_setting('incident_manager.actor', true), ''),
                       nullif(current_setting('role', true), 'none'),
                       session_user::text), 200);
end;

create table incident_manager.incident (
  id uuid constraint incident_pkey primary key default gen_random_uuid(),
  title text not null,
  description text not null default '',
  severity text not null,
  state text not null default 'DETECTED',
  incident_type text not null default 'UNKNOWN',
  source text not null,
  assigned_to text,
  affected_resources text[] not null default '{}',
  labels jsonb not null default '{}',
  metadata jsonb not null default '{}',
  resolution text,
  root_cause text,
  fingerprint text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  acknowledged_at timestamptz,
  resolved_at timestamptz,
  closed_at timestamptz,
  merged_into uuid constraint incident_merged_into_fk references incident_manager.incident,
  opened_by_alert boolean not null default false,
  description_version integer not null default 1,
  version integer not null default 1
);
comment on table incident_manager.incident is
  'Any program may insert (title, severity and source suffice) and update; DELETE and TRUNCATE are refused, because no subscriber would hear of them.';
comment on column incident_manager.incident.source is 'Never changes, like the id.';
comment on column incident_manager.incident.version is 'Goes up by one with every change; kept by the database, like all columns that follow from the state.';
comment on column incident_manager.incident.description_version is 'The version in which the description was last set.';
comment on column incident_manager.incident.merged_into is 'Set in the update that closes this incident as a part of another; then it stays.';
comment on column incident_manager.incident.opened_by_alert is 'Such an incident is resolved when none of its alerts fires any more.';

-- Whether a row keeps every limit; the error names the one that it does not keep. That a column may not be null is its own
-- business.
create function incident_manager.incident_keeps_limits(i incident_manager.incident) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
  breach constant text := case
    when length(i.title) not between 1 and 500 then 'incident_title_length'
    when octet_length(i.description) > 65536 then 'incident_description_size'
    when i.severity not in ('P0', 'P1', 'P2', 'P3', 'P4') then 'incident_severity_name'
    when i.state not in ('DETECTED', 'TRIAGED', 'INVESTIGATING', 'REMEDIATING', 'RESOLVED', 'CLOSED') then 'incident_state_name'
    when i.incident_type not in
         ('INFRASTRUCTURE', 'APPLICATION', 'AVAILABILITY', 'PERFORMANCE', 'SECURITY', 'DATA', 'COMPLIANCE', 'COST', 'MODEL_DRIFT',
          'MODEL_QUALITY', 'PROMPT_INJECTION', 'CONTENT_SAFETY', 'UNKNOWN') then 'incident_incident_type_name'
    when length(i.source) not between 1 and 200 then 'incident_source_length'
    when length(i.assigned_to) not between 1 and 200 then 'incident_assigned_to_length'
    when i.affected_resources <> '{}'
         and (octet_length(array_to_json(i.affected_resources)::text) > 16384 or array_ndims(i.affected_resources) <> 1
              or array_lower(i.affected_resources, 1) <> 1
              or array_position(i.affected_resources, null) is not null) then 'incident_affected_resources_size'
    -- labels are an object whose values are strings; in lax mode `?` would look into arrays
    when i.labels <> '{}'
         and (jsonb_typeof(i.labels) <> 'object' or jsonb_path_exists(i.labels, 'strict $.* ? (@.type() != "string")')
              or octet_length(i.labels::text) > 16384) then 'incident_labels_size'
    when octet_length(i.resolution) > 65536 then 'incident_resolution_size'
    when octet_length(i.root_cause) > 65536 then 'incident_root_cause_size'
    when length(i.fingerprint) not between 1 and 200 then 'incident_fingerprint_length'
    when i.created_at < '0001-01-01 00:00+00' or i.created_at >= '10000-01-01 00:00+00' then 'incident_created_at_range'
    when i.updated_at < '0001-01-01 00:00+00' or i.updated_at >= '10000-01-01 00:00+00' then 'incident_updated_at_range'
    when i.merged_into is not null and (i.state <> 'CLOSED' or i.merged_into = i.id) then 'incident_merged_into_closes'
    when i.metadata <> '{}' then case
      when jsonb_typeof(i.metadata) <> 'object' or octet_length(i.metadata::text) > 16384 then 'incident_metadata_size'
      -- readers of JSON bound how deep they go, .NET's at 64 and Rust's at 128, and an event has some levels of its own
      when jsonb_path_exists(i.metadata, 'strict $.**{32} ? (@.type() == "object" || @.type() == "array")')
        then 'incident_metadata_depth'
      -- jsonb holds numbers that no double does
      when jsonb_path_exists(i.metadata, 'strict $.** ? (@ > 1.7976931348623157e308 || @ < -1.7976931348623157e308)')
        then 'incident_metadata_range'
    end
  end;
begin
  if breach is null then
    return true;
  end if;
  raise exception 'new row for relation "incident" violates check constraint "%"', breach
    using errcode = 'check_violation', schema = 'incident_manager', table = 'incident', constraint = breach;
end $$;
alter table incident_manager.incident add constraint incident_limits
  check (incident_manager.incident_keeps_limits(incident));

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
  external_id text,
  source text not null,
  title text not null,
  description text not null default '',
  severity text not null,
  alert_type text not null default 'UNKNOWN',
  labels jsonb not null default '{}',
  annotations jsonb not null default '{}',
  affected_services text[] not null default '{}',
  runbook_url text,
  firing boolean not null default true,
  fingerprint text,
  received_at timestamptz not null default clock_timestamp(),
  deduplicated boolean not null default false,
  incident_id uuid constraint alert_incident_fk references incident_manager.incident,
  status text
);
comment on table incident_manager.alert is
  'What sources send, a row for each submission. The columns fingerprint (where it is null), received_at, deduplicated, incident_id and status are decided on insert.';
comment on column incident_manager.alert.firing is 'False once the source has said that it is over.';
comment on column incident_manager.alert.status is 'What became of the submission.';

create function incident_manager.alert_keeps_limits(a incident_manager.alert) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
  breach constant text := case
    when length(a.external_id) not between 1 and 500 then 'alert_external_id_length'
    when length(a.source) not between 1 and 200 then 'alert_source_length'
    when length(a.title) not between 1 and 500 then 'alert_title_length'
    when octet_length(a.description) > 65536 then 'alert_description_size'
    when a.severity not in ('P0', 'P1', 'P2', 'P3', 'P4') then 'alert_severity_name'
    when a.alert_type not in
         ('INFRASTRUCTURE', 'APPLICATION', 'AVAILABILITY', 'PERFORMANCE', 'SECURITY', 'DATA', 'COMPLIANCE', 'COST', 'MODEL_DRIFT',
          'MODEL_QUALITY', 'PROMPT_INJECTION', 'CONTENT_SAFETY', 'UNKNOWN') then 'alert_alert_type_name'
    when a.labels <> '{}'
         and (jsonb_typeof(a.labels) <> 'object' or jsonb_path_exists(a.labels, 'strict $.* ? (@.type() != "string")')
              or octet_length(a.labels::text) > 16384) then 'alert_labels_size'
    when a.annotations <> '{}'
         and (jsonb_typeof(a.annotations) <> 'object' or jsonb_path_exists(a.annotations, 'strict $.* ? (@.type() != "string")')
              or octet_length(a.annotations::text) > 16384) then 'alert_annotations_size'
    when a.affected_services <> '{}'
         and (octet_length(array_to_json(a.affected_services)::text) > 16384 or array_ndims(a.affected_services) <> 1
              or array_lower(a.affected_services, 1) <> 1
              or array_position(a.affected_services, null) is not null) then 'alert_affected_services_size'
    when length(a.runbook_url) not between 1 and 2000 then 'alert_runbook_url_length'
    when length(a.fingerprint) not between 1 and 200 then 'alert_fingerprint_length'
    when a.received_at < '0001-01-01 00:00+00' or a.received_at >= '10000-01-01 00:00+00' then 'alert_received_at_range'
    when a.status not in ('CREATED', 'DEDUPLICATED', 'RESOLVED', 'IGNORED') then 'alert_status_name'
  end;
begin
  if breach is null then
    return true;
  end if;
  raise exception 'new row for relation "alert" violates check constraint "%"', breach
    using errcode = 'check_violation', schema = 'incident_manager', table = 'alert', constraint = breach;
end $$;
alter table incident_manager.alert add constraint alert_limits
  check (incident_manager.alert_keeps_limits(alert));

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
