-- Housekeeping: called from time to time by any replica. Each call does at most one step of each kind.

-- It waits for nobody's lock for longer than lock_timeout: writers never lock the log, and readers of the log queue behind
-- it no longer than that. overdue: retention would drop a partition, and readers hold it.
create function incident_manager.event_maintain(
    keep interval default '7 days', keep_events bigint default 10000000, outbox_rows bigint default 200000,
    out rotated boolean, out emptied boolean, out dropped text, out overdue boolean)
language plpgsql volatile security definer
set search_path = pg_catalog, incident_manager, pg_temp
set lock_timeout = '100ms'
as $$
declare
  last record;
  written integer;
  oldest record;
begin
  rotated := false;
  emptied := false;
  overdue := false;
  begin
    perform pg_advisory_xact_lock(incident_manager.event_lock_key());    -- sequencers miss for these milliseconds
  exception when lock_not_available then
    return;
  end;
  select b.*, b.xmin = b.xid::xid as native into last from incident_manager.event_batch b order by b.n desc limit 1;
  if not last.native or pg_snapshot_xmax(last.snap) > pg_snapshot_xmax(pg_current_snapshot()) then
    return;    -- a restored or copied database: the sequencer first
  end if;
  delete from incident_manager.event_batch b where b.n < last.n - 100;

  -- the slot of the outbox that is not written: empty it when all of it is in the log, then write it next
  select last_value into written from incident_manager.event_slot;
  if last.target is null then
    begin
      if written = 0 then
        lock table only incident_manager.event_outbox_1 in access exclusive mode nowait;
      else
        lock table only incident_manager.event_outbox_0 in access exclusive mode nowait;
      end if;
      if not exists (select 1 from incident_manager.event_outbox o
                     where o.slot = 1 - written and o.xid >= pg_snapshot_xmin(last.snap)
                       and not pg_visible_in_snapshot(o.xid, last.snap)) then
        if exists (select 1 from incident_manager.event_outbox o where o.slot = 1 - written) then
          if written = 0 then
            truncate only incident_manager.event_outbox_1;
          else
            truncate only incident_manager.event_outbox_0;
          end if;
          emptied := true;
        end if;
        if (select coalesce(max(o.seq) - min(o.seq), 0) from incident_manager.event_outbox o where o.slot = written) > outbox_rows then
          perform setval('incident_manager.event_slot', 1 - written);
          rotated := true;
        end if;
      end if;
    exception when lock_not_available then
      null;    -- a writer is at it still; the next call tries again
    end;
  end if;

  -- retention: the oldest partition, when all of it is too old or too far back
  select p.* into oldest from incident_manager.event_partition p order by p.from_pos limit 1;
  if oldest.to_pos <= last.last_pos
     and (oldest.to_pos <= last.last_pos - keep_events
          or (select l.logged_at from incident_manager.event_log l where l.pos = oldest.to_pos - 1) < clock_timestamp() - keep) then
    begin
      execute format('drop table incident_manager.%I', oldest.name);
      delete from incident_manager.event_partition p where p.from_pos = oldest.from_pos;
      perform incident_manager.event_forget_texts();
      dropped := oldest.name;
    exception when lock_not_available then
      overdue := true;
    end;
  end if;

  -- ahead of the head, so that the sequencer never has to wait for a new partition
  if last.covered - last.last_pos < incident_manager.event_partition_size(last.covered) / 2 then
    insert into incident_manager.event_batch (n, last_pos, snap, target, target_seq, seen_seq, covered, epoch)
    values (last.n + 1, last.last_pos, last.snap, last.target, last.target_seq, last.seen_seq,
            incident_manager.event_add_partition(last.covered, incident_manager.event_partition_size(last.covered)), last.epoch);
  end if;
end $$;

-- Forgets the texts that no event in log or outbox needs and no event to come can: those of an incident's current version
-- stay.
create function incident_manager.event_forget_texts() returns void
language sql volatile set search_path = pg_catalog, incident_manager, pg_temp
as $$
  delete from incident_manager.event_text t
  where not exists (select 1 from incident_manager.incident i where i.id = t.object_id and i.description_version = t.version)
    and not exists (select 1 from incident_manager.event_log l
                    where l.incident_id = t.object_id and l.kind <> 'alert' and l.description_version = t.version)
    and not exists (select 1 from incident_manager.event_log l where l.alert_id = t.object_id and l.description is null)
    and not exists (select 1 from incident_manager.event_outbox o where t.object_id in (o.incident_id, o.alert_id))
$$;

-- Deletes incidents that were closed before an instant, with their alerts, comments and timeline; the oldest first, at
-- most so many. For the tables' owner. What the event log holds of them stays until its retention. An incident that another
-- was merged into, or that somebody has locked, is left for another time.
create function incident_manager.purge_closed_incidents(before timestamptz, max_incidents integer default 1000) returns bigint
language plpgsql volatile set search_path = pg_catalog, incident_manager, pg_temp
as $$
declare
  ids uuid[];
begin
  perform set_config('incident_manager.purge', pg_current_xact_id()::text, true);
  select array_agg(purged.id) into ids from (
    select i.id from incident_manager.incident i
    where i.state = 'CLOSED' and i.closed_at < before
      and not exists (select 1 from incident_manager.incident m where m.merged_into = i.id)
    order by i.closed_at limit max_incidents for update skip locked) purged;
  if ids is null then
    return 0;
  end if;
  delete from incident_manager.alert a where a.incident_id = any(ids);
  delete from incident_manager.comment c where c.incident_id = any(ids);
  delete from incident_manager.timeline t where t.incident_id = any(ids);
  delete from incident_manager.incident i where i.id = any(ids);
  perform set_config('incident_manager.purge', '', true);
  return cardinality(ids);
end $$;

-- Trigger functions need no right to be run; nobody else is given one here: grants are the installer's (docs/grants.sql).
revoke all on all functions in schema incident_manager from public;
-- Pure functions that constraints, defaults and triggers call in the writer's name.
grant execute on function incident_manager.is_string_map(jsonb), incident_manager.current_actor(),
  incident_manager.incident_may_become(text, text, boolean) to public;
