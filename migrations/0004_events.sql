-- What every writer's change adds to the outbox. The doorbell is looked at last, when the transaction holds the outbox's lock:
-- who turns it on waits for those that do (event_writers).
--
-- The functions run as the tables' owner, so that a writer needs rights on the tables that it writes and no more. Their
-- names begin with 00, so that a later trigger that writes the same row makes a later event.

-- The doorbell. A constant payload: PostgreSQL sends it once for a transaction, however often it rings. A full queue would
-- fail the writer's commit, so nobody rings when it is half full; PREPARE TRANSACTION would refuse a transaction that has
-- notified, so its writers say `set local incident_manager.doorbell = 'off'`. The sequencer's polling finds both.
create function incident_manager.event_ring() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  if coalesce(current_setting('incident_manager.doorbell', true), '') <> 'off' and pg_notification_queue_usage() < 0.5 then
    perform pg_notify('incident_manager_doorbell', '');
  end if;
end $$;

create function incident_manager.incident_event() returns trigger
language plpgsql security definer set search_path = pg_catalog, incident_manager, pg_temp
as $$
declare
  change text := 'CREATED';
  fields text[] := '{}';
  severity_before text;
  state_before text;
  long constant boolean := octet_length(new.description) > 2000;
begin
  if tg_op = 'INSERT' then
    if new.state <> 'DETECTED' or new.version <> 1 or new.description_version <> 1
       or new.acknowledged_at is not null or new.resolved_at is not null or new.closed_at is not null then
      raise exception 'a new incident is DETECTED, in version 1, and nothing has happened to it yet'
        using errcode = 'check_violation', schema = 'incident_manager', table = 'incident', constraint = 'incident_state_transition';
    end if;
  else
    severity_before := old.severity;
    state_before := old.state;
    fields := array_remove(array[
      case when new.title <> old.title then 'title' end,
      case when new.description_version <> old.description_version then 'description' end,
      case when new.severity <> old.severity then 'severity' end,
      case when new.state <> old.state then 'state' end,
      case when new.incident_type <> old.incident_type then 'incidentType' end,
      case when new.acknowledged_at is distinct from old.acknowledged_at then 'acknowledgedAt' end,
      case when new.resolved_at is distinct from old.resolved_at then 'resolvedAt' end,
      case when new.closed_at is distinct from old.closed_at then 'closedAt' end,
      case when new.assigned_to is distinct from old.assigned_to then 'assignedTo' end,
      case when new.affected_resources <> old.affected_resources then 'affectedResources' end,
      case when new.labels <> old.labels then 'labels' end,
      case when new.metadata <> old.metadata then 'metadata' end,
      case when new.resolution is distinct from old.resolution then 'resolution' end,
      case when new.root_cause is distinct from old.root_cause then 'rootCause' end,
      case when new.fingerprint is distinct from old.fingerprint then 'fingerprint' end], null);
    change := case
      when new.state <> old.state and new.state = 'RESOLVED' then 'RESOLVED'
      when new.state <> old.state then 'STATE_CHANGED'
      when new.assigned_to is distinct from old.assigned_to then 'ASSIGNED'
      else 'UPDATED' end;
  end if;
  if long and (tg_op = 'INSERT' or new.description_version <> old.description_version) then
    insert into incident_manager.event_text (object_id, version, body)
      values (new.id, new.description_version, new.description)
      on conflict (object_id, version) do update set body = excluded.body;    -- left by a purged row of the same id
  end if;
  insert into incident_manager.event_outbox
    (kind, update_type, incident_id, source, severity, old_severity, state, old_state, actor, changed, title,
     description, description_version, labels, fingerprint, incident_type, assigned_to, affected_resources, metadata,
     resolution, root_cause, created_at, updated_at, acknowledged_at, resolved_at, closed_at, version)
  values
    ('incident', change, new.id, new.source, new.severity,
     severity_before, new.state, state_before, incident_manager.current_actor(), fields, new.title,
     case when not long then new.description end, new.description_version, new.labels, new.fingerprint,
     new.incident_type, new.assigned_to, new.affected_resources, new.metadata, new.resolution, new.root_cause,
     new.created_at, new.updated_at, new.acknowledged_at, new.resolved_at, new.closed_at, new.version);
  if pg_sequence_last_value('incident_manager.event_doorbell') = 1 then
    perform incident_manager.event_ring();
  end if;
  return null;
end $$;
create trigger "00_event_insert" after insert on incident_manager.incident for each row
  execute function incident_manager.incident_event();
create trigger "00_event_update" after update on incident_manager.incident for each row
  when (old.version <> new.version) execute function incident_manager.incident_event();

-- The incident is locked: without that, another's change could get an earlier number and yet be in this event.
create function incident_manager.comment_event() returns trigger
language plpgsql security definer set search_path = pg_catalog, incident_manager, pg_temp
as $$
declare
  i incident_manager.incident;
begin
  select * into i from incident_manager.incident where id = new.incident_id for no key update;
  if not found then
    return null;    -- the foreign key refuses the row
  end if;
  insert into incident_manager.event_outbox
    (kind, update_type, incident_id, comment_id, source, severity, state, actor, title, description,
     description_version, labels, fingerprint, incident_type, assigned_to, affected_resources, metadata, resolution,
     root_cause, created_at, updated_at, acknowledged_at, resolved_at, closed_at, version)
  values
    ('comment', 'COMMENT_ADDED', i.id, new.id, i.source,
     i.severity, i.state, incident_manager.current_actor(), i.title,
     case when octet_length(i.description) <= 2000 then i.description end, i.description_version, i.labels,
     i.fingerprint, i.incident_type, i.assigned_to, i.affected_resources, i.metadata, i.resolution, i.root_cause,
     i.created_at, i.updated_at, i.acknowledged_at, i.resolved_at, i.closed_at, i.version);
  if pg_sequence_last_value('incident_manager.event_doorbell') = 1 then
    perform incident_manager.event_ring();
  end if;
  return null;
end $$;
create trigger "00_event_insert" after insert on incident_manager.comment for each row
  execute function incident_manager.comment_event();

-- Each submission is one event; what changes the row later is none. So the order of one row's events is not at stake here,
-- and the rows of a statement become events together, for a third of what they cost one by one.
create function incident_manager.alert_event() returns trigger
language plpgsql security definer set search_path = pg_catalog, incident_manager, pg_temp
as $$
declare
  actor constant text := incident_manager.current_actor();
begin
  if exists (select 1 from arrived a where octet_length(a.description) > 2000) then
    insert into incident_manager.event_text (object_id, version, body)
      select a.id, 0, a.description from arrived a where octet_length(a.description) > 2000
      on conflict (object_id, version) do update set body = excluded.body;    -- left by a purged row of the same id
  end if;
  insert into incident_manager.event_outbox
    (kind, incident_id, alert_id, source, severity, actor, title, description, description_version, labels,
     fingerprint, external_id, alert_type, annotations, affected_services, runbook_url, firing, received_at, deduplicated)
  select 'alert', a.incident_id, a.id, a.source, a.severity, actor, a.title,
         case when octet_length(a.description) <= 2000 then a.description end, 0, a.labels, a.fingerprint, a.external_id,
         a.alert_type, a.annotations, a.affected_services, a.runbook_url, a.firing, a.received_at, a.deduplicated
  from arrived a;
  if found and pg_sequence_last_value('incident_manager.event_doorbell') = 1 then
    perform incident_manager.event_ring();
  end if;
  return null;
end $$;
create trigger "00_event_insert" after insert on incident_manager.alert referencing new table as arrived for each statement
  execute function incident_manager.alert_event();

-- Transactions, prepared ones too, that may have written to the outbox and not ended: those that hold its lock. Who turned
-- the doorbell on polls until none of them is left: each may have looked at the doorbell before.
create function incident_manager.event_writers() returns text[]
language sql volatile set search_path = pg_catalog, incident_manager, pg_temp
as $$
  select coalesce(array_agg(distinct l.virtualtransaction), '{}') from pg_locks l
  where l.locktype = 'relation' and l.mode = 'RowExclusiveLock' and l.granted
    and l.database = (select oid from pg_database where datname = current_database())
    and l.relation in ('incident_manager.event_outbox'::regclass, 'incident_manager.event_outbox_0'::regclass,
                       'incident_manager.event_outbox_1'::regclass)
$$;
