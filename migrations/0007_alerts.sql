-- What becomes of an alert.
--
-- A firing alert joins the active incident of its source and fingerprint, or opens one. One that does not fire says that
-- what fires in its source with its external id, or, where it has none, with its fingerprint, is over; when nothing of an
-- active incident that alerts opened fires any more, the incident is resolved. The rule is the same for a row that is
-- inserted by SQL and for any number that the service submits at once.

-- The fingerprint of an alert that brings none: SHA-256, in hex, over its source, type, title and labels, each as a netstring
-- (its length in bytes, ":", the text, ","), so that no two different alerts make the same text; labels as jsonb prints
-- them, which orders their keys. It will not change: incidents are found by it.
create function incident_manager.alert_fingerprint(source text, alert_type text, title text, labels jsonb) returns text
language sql immutable parallel safe
begin atomic
  select encode(sha256(convert_to(
    octet_length(source) || ':' || source || ',' || octet_length(alert_type) || ':' || alert_type || ','
    || octet_length(title) || ':' || title || ',' || octet_length(labels::text) || ':' || labels::text || ',', 'UTF8')), 'hex');
end;

-- Batches decide on alerts of one source and fingerprint, or of one source and external id, one after the other. The keys
-- are hashed to 1,024 locks, so that a large batch does not fill the server's table of locks, and taken in order, so that
-- two batches do not wait for each other. A direct writer's rows come one by one, in any order, in a transaction that may
-- stay open, so they take none of these: what they need are the locks on the rows that they find.
create function incident_manager.alert_lock(alerts incident_manager.alert[]) returns void
language plpgsql volatile
as $$
begin
  perform pg_advisory_xact_lock(hashtext('incident_manager.alert'), keys.lock) from (
    select distinct hashtextextended(key, 0)::bit(10)::integer as lock from (
      select 'f' || a.source || chr(1) || a.fingerprint as key from unnest(alerts) a
      union all
      select 'e' || a.source || chr(1) || a.external_id from unnest(alerts) a where a.external_id is not null) keys
    order by 1) keys;
end $$;

-- What firing alerts of one source and fingerprint have in common.
create type incident_manager.alert_key as (
  source text,
  fingerprint text,
  -- the first of them, by its ordinal
  first bigint,
  -- their active incident
  incident_id uuid,
  opened boolean
);

-- Decides on firing alerts: the incident and the status of each, in their order. Repeats of an external id that fires
-- already, here or in the table, are IGNORED: they name the incident of the one that fires, and change nothing.
create function incident_manager.alerts_fire(alerts incident_manager.alert[], out incidents uuid[], out statuses text[])
language plpgsql volatile
as $$
declare
  identified constant boolean := exists (select 1 from unnest(alerts) a where a.external_id is not null);
  keys incident_manager.alert_key[];
  -- alerts that repeat an external id, by their ordinal, and what they repeat: null where that is another of these
  repeats bigint[] := '{}';
  repeated uuid[] := '{}';
begin
  -- What fires already is locked, so that who wants to end it waits. What somebody is ending now counts as over: to wait
  -- for that one, who may be waiting for an incident that is locked here, would be a deadlock.
  if identified then
    select coalesce(array_agg(a.n), '{}'), coalesce(array_agg(twin.incident_id), '{}') into repeats, repeated
    from (select a.source, a.external_id, a.ordinality as n,
                 row_number() over (partition by a.source, a.external_id order by a.ordinality) as turn
          from unnest(alerts) with ordinality a where a.external_id is not null) a
    left join lateral (select t.id, t.incident_id from incident_manager.alert t
                       where t.source = a.source and t.external_id = a.external_id and t.firing
                       limit 1 for share skip locked) twin on true
    where twin.id is not null or a.turn > 1;
  end if;

  select array_agg(row(k.source, k.fingerprint, k.n, null, false)::incident_manager.alert_key) into keys
  from (select distinct on (a.source, a.fingerprint) a.source, a.fingerprint, a.ordinality as n
        from unnest(alerts) with ordinality a
        where not exists (select 1 from unnest(repeats) r(n) where r.n = a.ordinality)
        order by a.source, a.fingerprint, a.ordinality) k;

  -- Once, as a rule. Again where another writer has made, resolved or closed an incident meanwhile, which a new statement
  -- sees.
  for attempt in 1 .. 10 loop
    with active as (
      select i.id, i.source, i.fingerprint from incident_manager.incident i
      where i.id = any(array(select found.id from unnest(keys) k
                             cross join lateral (select o.id from incident_manager.incident o
                                                 where o.source = k.source and o.fingerprint = k.fingerprint
                                                   and o.state not in ('RESOLVED', 'CLOSED') limit 1) found
                             where k.incident_id is null))
        and i.state not in ('RESOLVED', 'CLOSED')
      order by i.id for no key update)
    select array_agg(row(k.source, k.fingerprint, k.first, coalesce(k.incident_id, i.id), k.opened)::incident_manager.alert_key)
    into keys
    from unnest(keys) k left join active i on i.source = k.source and i.fingerprint = k.fingerprint;
    exit when not exists (select 1 from unnest(keys) k where k.incident_id is null);

    with made as (
      insert into incident_manager.incident
        (title, description, severity, incident_type, source, affected_resources, labels, fingerprint, opened_by_alert)
      select a.title, a.description, a.severity, a.alert_type, a.source, a.affected_services, a.labels, a.fingerprint, true
      from unnest(keys) k join unnest(alerts) with ordinality a on a.ordinality = k.first
      where k.incident_id is null
      order by k.first
      on conflict (source, fingerprint) where state not in ('RESOLVED', 'CLOSED') do nothing
      returning id, source, fingerprint)
    select array_agg(row(k.source, k.fingerprint, k.first, coalesce(k.incident_id, m.id),
                         k.opened or m.id is not null)::incident_manager.alert_key)
    into keys
    from unnest(keys) k left join made m on m.source = k.source and m.fingerprint = k.fingerprint;
    exit when not exists (select 1 from unnest(keys) k where k.incident_id is null);
    if attempt = 10 then
      raise exception 'alerts found no incident, and could open none' using errcode = 'serialization_failure';
    end if;
  end loop;

  if not identified then
    select array_agg(k.incident_id order by a.ordinality),
           array_agg(case when k.opened and k.first = a.ordinality then 'CREATED' else 'DEDUPLICATED' end order by a.ordinality)
    into incidents, statuses
    from unnest(alerts) with ordinality a
    join unnest(keys) k on k.source = a.source and k.fingerprint = a.fingerprint;
    return;
  end if;

  -- repeats too: what came while the incident that was joined was waited for
  select repeats || coalesce(array_agg(a.ordinality), '{}'), repeated || coalesce(array_agg(twin.incident_id), '{}')
  into repeats, repeated
  from unnest(alerts) with ordinality a
  join unnest(keys) k on k.source = a.source and k.fingerprint = a.fingerprint and not k.opened
  cross join lateral (select t.incident_id from incident_manager.alert t
                      where t.source = a.source and t.external_id = a.external_id and t.firing
                      limit 1 for share skip locked) twin
  where a.external_id is not null and not exists (select 1 from unnest(repeats) r(n) where r.n = a.ordinality);

  select array_agg(case when d.repeats then coalesce(d.repeated, d.first) else d.own end order by d.n),
         array_agg(case when d.repeats then 'IGNORED' when d.opens then 'CREATED' else 'DEDUPLICATED' end order by d.n)
  into incidents, statuses
  from (
    select a.ordinality as n, r.n is not null as repeats, r.incident_id as repeated, k.incident_id as own,
           k.opened and k.first = a.ordinality as opens,
           first_value(case when r.n is null then k.incident_id else r.incident_id end)
             over (partition by a.source, a.external_id order by a.ordinality) as first
    from unnest(alerts) with ordinality a
    left join unnest(keys) k on k.source = a.source and k.fingerprint = a.fingerprint
    left join unnest(repeats, repeated) r(n, incident_id) on r.n = a.ordinality) d;
end $$;

-- Decides on alerts that say what is over. The last that ends an incident is RESOLVED; while others of it fire, or where it
-- was over already or not opened by alerts, DEDUPLICATED; where nothing fired, IGNORED.
create function incident_manager.alerts_end(alerts incident_manager.alert[], out incidents uuid[], out statuses text[])
language plpgsql volatile
as $$
declare
  enders bigint[];
  ended uuid[];
  resolved uuid[];
begin
  with a as (select * from unnest(alerts) with ordinality),
  over as (
    select distinct on (hit.id) hit.id, hit.ordinality from (
      select t.id, a.ordinality from a join incident_manager.alert t
        on t.source = a.source and t.external_id = a.external_id and t.firing
      union all
      select t.id, a.ordinality from a join incident_manager.alert t
        on t.source = a.source and t.fingerprint = a.fingerprint and t.firing
        where a.external_id is null) hit
    order by hit.id, hit.ordinality),
  -- in one order, lest two that end the same wait for each other
  locked as (
    select t.id, over.ordinality from incident_manager.alert t join over on over.id = t.id
    where t.firing order by t.id for no key update of t),
  marked as (
    update incident_manager.alert t set firing = false from locked
    where t.id = locked.id
    returning locked.ordinality, t.incident_id as named)
  select array_agg(m.ordinality), array_agg(m.named) into enders, ended from marked m where m.named is not null;

  if enders is not null then
    -- what has joined since the transaction's snapshot was taken would not be seen to fire
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
      raise exception 'an alert that ends another needs a READ COMMITTED transaction' using errcode = 'invalid_transaction_state';
    end if;
    -- who joins one of them holds its row, and is waited for; the next statement sees what came of it
    perform 1 from incident_manager.incident i
      where i.id = any(ended) and i.opened_by_alert and i.state not in ('RESOLVED', 'CLOSED')
      order by i.id for no key update;
    with done as (
      update incident_manager.incident i set state = 'RESOLVED'
      where i.id = any(ended) and i.opened_by_alert and i.state not in ('RESOLVED', 'CLOSED')
        and not exists (select 1 from incident_manager.alert t where t.incident_id = i.id and t.firing)
      returning i.id)
    select array_agg(done.id) into resolved from done;
  end if;

  with hit as (
    select distinct h.ordinality, h.named, h.named = any(resolved)
           and h.ordinality = max(h.ordinality) over (partition by h.named) as last_word
    from unnest(enders, ended) h(ordinality, named)),
  best as (
    select distinct on (hit.ordinality) hit.* from hit
    order by hit.ordinality, hit.last_word desc nulls last, hit.named)
  select array_agg(best.named order by a.ordinality),
         array_agg(case when best.last_word then 'RESOLVED' when best.named is not null then 'DEDUPLICATED' else 'IGNORED' end
                   order by a.ordinality)
  into incidents, statuses
  from unnest(alerts) with ordinality a
  left join best on best.ordinality = a.ordinality;
end $$;

-- Stores alerts, as if they had come one after the other in the array's order, and tells what became of each. The elements'
-- members are the table's columns; what is missing or null gets the column's default.
--
-- The planner is pinned: every statement here looks up some keys by an index, whatever the tables' sizes, and to plan them
-- anew costs more than a small batch.
create function incident_manager.submit_alerts(input jsonb)
returns table (ordinal integer, alert_id uuid, incident_id uuid, status text)
language plpgsql volatile security definer set search_path = pg_catalog, incident_manager, pg_temp
set enable_seqscan = off set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  alerts incident_manager.alert[];
  run incident_manager.alert[];
  turns boolean[];
  total integer;
  first integer := 1;
  past integer;
  fit boolean;
  decided record;
begin
  select array_agg(e.alert order by e.n), array_agg((e.alert).firing order by e.n),
         bool_and((e.alert).source is not null and (e.alert).title is not null and (e.alert).severity is not null
                  and incident_manager.alert_keeps_limits(e.alert))
  into alerts, turns, fit
  from (
    select e.n, row(
      coalesce(i.id, gen_random_uuid()), i.external_id, i.source, i.title, coalesce(i.description, ''), i.severity,
      coalesce(i.alert_type, 'UNKNOWN'), coalesce(i.labels, '{}'), coalesce(i.annotations, '{}'),
      coalesce(i.affected_services, '{}'), i.runbook_url, coalesce(i.firing, true),
      coalesce(i.fingerprint, incident_manager.alert_fingerprint(i.source, coalesce(i.alert_type, 'UNKNOWN'), i.title, coalesce(i.labels, '{}'))),
      clock_timestamp(), false, null, null)::incident_manager.alert as alert
    from jsonb_array_elements(input) with ordinality e(item, n),
         jsonb_to_record(e.item) i(id uuid, external_id text, source text, title text, description text, severity text,
                                   alert_type text, labels jsonb, annotations jsonb, affected_services text[],
                                   runbook_url text, firing boolean, fingerprint text) offset 0) e;
  total := coalesce(cardinality(alerts), 0);
  if total = 0 then
    return;
  end if;
  if not fit then
    -- what the table refuses for a null opens no incident before
    insert into incident_manager.alert
      select a.* from unnest(alerts) a where a.source is null or a.title is null or a.severity is null limit 1;
  end if;
  perform incident_manager.alert_lock(alerts);
  -- alerts before incidents, as a single row does, and in one order, whatever the order of the runs
  if true = any(turns) and false = any(turns) then
    perform 1 from incident_manager.alert t
      where t.firing and t.id in (
        select f.id from unnest(alerts) a join incident_manager.alert f
          on f.source = a.source and f.external_id = a.external_id and f.firing
        union all
        select f.id from unnest(alerts) a join incident_manager.alert f
          on f.source = a.source and f.fingerprint = a.fingerprint and f.firing
          where not a.firing and a.external_id is null)
      order by t.id for no key update;
  end if;
  -- runs of alerts that all fire, or all end something, are decided together
  while first <= total loop
    past := first + 1;
    while past <= total and turns[past] = turns[first] loop
      past := past + 1;
    end loop;
    run := alerts[first:past - 1];
    if turns[first] then
      select d.* into decided from incident_manager.alerts_fire(run) d;
    else
      select d.* into decided from incident_manager.alerts_end(run) d;
    end if;
    insert into incident_manager.alert
      (id, external_id, source, title, description, severity, alert_type, labels, annotations, affected_services,
       runbook_url, firing, fingerprint, received_at, deduplicated, incident_id, status)
    select a.id, a.external_id, a.source, a.title, a.description, a.severity, a.alert_type, a.labels, a.annotations,
           a.affected_services, a.runbook_url, a.firing, a.fingerprint, a.received_at,
           a.firing and a.became = 'DEDUPLICATED', a.decided_incident_id, a.became
    from rows from (unnest(run), unnest(decided.incidents), unnest(decided.statuses))
      a(id, external_id, source, title, description, severity, alert_type, labels, annotations, affected_services,
        runbook_url, firing, fingerprint, received_at, deduplicated, incident_id, status, decided_incident_id, became);
    return query
      select first + a.ordinality::integer - 1, a.id, a.decided_incident_id, a.became
      from rows from (unnest(run), unnest(decided.incidents), unnest(decided.statuses)) with ordinality
        a(id, external_id, source, title, description, severity, alert_type, labels, annotations, affected_services,
          runbook_url, firing, fingerprint, received_at, deduplicated, incident_id, status, decided_incident_id, became, ordinality);
    first := past;
  end loop;
end $$;
comment on function incident_manager.submit_alerts is
  'Stores an array of alerts in its order, opens, joins and resolves incidents, and tells what became of each.';

-- A direct writer's row. An id that is there already decides nothing, so that `on conflict do nothing` is safe.
create function incident_manager.alert_decide() returns trigger
language plpgsql volatile security definer set search_path = pg_catalog, incident_manager, pg_temp
set enable_seqscan = off set plan_cache_mode = force_generic_plan
as $$
declare
  decided record;
begin
  if exists (select 1 from incident_manager.alert a where a.id = new.id) then
    return new;
  end if;
  new.fingerprint := coalesce(new.fingerprint,
    incident_manager.alert_fingerprint(new.source, new.alert_type, new.title, new.labels));
  new.received_at := clock_timestamp();
  -- what the table would refuse must open no incident before
  if new.fingerprint is null or new.severity is null or not incident_manager.alert_keeps_limits(new) then
    return new;    -- has a null that the table refuses
  end if;
  if new.firing then
    select d.* into decided from incident_manager.alerts_fire(array[new]) d;
  else
    select d.* into decided from incident_manager.alerts_end(array[new]) d;
  end if;
  new.incident_id := decided.incidents[1];
  new.status := decided.statuses[1];
  new.deduplicated := new.firing and new.status = 'DEDUPLICATED';
  return new;
end $$;
create trigger zz_alert_decide before insert on incident_manager.alert for each row
  when (new.status is null) execute function incident_manager.alert_decide();

revoke all on function incident_manager.alert_fingerprint(text, text, text, jsonb), incident_manager.alert_lock(incident_manager.alert[]),
  incident_manager.alerts_fire(incident_manager.alert[]),
  incident_manager.alerts_end(incident_manager.alert[]),
  incident_manager.submit_alerts(jsonb), incident_manager.alert_decide() from public;
