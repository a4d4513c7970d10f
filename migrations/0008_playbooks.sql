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

-- What may be related to incidents, for all of them at once: what each is linked with, what it was merged into and what was
-- merged into it, what has its fingerprint; each at most twenty, the last first. And, with a null incident, those around them in
-- time: they themselves, and of each the 32 next before it and the 32 next after it, within an hour. Where these are of several
-- incidents, as of a page they are, they are there once: from each the search goes on to the next of them and no further. Of
-- these sources alone; of all where they are null. Which of it is the best is the service's to say. Each comes with what is short
-- of it, since it has been found already; with what it affects where that counts.
--
-- Its plan is made once for a session: to make it takes as long as to carry it out.
create function incident_manager.related_candidates(incidents uuid[], sources text[])
returns table (incident uuid, reason text, score double precision, at timestamptz, id uuid, title text, severity text,
               state text, incident_type text, source text, created_at timestamptz, updated_at timestamptz,
               acknowledged_at timestamptz, resolved_at timestamptz, closed_at timestamptz, assigned_to text,
               fingerprint text, version integer, affected_resources text[])
language plpgsql stable set search_path = pg_catalog, incident_manager, pg_temp set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
  return query
    with i as materialized (
      select o.id, o.source, o.fingerprint, o.created_at, o.merged_into, o.closed_at,
             lag(o.created_at, 1, '-infinity') over line as earlier, lag(o.id, 1, o.id) over line as earlier_id,
             lead(o.created_at, 1, 'infinity') over line as later, lead(o.id, 1, o.id) over line as later_id
      from incident_manager.incident o where o.id = any (incidents)
      window line as (order by o.created_at, o.id))
    select c.incident, c.reason, c.score, c.at, c.id, c.title, c.severity, c.state, c.incident_type, c.source, c.created_at,
           c.updated_at, c.acknowledged_at, c.resolved_at, c.closed_at, c.assigned_to, c.fingerprint, c.version,
           case when c.incident is null then c.affected_resources end
    from (
      select i.id as incident, 'LINKED' as reason, 1.0::double precision as score, o.*
      from i cross join lateral (
        select l.linked_at as at, o.* from incident_manager.incident_link l join incident_manager.incident o on o.id = l.b
        where l.a = i.id and (sources is null or o.source = any (sources))
        order by l.linked_at desc limit 20) o
      union all
      select i.id, 'LINKED', 1.0, o.*
      from i cross join lateral (
        select l.linked_at, o.* from incident_manager.incident_link l join incident_manager.incident o on o.id = l.a
        where l.b = i.id and (sources is null or o.source = any (sources))
        order by l.linked_at desc limit 20) o
      union all
      select i.id, 'MERGED', 1.0, i.closed_at, o.*
      from i join incident_manager.incident o on o.id = i.merged_into
      where sources is null or o.source = any (sources)
      union all
      select i.id, 'MERGED', 1.0, o.*
      from i cross join lateral (
        select o.closed_at, o.* from incident_manager.incident o
        where o.merged_into = i.id and (sources is null or o.source = any (sources))
        order by o.closed_at desc limit 20) o
      union all
      select i.id, 'CORRELATED', case when o.source = i.source then 0.9 else 0.8 end, null, o.*
      from i cross join lateral (
        select o.* from incident_manager.incident o
        where o.fingerprint = i.fingerprint and o.id <> i.id and (sources is null or o.source = any (sources))
        order by o.created_at desc, o.id desc limit 20) o
      union all
      select null, null, null, null, o.*
      from incident_manager.incident o where o.id = any (incidents) and (sources is null or o.source = any (sources))
      union all
      select null, null, null, null, o.*
      from i cross join lateral (
        select o.* from incident_manager.incident o
        where (o.created_at, o.id) < (i.created_at, i.id) and (o.created_at, o.id) > (i.earlier, i.earlier_id)
          and o.created_at >= i.created_at - interval '1 hour' and (sources is null or o.source = any (sources))
        order by o.created_at desc, o.id desc limit 32) o
      union all
      select null, null, null, null, o.*
      from i cross join lateral (
        select o.* from incident_manager.incident o
        where (o.created_at, o.id) > (i.created_at, i.id) and (o.created_at, o.id) < (i.later, i.later_id)
          and o.created_at <= i.created_at + interval '1 hour' and (sources is null or o.source = any (sources))
        order by o.created_at, o.id limit 32) o) c;
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
  incident_manager.related_candidates(uuid[], text[]) from public;
-- A pure function that a constraint calls in the writer's name.
revoke all on function incident_manager.are_playbook_steps(jsonb) from public;
grant execute on function incident_manager.are_playbook_steps(jsonb) to public;
