-- Playbooks, and which incident has which; which incidents belong together; the indexes that lists and filters need.

-- The steps of a playbook: 1 to 100 objects {"title": 1 to 500 characters, "instructions": text}, the instructions 64 KiB
-- in all.
create function incident_manager.are_playbook_steps(steps jsonb) returns boolean
language sql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
  select case when jsonb_typeof(steps) <> 'array' then false else (
    select count(*) between 1 and 100
       and coalesce(bool_and(
             jsonb_typeof(step -> 'title') = 'string' and length(step ->> 'title') between 1 and 500
             and jsonb_typeof(step -> 'instructions') = 'string'
             and step - '{title,instructions}'::text[] = '{}'), false)
       and coalesce(sum(octet_length(step ->> 'instructions')), 0) <= 65536
    from jsonb_array_elements(steps) step) end
$$;

create table incident_manager.playbook (
  id uuid constraint playbook_pkey primary key default gen_random_uuid(),
  name text not null
    constraint playbook_name_length check (length(name) between 1 and 200),
  description text not null default ''
    constraint playbook_description_size check (octet_length(description) <= 65536),
  enabled boolean not null default true,
  severities text[] not null default '{}'
    constraint playbook_severities_name check (severities = '{}' or
      (severities <@ array['P0', 'P1', 'P2', 'P3', 'P4'] and array_ndims(severities) = 1 and array_lower(severities, 1) = 1)),
  incident_types text[] not null default '{}'
    constraint playbook_incident_types_name check (incident_types = '{}' or
      (incident_types <@ array[
         'INFRASTRUCTURE', 'APPLICATION', 'AVAILABILITY', 'PERFORMANCE', 'SECURITY', 'DATA', 'COMPLIANCE', 'COST',
         'MODEL_DRIFT', 'MODEL_QUALITY', 'PROMPT_INJECTION', 'CONTENT_SAFETY', 'UNKNOWN']
       and array_ndims(incident_types) = 1 and array_lower(incident_types, 1) = 1)),
  sources text[] not null default '{}'
    constraint playbook_sources_size check (sources = '{}' or
      (octet_length(array_to_json(sources)::text) <= 16384 and array_ndims(sources) = 1 and array_lower(sources, 1) = 1
       and array_position(sources, null) is null)),
  steps jsonb not null
    constraint playbook_steps_size check (incident_manager.are_playbook_steps(steps)),
  created_at timestamptz not null default clock_timestamp()
    constraint playbook_created_at_range check (created_at >= '0001-01-01 00:00+00' and created_at < '10000-01-01 00:00+00'),
  -- how many of its lists are not empty
  narrowness smallint not null generated always as
    ((severities <> '{}')::integer + (incident_types <> '{}')::integer + (sources <> '{}')::integer) stored
);
comment on table incident_manager.playbook is
  'What to do about incidents that match every list that is not empty. A new incident gets the enabled match with the most lists, then the oldest.';
create index playbook_created on incident_manager.playbook (created_at, id);
create index playbook_best on incident_manager.playbook (narrowness desc, created_at, id) where enabled;

-- A table of its own, so that attaching and deleting change no incident. No foreign key to the playbook: a new incident
-- would wait for who deletes it, and then fail. Who reads joins, so that what such a race leaves is not seen.
create table incident_manager.incident_playbook (
  incident_id uuid constraint incident_playbook_pkey primary key
    constraint incident_playbook_incident_fk references incident_manager.incident on delete cascade,
  playbook_id uuid not null
);
comment on table incident_manager.incident_playbook is 'The playbook of an incident, attached when the incident was made.';
create index incident_playbook_playbook on incident_manager.incident_playbook (playbook_id);

create function incident_manager.incident_attach_playbook() returns trigger
language plpgsql volatile security definer set search_path = pg_catalog, incident_manager, pg_temp
as $$
begin
  -- where there are no playbooks, this is all that they cost a writer
  if not exists (select 1 from incident_manager.playbook p where p.enabled) then
    return null;
  end if;
  insert into incident_manager.incident_playbook (incident_id, playbook_id)
    select new.id, p.id from incident_manager.playbook p
    where p.enabled and (p.severities = '{}' or new.severity = any (p.severities))
      and (p.incident_types = '{}' or new.incident_type = any (p.incident_types))
      and (p.sources = '{}' or new.source = any (p.sources))
    order by p.narrowness desc, p.created_at, p.id limit 1;
  return null;
end $$;
create trigger "10_attach_playbook" after insert on incident_manager.incident for each row
  execute function incident_manager.incident_attach_playbook();

create function incident_manager.playbook_detach() returns trigger
language plpgsql volatile security definer set search_path = pg_catalog, incident_manager, pg_temp
as $$
begin
  delete from incident_manager.incident_playbook ip where ip.playbook_id = old.id;
  return null;
end $$;
create trigger "10_detach" after delete on incident_manager.playbook for each row
  execute function incident_manager.playbook_detach();

-- Incidents that somebody says belong together: once for each pair, the lower id first.
create table incident_manager.incident_link (
  a uuid not null constraint incident_link_a_fk references incident_manager.incident on delete cascade,
  b uuid not null constraint incident_link_b_fk references incident_manager.incident on delete cascade,
  linked_by text not null default incident_manager.current_actor()
    constraint incident_link_linked_by_length check (length(linked_by) between 1 and 200),
  linked_at timestamptz not null default clock_timestamp(),
  constraint incident_link_pkey primary key (a, b),
  constraint incident_link_b_order check (a < b)
);
comment on table incident_manager.incident_link is 'Pairs of incidents that belong together; a is the lower id.';
create index incident_link_of_a on incident_manager.incident_link (a, linked_at);
create index incident_link_of_b on incident_manager.incident_link (b, linked_at);

-- Incidents that may have the same cause, for the indexes' sake one branch each, all bounded:
--   0.9  of the same source and fingerprint
--   0.8  of another source, with the same fingerprint
--   0.4 to 0.7, the closer in time the higher: created within an hour of it, with an affected resource in common; of the
--   32 incidents next before and the 32 next after it
-- Each at most twenty. Of these sources alone; of all where they are null.
create function incident_manager.correlated_incidents(incident uuid, sources text[])
returns table (id uuid, score double precision)
language sql stable
begin atomic
  with i as (
    select o.id, o.source, o.fingerprint, o.created_at, o.affected_resources
    from incident_manager.incident o where o.id = incident)
  (select o.id, case when o.source = i.source then 0.9 else 0.8 end::double precision
   from i cross join lateral (
     select o.id, o.source from incident_manager.incident o
     where o.fingerprint = i.fingerprint and o.id <> i.id and (sources is null or o.source = any(sources))
     order by o.created_at desc, o.id desc limit 20) o)
  union all
  (select o.id, 0.7 - 0.3 * abs(extract(epoch from o.created_at - i.created_at))::double precision / 3600
   from i cross join lateral (
     (select o.id, o.created_at, o.affected_resources from incident_manager.incident o
      where (o.created_at, o.id) < (i.created_at, i.id) and o.created_at >= i.created_at - interval '1 hour'
        and (sources is null or o.source = any(sources))
      order by o.created_at desc, o.id desc limit 32)
     union all
     (select o.id, o.created_at, o.affected_resources from incident_manager.incident o
      where (o.created_at, o.id) > (i.created_at, i.id) and o.created_at <= i.created_at + interval '1 hour'
        and (sources is null or o.source = any(sources))
      order by o.created_at, o.id limit 32)) o
   where i.affected_resources <> '{}' and o.affected_resources && i.affected_resources);
end;

-- What an incident is related to, the best first, at most twenty: what it is linked with, what it was merged into or was
-- merged into it, what it correlates with. Of these sources alone; of all where they are null.
create function incident_manager.related_incidents(incident uuid, sources text[])
returns table (id uuid, reason text, score double precision, rank bigint)
language sql stable
begin atomic
  select best.id, best.reason, best.score,
         row_number() over (order by best.score desc, best.rank, best.at desc nulls last, best.id)
  from (
    select distinct on (r.id) r.id, r.reason, r.score, r.rank, r.at from (
      (select l.b as id, 'LINKED' as reason, 1.0::double precision as score, 1 as rank, l.linked_at as at
       from incident_manager.incident_link l
       where l.a = incident and (sources is null or exists (
         select from incident_manager.incident o where o.id = l.b and o.source = any(sources)))
       order by l.linked_at desc limit 20)
      union all
      (select l.a, 'LINKED', 1.0, 1, l.linked_at
       from incident_manager.incident_link l
       where l.b = incident and (sources is null or exists (
         select from incident_manager.incident o where o.id = l.a and o.source = any(sources)))
       order by l.linked_at desc limit 20)
      union all
      -- by its id, whatever the planner thinks of the index on what was merged
      (select m.merged_into, 'MERGED', 1.0, 2, m.closed_at
       from (select o.merged_into, o.closed_at from incident_manager.incident o where o.id = incident offset 0) m
       where m.merged_into is not null and (sources is null or exists (
         select from incident_manager.incident o where o.id = m.merged_into and o.source = any(sources))))
      union all
      (select m.id, 'MERGED', 1.0, 2, m.closed_at from incident_manager.incident m
       where m.merged_into = incident and (sources is null or m.source = any(sources))
       order by m.closed_at desc limit 20)
      union all
      (select c.id, 'CORRELATED', c.score, 3, null from incident_manager.correlated_incidents(incident, sources) c)) r
    order by r.id, r.rank, r.score desc) best
  order by 4 limit 20;
end;

-- The same of several incidents. Its plan is made once for a session: to make it takes as long as to carry it out.
create function incident_manager.related_incidents_of(incidents uuid[], sources text[])
returns table (incident uuid, id uuid, reason text, score double precision, rank bigint)
language plpgsql stable set search_path = pg_catalog, incident_manager, pg_temp set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
  return query
    select k.id, r.id, r.reason, r.score, r.rank
    from unnest(incidents) k(id) cross join lateral incident_manager.related_incidents(k.id, related_incidents_of.sources) r;
end $$;

-- Lists: a filter's column, then the order's. Every index costs every writer, so: none that serves no filter of the
-- contract, and partial ones where most rows have nothing in the column. That of labels takes rows in by the hundred, and
-- costs an insert with three labels a few microseconds of fifty.
create index incident_source on incident_manager.incident (source, created_at, id);
create index incident_type on incident_manager.incident (incident_type, created_at, id);
create index incident_assigned on incident_manager.incident (assigned_to, created_at, id) where assigned_to is not null;
create index incident_fingerprint on incident_manager.incident (fingerprint, created_at, id) where fingerprint is not null;
create index incident_labels on incident_manager.incident using gin (labels jsonb_path_ops)
  with (gin_pending_list_limit = 256) where labels <> '{}';
create index alert_firing_received on incident_manager.alert (received_at, id) where firing;

revoke all on function incident_manager.incident_attach_playbook(), incident_manager.playbook_detach(),
  incident_manager.correlated_incidents(uuid, text[]), incident_manager.related_incidents(uuid, text[]),
  incident_manager.related_incidents_of(uuid[], text[]) from public;
-- A pure function that a constraint calls in the writer's name.
revoke all on function incident_manager.are_playbook_steps(jsonb) from public;
grant execute on function incident_manager.are_playbook_steps(jsonb) to public;
