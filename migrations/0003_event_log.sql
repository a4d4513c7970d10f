-- The event log and what leads to it.
--
--   a writer's row triggers ─► event_outbox (in the writer's transaction) ─► sequence_events() ─► event_log
--
-- A reader needs to know none of this: `where pos > $1 order by pos limit n` gives every event once, in order; positions
-- are dense, and no event ever appears below one that could be read before.

-- Sequences, because their last_value is not subject to MVCC: what is set is seen at once, by every transaction.
create sequence incident_manager.event_slot minvalue 0 maxvalue 1 start 0;
create sequence incident_manager.event_doorbell minvalue 0 maxvalue 1 start 1;
-- before this the last value of a sequence is null
do $$ begin
  perform setval('incident_manager.event_slot', 0), setval('incident_manager.event_doorbell', 1);
end $$;
comment on sequence incident_manager.event_slot is 'last_value is the slot of the outbox that is written.';
comment on sequence incident_manager.event_doorbell is 'last_value is 1 while writers notify the sequencer at each commit.';

-- One row for each changed row, in the writer's transaction. Two slots are written in turn, so that the one that is not
-- written can be emptied at once.
create table incident_manager.event_outbox (
  slot smallint not null default pg_sequence_last_value('incident_manager.event_slot'),
  xid xid8 not null default pg_current_xact_id(),
  -- CACHE 1: of one row's changes, the later has the higher number, because the writer holds the row's lock
  seq bigint generated always as identity (cache 1),
  at timestamptz not null default clock_timestamp(),
  kind text not null,
  update_type text,
  incident_id uuid,
  alert_id uuid,
  comment_id uuid,
  source text not null,
  severity text not null,
  old_severity text,
  state text,
  old_state text,
  actor text not null,
  db_user text not null default session_user,
  changed text[] not null default '{}',
  title text not null,
  description text,
  description_version integer not null,
  labels jsonb not null,
  fingerprint text,
  incident_type text,
  assigned_to text,
  affected_resources text[],
  metadata jsonb,
  resolution text,
  root_cause text,
  created_at timestamptz,
  updated_at timestamptz,
  acknowledged_at timestamptz,
  resolved_at timestamptz,
  closed_at timestamptz,
  version integer,
  external_id text,
  alert_type text,
  annotations jsonb,
  affected_services text[],
  runbook_url text,
  firing boolean,
  received_at timestamptz,
  deduplicated boolean
) partition by list (slot);
create table incident_manager.event_outbox_0 partition of incident_manager.event_outbox for values in (0);
create table incident_manager.event_outbox_1 partition of incident_manager.event_outbox for values in (1);
create index event_outbox_xid on incident_manager.event_outbox (xid);
create index event_outbox_seq on incident_manager.event_outbox (seq);
comment on table incident_manager.event_outbox is 'Events that have no position yet.';

create table incident_manager.event_log (
  pos bigint not null,
  logged_at timestamptz not null,
  seq bigint not null,
  at timestamptz not null,
  kind text not null,
  update_type text,
  incident_id uuid,
  alert_id uuid,
  comment_id uuid,
  source text not null,
  severity text not null,
  old_severity text,
  state text,
  old_state text,
  actor text not null,
  db_user text not null,
  changed text[] not null,
  title text not null,
  description text,
  description_version integer not null,
  labels jsonb not null,
  fingerprint text,
  incident_type text,
  assigned_to text,
  affected_resources text[],
  metadata jsonb,
  resolution text,
  root_cause text,
  created_at timestamptz,
  updated_at timestamptz,
  acknowledged_at timestamptz,
  resolved_at timestamptz,
  closed_at timestamptz,
  version integer,
  external_id text,
  alert_type text,
  annotations jsonb,
  affected_services text[],
  runbook_url text,
  firing boolean,
  received_at timestamptz,
  deduplicated boolean,
  constraint event_log_pkey primary key (pos)
) partition by range (pos);
-- What a resume asks for (event_matches), each with its matches in their order. Positions are written as what no other index
-- has, so that none but the one that is meant can be taken: by the primary key, or by a key that is less narrow, all that is
-- between two positions would be read, and statistics may well say that this is little.
create index event_log_alerts on incident_manager.event_log ((pos - 0)) where kind = 'alert';
create index event_log_incidents on incident_manager.event_log ((pos - 0)) where kind <> 'alert';
create index event_log_incident on incident_manager.event_log (incident_id, (pos + 0));
create index event_log_alert_source on incident_manager.event_log (source, (pos + 0)) where kind = 'alert';
create index event_log_incident_source on incident_manager.event_log (source, (pos + 0)) where kind <> 'alert';
create index event_log_change on incident_manager.event_log (update_type, severity, (pos + 0)) where kind <> 'alert';
create index event_log_left_severity on incident_manager.event_log (old_severity, severity, (pos + 0)) where old_severity <> severity;
create index event_log_text on incident_manager.event_log ((coalesce(alert_id, incident_id)), description_version) where description is null;
comment on table incident_manager.event_log is 'Every change of an incident, every comment, every alert: one row each, by dense position, as the change left it.';
comment on column incident_manager.event_log.kind is 'incident, comment (with the whole incident) or alert.';
comment on column incident_manager.event_log.old_severity is 'Before an incident''s update; null where there was no before.';
comment on column incident_manager.event_log.changed is 'GraphQL names of the fields that changed, but for version and updatedAt.';
comment on column incident_manager.event_log.description is 'Null where it is long: then in event_text.';
comment on column incident_manager.event_log.actor is 'Who made the change, as the writer says; db_user is its database role.';

create table incident_manager.event_partition (
  from_pos bigint primary key,
  to_pos bigint not null,
  name text not null,
  made_at timestamptz not null default clock_timestamp()
);
comment on table incident_manager.event_partition is 'The partitions of event_log: from_pos <= pos < to_pos.';

-- A long description, once, however many events carry it. version is the incident's description_version; 0 for an alert.
create table incident_manager.event_text (
  object_id uuid not null,
  version integer not null,
  body text not null,
  -- the order in which maintenance looks at them
  n bigint generated always as identity constraint event_text_n_key unique,
  constraint event_text_pkey primary key (object_id, version)
);
create sequence incident_manager.event_text_turn minvalue 0 start 0;
comment on sequence incident_manager.event_text_turn is 'last_value is the n of the text that maintenance looked at last.';

-- A numbering of positions. A new one begins when transaction ids or positions can no longer be trusted.
create table incident_manager.event_epoch (
  epoch integer primary key,
  id uuid not null unique default gen_random_uuid(),
  first_pos bigint not null,
  timeline text not null,
  database_oid oid not null,
  reason text not null,
  at timestamptz not null default clock_timestamp()
);
comment on column incident_manager.event_epoch.first_pos is 'The first position that this epoch gives out; what older epochs gave out from there on is void.';

-- What the sequencer has done, newest last; appended, because a row that is updated at every call leaves dead rows that a
-- held snapshot keeps.
create table incident_manager.event_batch (
  n bigint primary key,
  last_pos bigint not null,
  -- everything that this snapshot sees is in the log
  snap pg_snapshot not null,
  -- in the middle of a backlog: the snapshot whose rows are being moved, and how far
  target pg_snapshot,
  target_seq bigint,
  -- the highest number moved so far
  seen_seq bigint not null,
  -- partitions exist for positions below this
  covered bigint not null,
  epoch integer not null references incident_manager.event_epoch,
  xid xid8 not null default pg_current_xact_id(),
  at timestamptz not null default clock_timestamp()
) with (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

create function incident_manager.event_lock_key() returns bigint
language sql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$ select hashtextextended('incident_manager.sequencer', 0) $$;

-- What sequences or maintains the log has a transaction of its own, so that no client can keep the lock, and sees in each
-- statement what was committed before it: a snapshot that is older than the lock would miss what others did under it.
create function incident_manager.event_own_transaction(caller text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' or pg_current_xact_id_if_assigned() is not null then
    raise exception '%() needs a READ COMMITTED transaction of its own', caller using errcode = 'invalid_transaction_state';
  end if;
end $$;

-- A row that was written after a savepoint does not bear its transaction's id, and would look as if a dump had brought it.
create function incident_manager.event_batch_refuses_savepoint() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'the event log needs a transaction without savepoints' using errcode = 'invalid_transaction_state';
end $$;
create trigger event_batch_refuses_savepoint after insert on incident_manager.event_batch for each row
  when (new.xmin <> new.xid::xid) execute function incident_manager.event_batch_refuses_savepoint();

-- The server's timeline, which changes when a standby is promoted.
create function incident_manager.event_timeline() returns text
language sql volatile set search_path = pg_catalog, pg_temp
as $$ select substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) $$;
do $$
begin
  perform incident_manager.event_timeline();
exception when others then
  raise warning 'this platform does not tell its timeline (%): a failover that loses transactions will not be noticed', sqlerrm;
  create or replace function incident_manager.event_timeline() returns text
  language sql volatile set search_path = pg_catalog, pg_temp
  as $f$ select ''::text $f$;
end $$;

-- The lowest position that was given out anew after an epoch; null if none was, 1 if this database never had that epoch.
create function incident_manager.event_rewound_to(reader_epoch uuid) returns bigint
language sql stable set search_path = pg_catalog, incident_manager, pg_temp
as $$
  select case when exists (select 1 from incident_manager.event_epoch where id = reader_epoch)
    then (select min(later.first_pos) from incident_manager.event_epoch later
          where later.epoch > (select epoch from incident_manager.event_epoch where id = reader_epoch))
    else 1 end
$$;

-- How large the next partition is to be: about six hours of events at the rate of the last one, within bounds that keep
-- both the number of partitions and what retention has to drop at once in hand.
create function incident_manager.event_partition_size(from_pos bigint) returns bigint
language sql volatile set search_path = pg_catalog, incident_manager, pg_temp
as $$
  select coalesce((
    select least(1000000, greatest(10000,
      ((event_partition_size.from_pos - p.from_pos) * 21600 / greatest(extract(epoch from clock_timestamp() - p.made_at), 1))::bigint))
    from incident_manager.event_partition p order by p.from_pos desc limit 1), 100000)
$$;

-- Attached, not created as a partition: readers of the log are not locked out.
create function incident_manager.event_add_partition(from_pos bigint, size bigint) returns bigint
language plpgsql volatile set search_path = pg_catalog, incident_manager, pg_temp
as $$
declare
  name text := 'event_log_' || from_pos;
  to_pos bigint := from_pos + size;
begin
  execute format('create table incident_manager.%I (like incident_manager.event_log including defaults including storage,'
                 ' constraint %I check (pos >= %s and pos < %s))'
                 ' with (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000, autovacuum_freeze_min_age = 0)',
                 name, name || '_range', from_pos, to_pos);
  execute format('alter table incident_manager.event_log attach partition incident_manager.%I for values from (%s) to (%s)',
                 name, from_pos, to_pos);
  insert into incident_manager.event_partition (from_pos, to_pos, name) values (from_pos, to_pos, name);
  return to_pos;
end $$;

-- What a subscription asks for. Lists that are null let everything through.
create type incident_manager.event_filter as (
  -- alerts; else changes of incidents, comments too
  alerts boolean,
  incident_ids uuid[],
  sources text[],
  update_types text[],
  severities text[],
  -- beside those: the severity before a change
  left_severities text[],
  -- active before or after the change
  active_only boolean,
  -- created as what it is, or raised to it from P2 to P4
  raised_only boolean
);

create function incident_manager.event_is_asked_for(l incident_manager.event_log, f incident_manager.event_filter) returns boolean
language sql immutable parallel safe
as $$
  select (l.kind = 'alert') = f.alerts
    and (f.incident_ids is null or l.incident_id = any(f.incident_ids))
    and (f.sources is null or l.source = any(f.sources))
    and (f.update_types is null or l.update_type = any(f.update_types))
    and (f.severities is null or l.severity = any(f.severities) or l.old_severity = any(f.left_severities))
    and (not f.active_only or l.state not in ('RESOLVED', 'CLOSED') or l.old_state not in ('RESOLVED', 'CLOSED'))
    and (not f.raised_only or l.update_type = 'CREATED' or l.old_severity in ('P2', 'P3', 'P4'))
$$;

-- The first max_events events after a position and up to another that a filter asks for, in order. By the narrowest of what
-- it names: of each key at most max_events are read, so that what others do between two positions costs nothing.
--
-- The planner is pinned, as for the sequencer: it knows neither the keys nor how little of the log is wanted.
create function incident_manager.event_matches(f incident_manager.event_filter, after_pos bigint, upto_pos bigint, max_events integer)
returns setof incident_manager.event_log
language plpgsql stable rows 500
set search_path = pg_catalog, incident_manager, pg_temp
set jit = off set enable_seqscan = off set enable_bitmapscan = off set plan_cache_mode = force_generic_plan
as $$
begin
  if f.incident_ids is not null then
    return query
      select found.* from unnest(f.incident_ids) wanted(id) cross join lateral (
        select l.* from incident_manager.event_log l
        where l.incident_id = wanted.id and l.pos + 0 > after_pos and l.pos + 0 <= upto_pos
          and incident_manager.event_is_asked_for(l, f)
        order by l.pos + 0 limit max_events) found
      order by found.pos limit max_events;
  elsif f.sources is not null and f.alerts then
    return query
      select found.* from unnest(f.sources) wanted(source) cross join lateral (
        select l.* from incident_manager.event_log l
        where l.source = wanted.source and l.kind = 'alert' and l.pos + 0 > after_pos and l.pos + 0 <= upto_pos
        order by l.pos + 0 limit max_events) found
      order by found.pos limit max_events;
  elsif f.sources is not null then
    return query
      select found.* from unnest(f.sources) wanted(source) cross join lateral (
        select l.* from incident_manager.event_log l
        where l.source = wanted.source and l.kind <> 'alert' and l.pos + 0 > after_pos and l.pos + 0 <= upto_pos
          and incident_manager.event_is_asked_for(l, f)
        order by l.pos + 0 limit max_events) found
      order by found.pos limit max_events;
  elsif f.alerts then
    return query
      select l.* from incident_manager.event_log l
      where l.kind = 'alert' and l.pos - 0 > after_pos and l.pos - 0 <= upto_pos
      order by l.pos - 0 limit max_events;
  elsif f.update_types is not null or f.severities is not null then
    -- an event that is in both halves comes once
    return query
      select distinct on (found.pos) found.* from (
        select changed.* from
          unnest(case when f.raised_only then '{CREATED}'
                      else coalesce(f.update_types, '{CREATED,UPDATED,STATE_CHANGED,RESOLVED,ASSIGNED,COMMENT_ADDED}') end) kind(update_type)
          cross join unnest(coalesce(f.severities, '{P0,P1,P2,P3,P4}')) wanted(severity)
          cross join lateral (
            select l.* from incident_manager.event_log l
            where l.update_type = kind.update_type and l.severity = wanted.severity and l.kind <> 'alert'
              and l.pos + 0 > after_pos and l.pos + 0 <= upto_pos and incident_manager.event_is_asked_for(l, f)
            order by l.pos + 0 limit max_events) changed
        union all
        select lost.* from
          unnest(case when f.raised_only then '{P2,P3,P4}' else f.left_severities end) wanted(severity)
          cross join unnest(case when f.raised_only then f.severities else '{P0,P1,P2,P3,P4}' end) became(severity)
          cross join lateral (
            select l.* from incident_manager.event_log l
            where l.old_severity = wanted.severity and l.severity = became.severity and l.old_severity <> l.severity
              and l.pos + 0 > after_pos and l.pos + 0 <= upto_pos and incident_manager.event_is_asked_for(l, f)
            order by l.pos + 0 limit max_events) lost) found
      order by found.pos limit max_events;
  else
    return query
      select l.* from incident_manager.event_log l
      where l.kind <> 'alert' and l.pos - 0 > after_pos and l.pos - 0 <= upto_pos and incident_manager.event_is_asked_for(l, f)
      order by l.pos - 0 limit max_events;
  end if;
end $$;

insert into incident_manager.event_epoch (epoch, first_pos, timeline, database_oid, reason)
  select 1, 1, incident_manager.event_timeline(), oid, 'installed' from pg_database where datname = current_database();
insert into incident_manager.event_batch (n, last_pos, snap, seen_seq, covered, epoch)
  values (1, 0, pg_current_snapshot(), 0, incident_manager.event_add_partition(1, 100000), 1);
