-- Housekeeping: called from time to time by any replica. Each call does at most one step of each kind.

-- It waits for nobody's lock for longer than lock_timeout: writers never lock the log, and readers of the log queue behind
-- it no longer than that. overdue: retention would drop a partition, and readers hold it. What locks others out comes last,
-- so that they wait for no more than the commit.
create function incident_manager.event_maintain(
    keep interval default '7 days', keep_events bigint default 10000000, outbox_rows bigint default 200000,
    out rotated boolean, out emptied boolean, out dropped text, out overdue boolean)
language plpgsql volatile security definer
set search_path = pg_catalog, incident_manager, pg_temp
set lock_timeout = '100ms'
as $$
declare
  last record;
  covered bigint;
  oldest record;
  written integer;
begin
  perform incident_manager.event_own_transaction('event_maintain');
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

  -- partitions ahead of the head, so that the sequencer never has to wait for one
  if last.covered - last.last_pos < incident_manager.event_partition_size(last.covered) / 2 then
    begin
      covered := incident_manager.event_add_partition(last.covered, incident_manager.event_partition_size(last.covered));
    exception when lock_not_available then
      null;    -- somebody analyzes the log; the next call tries again
    end;
    if covered is not null then
      insert into incident_manager.event_batch (n, last_pos, snap, target, target_seq, seen_seq, covered, epoch)
      values (last.n + 1, last.last_pos, last.snap, last.target, last.target_seq, last.seen_seq, covered, last.epoch);
    end if;
  end if;

  if last.target is null then
    perform incident_manager.event_forget_texts(last.snap);
  end if;

  -- retention: the oldest partition, when all of it is too old or too far back
  select p.* into oldest from incident_manager.event_partition p order by p.from_pos limit 1;
  if oldest.to_pos <= last.last_pos
     and (oldest.to_pos <= last.last_pos - keep_events
          or (select l.logged_at from incident_manager.event_log l where l.pos = oldest.to_pos - 1) < clock_timestamp() - keep) then
    begin
      execute format('drop table incident_manager.%I', oldest.name);
      delete from incident_manager.event_partition p where p.from_pos = oldest.from_pos;
      dropped := oldest.name;
    exception when lock_not_available then
      overdue := true;
    end;
  end if;

  -- the slot of the outbox that is not written: once all of it is in the log it is emptied, and once it is empty the next
  -- to be written. In two calls, so that no writer is sent to a slot that this transaction has locked.
  select last_value into written from incident_manager.event_slot;
  if not exists (select 1 from incident_manager.event_outbox o where o.slot = 1 - written) then
    if (select max(o.seq) - min(o.seq) from incident_manager.event_outbox o where o.slot = written) > outbox_rows then
      perform setval('incident_manager.event_slot', 1 - written);
      rotated := true;
    end if;
  elsif last.target is null then
    begin
      if written = 0 then
        lock table only incident_manager.event_outbox_1 in access exclusive mode nowait;
      else
        lock table only incident_manager.event_outbox_0 in access exclusive mode nowait;
      end if;
      if not exists (select 1 from incident_manager.event_outbox o
                     where o.slot = 1 - written and o.xid >= pg_snapshot_xmin(last.snap)
                       and not pg_visible_in_snapshot(o.xid, last.snap)) then
        if written = 0 then
          truncate only incident_manager.event_outbox_1;
        else
          truncate only incident_manager.event_outbox_0;
        end if;
        emptied := true;
      end if;
    exception when lock_not_available then
      null;    -- a writer is at it still; the next call tries again
    end;
  end if;
end $$;

-- Looks at some texts, in turn, and forgets those that no event needs: none in the log, none that is still to be moved there
-- (not seen by the snapshot up to which all has been moved), and none to come, as an incident's current text stays.
create function incident_manager.event_forget_texts(moved pg_snapshot, max_texts integer default 1000) returns void
language plpgsql volatile set search_path = pg_catalog, incident_manager, pg_temp
set jit = off set enable_seqscan = off
as $$
declare
  turn bigint := (select last_value from incident_manager.event_text_turn);
  looked bigint[];
begin
  select array_agg(t.n) into looked
  from (select n from incident_manager.event_text where n > turn order by n limit max_texts) t;
  with waiting as materialized (
    select coalesce(o.alert_id, o.incident_id) as object_id from incident_manager.event_outbox o
    where o.xid >= pg_snapshot_xmin(moved) and not pg_visible_in_snapshot(o.xid, moved))
  delete from incident_manager.event_text t
  where t.n = any(looked)
    and not exists (select 1 from incident_manager.incident i where i.id = t.object_id and i.description_version = t.version)
    and not exists (select 1 from incident_manager.event_log l
                    where l.description is null and coalesce(l.alert_id, l.incident_id) = t.object_id
                      and l.description_version = t.version)
    and not exists (select 1 from waiting w where w.object_id = t.object_id);
  -- from the first again after the last
  turn := case when cardinality(looked) = max_texts then looked[max_texts] else 0 end;
  if turn <> (select last_value from incident_manager.event_text_turn) then
    perform setval('incident_manager.event_text_turn', turn);
  end if;
end $$;

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
grant execute on function incident_manager.incident_keeps_limits(incident_manager.incident),
  incident_manager.alert_keeps_limits(incident_manager.alert), incident_manager.current_actor(),
  incident_manager.incident_may_become(text, text, boolean) to public;
