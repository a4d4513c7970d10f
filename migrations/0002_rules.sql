-- The rules of incidents, for every writer: which state may follow, which columns are the database's own. That a new incident
-- begins at the beginning is held by the trigger that makes its event (0004), which every insert runs anyway.

-- Whether the state machine has a step. Forward within the active four, from them to RESOLVED; RESOLVED reopens to
-- INVESTIGATING or closes; a merge closes what is active.
create function incident_manager.incident_may_become(old_state text, new_state text, merges boolean) returns boolean
language sql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
  select case
    when old_state = 'CLOSED' then false
    when old_state = 'RESOLVED' then new_state in ('INVESTIGATING', 'CLOSED')
    when new_state = 'CLOSED' then merges
    else array_position(array['DETECTED', 'TRIAGED', 'INVESTIGATING', 'REMEDIATING', 'RESOLVED'], new_state)
       > array_position(array['DETECTED', 'TRIAGED', 'INVESTIGATING', 'REMEDIATING', 'RESOLVED'], old_state)
  end
$$;

create function incident_manager.incident_rules() returns trigger
language plpgsql set search_path = pg_catalog, incident_manager, pg_temp
as $$
declare
  right_now timestamptz := greatest(clock_timestamp(), old.updated_at);
begin
  if new.id <> old.id or new.source <> old.source then
    raise exception 'an incident''s id and source never change'
      using errcode = 'check_violation', schema = 'incident_manager', table = 'incident', constraint = 'incident_source_fixed';
  end if;
  -- what follows from the change is not the writer's to say
  new.created_at := old.created_at;
  new.updated_at := old.updated_at;
  new.acknowledged_at := old.acknowledged_at;
  new.resolved_at := old.resolved_at;
  new.closed_at := old.closed_at;
  new.opened_by_alert := old.opened_by_alert;
  new.description_version := old.description_version;
  new.version := old.version;
  if new is not distinct from old then
    return new;
  end if;
  if old.state = 'CLOSED' then
    raise exception 'a CLOSED incident does not change'
      using errcode = 'check_violation', schema = 'incident_manager', table = 'incident', constraint = 'incident_closed_is_final';
  end if;
  if new.state <> old.state then
    if not incident_manager.incident_may_become(old.state, new.state, new.merged_into is not null) then
      raise exception 'an incident does not go from % to %', old.state, new.state
        using errcode = 'check_violation', schema = 'incident_manager', table = 'incident', constraint = 'incident_state_transition';
    end if;
    new.acknowledged_at := coalesce(old.acknowledged_at, right_now);
    new.resolved_at := case new.state when 'RESOLVED' then right_now when 'CLOSED' then old.resolved_at end;
    new.closed_at := case new.state when 'CLOSED' then right_now end;
  end if;
  new.version := old.version + 1;
  new.updated_at := right_now;
  if new.description <> old.description then
    new.description_version := new.version;
  end if;
  return new;
end $$;
-- The last of the BEFORE triggers, so that it sees what will be stored, and not for an update that changes nothing.
create trigger zz_incident_rules before update on incident_manager.incident for each row
  when (old.* is distinct from new.*) execute function incident_manager.incident_rules();

-- Comments stay as they were said.
create function incident_manager.comment_is_fixed() returns trigger
language plpgsql set search_path = pg_catalog, incident_manager, pg_temp
as $$
begin
  raise exception 'a comment does not change'
    using errcode = 'feature_not_supported', schema = 'incident_manager', table = 'comment', constraint = 'comment_is_fixed';
end $$;
create trigger zz_comment_is_fixed before update on incident_manager.comment for each row
  when (old.* is distinct from new.*) execute function incident_manager.comment_is_fixed();

-- Deleting is refused, but for the purge (0006): a transaction of the tables' owner that has said so, and of incidents
-- only CLOSED ones.
create function incident_manager.refuse_delete() returns trigger
language plpgsql set search_path = pg_catalog, incident_manager, pg_temp
as $$
begin
  if tg_op = 'DELETE'
     and current_setting('incident_manager.purge', true) = pg_current_xact_id_if_assigned()::text
     and pg_has_role(current_user, (select relowner from pg_class where oid = tg_relid), 'MEMBER')
     and (tg_table_name <> 'incident' or to_jsonb(old) ->> 'state' = 'CLOSED') then
    return old;
  end if;
  raise exception '% of %.% is refused: no subscriber would hear of it', tg_op, tg_table_schema, tg_table_name
    using errcode = 'feature_not_supported', schema = 'incident_manager', table = tg_table_name, constraint = 'delete_is_refused';
end $$;
create trigger "00_refuse_delete" before delete on incident_manager.incident for each row execute function incident_manager.refuse_delete();
create trigger "00_refuse_delete" before delete on incident_manager.comment for each row execute function incident_manager.refuse_delete();
create trigger "00_refuse_delete" before delete on incident_manager.alert for each row execute function incident_manager.refuse_delete();
create trigger "00_refuse_truncate" before truncate on incident_manager.incident for each statement execute function incident_manager.refuse_delete();
create trigger "00_refuse_truncate" before truncate on incident_manager.comment for each statement execute function incident_manager.refuse_delete();
create trigger "00_refuse_truncate" before truncate on incident_manager.alert for each statement execute function incident_manager.refuse_delete();
