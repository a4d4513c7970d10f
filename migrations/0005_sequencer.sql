-- The sequencer: moves what has been committed from the outbox to the log and gives it positions.
--
-- One at a time, by an advisory lock of the transaction, which no client can keep. What is visible now and was not when the
-- last call looked is new; that is told from snapshots, so that a transaction which stays open, here or in any other
-- database of the cluster, delays only its own rows.

-- One line of the audit trail.
create function incident_manager.event_summary(update_type text, title text, severity text, old_severity text, state text,
                                               old_state text, assigned_to text, changed text[]) returns text
language sql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
  select case update_type
    when 'CREATED' then format('%s created: %s', severity, title)
    when 'RESOLVED' then format('resolved, was %s', old_state)
    when 'STATE_CHANGED' then format('state changed from %s to %s', old_state, state)
    when 'ASSIGNED' then coalesce('assigned to ' || assigned_to, 'unassigned')
    when 'COMMENT_ADDED' then 'comment added'
    else case when severity <> old_severity then format('severity changed from %s to %s', old_severity, severity)
              else 'changed ' || array_to_string(changed, ', ') end
  end
$$;

-- locked: this call had its turn; the other results mean something only then. head: the log's newest position. moved: how
-- many events this call moved. more: a backlog is being moved, and the next call goes on with it, or with what was committed
-- meanwhile. `ring` sets the doorbell.
--
-- The planner is pinned: a generic plan by the indexes is right for an outbox of any size, and is made once for a session.
create function incident_manager.sequence_events(
    max_events integer default 20000, ring boolean default null,
    out locked boolean, out head bigint, out moved integer, out more boolean, out epoch integer)
language plpgsql volatile security definer
set search_path = pg_catalog, incident_manager, pg_temp
set jit = off set enable_seqscan = off set plan_cache_mode = force_generic_plan
as $$
declare
  last record;
  trusted boolean;
  timeline_now text;
  known record;
  reason text;
  snap pg_snapshot;
  target pg_snapshot;
  picked bigint[];
  found bigint[];
  unfinished boolean;
  grown boolean := false;
begin
  perform incident_manager.event_own_transaction('sequence_events');
  moved := 0;
  more := false;
  locked := pg_try_advisory_xact_lock(incident_manager.event_lock_key());
  if not locked then
    return;
  end if;
  -- positions that were notified must not be lost by a crash
  if current_setting('synchronous_commit') = 'off' then
    perform set_config('synchronous_commit', 'on', true);
  end if;

  -- a row that a dump brought here was not written by the transaction that it names
  select b.*, b.xmin = b.xid::xid as native into last from incident_manager.event_batch b order by b.n desc limit 1;
  select e.timeline, e.database_oid into known from incident_manager.event_epoch e where e.epoch = last.epoch;
  timeline_now := incident_manager.event_timeline();
  reason := case
    when not last.native then 'restored from a dump'
    when pg_snapshot_xmax(last.snap) > pg_snapshot_xmax(pg_current_snapshot()) then 'transaction ids went back'
    when known.database_oid <> (select oid from pg_database where datname = current_database()) then 'the database was copied'
    when known.timeline <> timeline_now then 'a standby was promoted'
  end;
  if reason is not null then
    last.epoch := last.epoch + 1;
    insert into incident_manager.event_epoch (epoch, first_pos, timeline, database_oid, reason)
      select last.epoch, last.last_pos + 1, timeline_now, oid, reason from pg_database where datname = current_database();
  end if;
  -- after a promotion the tables' transaction ids still mean what they did
  trusted := coalesce(reason, 'a standby was promoted') = 'a standby was promoted';

  if not trusted then
    -- move what the log lacks, whoever wrote it; what was in progress when the copy was made is not here
    select pg_current_snapshot(), array_agg(o.seq), array_agg(o.seq order by o.seq) filter (where l.seq is null)
    into snap, found, picked
    from incident_manager.event_outbox o left join incident_manager.event_log l on l.seq = o.seq and l.at = o.at;
  elsif last.target is null
        and coalesce((select max(seq) from incident_manager.event_outbox), 0) <= last.seen_seq + 5 * max_events then
    -- the usual case: ids that the last snapshot had not seen begin, and those that it saw in progress
    with now as materialized (select pg_current_snapshot() as snap),
    visible as (
      select o.seq from now, incident_manager.event_outbox o
        where o.xid >= pg_snapshot_xmax(last.snap) and o.xid < pg_snapshot_xmax(now.snap)
          and pg_visible_in_snapshot(o.xid, now.snap)
      union all
      select o.seq from now, pg_snapshot_xip(last.snap) was(xid),
             lateral (select seq, xid from incident_manager.event_outbox o where o.xid = was.xid offset 0) o
        where pg_visible_in_snapshot(o.xid, now.snap)),
    first as (select seq from visible order by seq limit max_events)
    select (select now.snap from now), (select array_agg(seq order by seq) from first) into snap, picked;
    target := snap;
  else
    -- a backlog: in chunks, what one snapshot sees, so that what is committed meanwhile cannot come between
    target := coalesce(last.target, pg_current_snapshot());
    snap := target;
    select array_agg(w.seq order by w.seq) into picked from (
      select o.seq from incident_manager.event_outbox o
      where o.seq > coalesce(last.target_seq, 0)
        and pg_visible_in_snapshot(o.xid, target) and not pg_visible_in_snapshot(o.xid, last.snap)
      order by o.seq limit max_events) w;
  end if;

  moved := coalesce(cardinality(picked), 0);
  unfinished := trusted and moved = max_events;
  more := unfinished or (trusted and last.target is not null);
  head := last.last_pos + moved;
  epoch := last.epoch;

  while head >= last.covered loop
    last.covered := incident_manager.event_add_partition(last.covered, incident_manager.event_partition_size(last.covered));
    grown := true;
  end loop;

  if moved > 0 then
    insert into incident_manager.event_log
      (pos, logged_at, seq, at, kind, update_type, incident_id, alert_id, comment_id, source, severity, old_severity, state,
       old_state, actor, db_user, changed, title, description, description_version, labels, fingerprint, incident_type,
       assigned_to, affected_resources, metadata, resolution, root_cause, created_at, updated_at, acknowledged_at,
       resolved_at, closed_at, version, external_id, alert_type, annotations, affected_services, runbook_url, firing,
       received_at, deduplicated)
    select last.last_pos + p.n, clock_timestamp(), o.seq, o.at, o.kind, o.update_type, o.incident_id, o.alert_id,
       o.comment_id, o.source, o.severity, o.old_severity, o.state, o.old_state, o.actor, o.db_user, o.changed, o.title,
       o.description, o.description_version, o.labels, o.fingerprint, o.incident_type, o.assigned_to,
       o.affected_resources, o.metadata, o.resolution, o.root_cause, o.created_at, o.updated_at, o.acknowledged_at,
       o.resolved_at, o.closed_at, o.version, o.external_id, o.alert_type, o.annotations, o.affected_services,
       o.runbook_url, o.firing, o.received_at, o.deduplicated
    from unnest(picked) with ordinality p(seq, n)
    join incident_manager.event_outbox o on o.seq = p.seq
    order by p.n;
    insert into incident_manager.timeline (incident_id, pos, at, update_type, actor, summary, changed_fields)
    select l.incident_id, l.pos, l.at, l.update_type, l.actor,
       incident_manager.event_summary(l.update_type, l.title, l.severity, l.old_severity, l.state, l.old_state, l.assigned_to, l.changed),
       l.changed
    from incident_manager.event_log l
    where l.pos > last.last_pos and l.pos <= head and l.kind <> 'alert'
      and exists (select 1 from incident_manager.incident i where i.id = l.incident_id);    -- not purged since
  end if;
  if not trusted then
    delete from incident_manager.event_outbox o where o.seq = any(found);    -- its transaction ids mean nothing here
  end if;

  -- An idle call writes nothing. Snapshots that only rolled-back transactions have moved on are kept once a second, lest
  -- the next call look through all that they left.
  if moved > 0 or reason is not null or grown or last.target is not null
     or (clock_timestamp() - last.at > interval '1 second'
         and pg_snapshot_xmax(snap)::text::bigint - pg_snapshot_xmax(last.snap)::text::bigint > 1000) then
    insert into incident_manager.event_batch (n, last_pos, snap, target, target_seq, seen_seq, covered, epoch)
    values (last.n + 1, head, case when unfinished then last.snap else snap end, case when unfinished then target end,
            case when unfinished then picked[moved] end, greatest(last.seen_seq, picked[moved]), last.covered, last.epoch);
  end if;

  if ring is not null and (select last_value from incident_manager.event_doorbell) <> ring::integer then
    perform setval('incident_manager.event_doorbell', ring::integer);
  end if;
  if (moved > 0 or reason is not null) and pg_notification_queue_usage() < 0.5 then
    perform pg_notify('incident_manager_head', head::text);
  end if;
end $$;
