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
language plpgsql volatile set search_path = pg_catalog, incident_manager, pg_temp
as $$
declare
  lock integer;
begin
  for lock in
    select distinct hashtextextended(key, 0)::bit(10)::integer from (
      select 'f' || a.source || chr(1) || a.fingerprint as key from unnest(alerts) a
      union all
      select 'e' || a.source || chr(1) || a.external_id from unnest(alerts) a where a.external_id is not null) keys
    order by 1
  loop
    perform pg_advisory_xact_lock(hashtext('incident_manager.alert'), lock);
  end loop;
end $$;

-- Decides on firing alerts: for each, by its ordinal, its incident and status. Repeats of an external id that fires already,
-- here or in the table, are IGNORED: they name the incident of the one that fires, and change nothing.
create function incident_manager.alerts_fire(alerts incident_manager.alert[])
returns table (ordinal bigint, incident_id uuid, status text)
language plpgsql volatile set search_path = pg_catalog, incident_manager, pg_temp
as $$
declare
  repeats bigint[];
  repeated uuid[];
  opened uuid[] := '{}';
  found record;
begin
  -- What fires already is locked, so that who wants to end it waits. What somebody is ending now counts as over: to wait
  -- for that one, who may be waiting for an incident that is locked here, would be a deadlock.
  select array_agg(a.ordinality), array_agg(twin.incident_id) into repeats, repeated
  from unnest(alerts) with ordinality a
  cross join lateral (select t.incident_id from incident_manager.alert t
                      where t.source = a.source and t.external_id = a.external_id and t.firing
                      limit 1 for share skip locked) twin;

  -- Once, as a rule. Again where another writer has made, resolved or closed an incident meanwhile, which a new statement
  -- sees.
  loop
    with a as (
      select n.*, row_number() over (partition by n.source, n.external_id order by n.ordinality) as repeat
      from unnest(alerts) with ordinality n),
    wanted as (
      select distinct on (a.source, a.fingerprint) a.* from a
      where (a.external_id is null or a.repeat = 1) and a.ordinality <> all(coalesce(repeats, '{}'))
      order by a.source, a.fingerprint, a.ordinality),
    joined as (
      select i.id, i.source, i.fingerprint from incident_manager.incident i
      where (i.source, i.fingerprint) in (select w.source, w.fingerprint from wanted w)
        and i.state not in ('RESOLVED', 'CLOSED')
      order by i.id for no key update),
    made as (
      insert into incident_manager.incident
        (title, description, severity, incident_type, source, affected_resources, labels, fingerprint, opened_by_alert)
      select w.title, w.description, w.severity, w.alert_type, w.source, w.affected_services, w.labels, w.fingerprint, true
      from wanted w
      where not exists (select 1 from joined j where j.source = w.source and j.fingerprint = w.fingerprint)
      order by w.ordinality
      on conflict (source, fingerprint) where state not in ('RESOLVED', 'CLOSED') do nothing
      returning id)
    select (select count(*) from wanted) = (select count(*) from joined) + (select count(*) from made) as complete,
           (select array_agg(made.id) from made) as made
    into found;
    opened := opened || coalesce(found.made, '{}');
    exit when found.complete;
  end loop;

  return query
    with a as (
      select n.*, row_number() over (partition by n.source, n.external_id order by n.ordinality) as repeat
      from unnest(alerts) with ordinality n),
    own as (
      select a.*, i.id as active, row_number() over (partition by i.id order by a.ordinality) as turn
      from a join incident_manager.incident i
        on i.source = a.source and i.fingerprint = a.fingerprint and i.state not in ('RESOLVED', 'CLOSED')
      where (a.external_id is null or a.repeat = 1) and a.ordinality <> all(coalesce(repeats, '{}'))),
    -- repeats too: what came while the incident that was joined was waited for
    late as (
      select own.ordinality, twin.incident_id as named
      from own
      cross join lateral (select t.incident_id from incident_manager.alert t
                          where t.source = own.source and t.external_id = own.external_id and t.firing
                          limit 1 for share skip locked) twin
      where own.active <> all(opened)),
    twin as (
      select * from unnest(repeats, repeated) early(ordinality, named)
      union all
      select * from late)
    select a.ordinality,
           coalesce(twin.named, own.active, first_twin.named, first.active),
           case when twin.ordinality is not null or own.active is null then 'IGNORED'
                when own.turn = 1 and own.active = any(opened) then 'CREATED'
                else 'DEDUPLICATED' end
    from a
    left join twin on twin.ordinality = a.ordinality
    left join own on own.ordinality = a.ordinality
    left join own first on first.source = a.source and first.external_id = a.external_id
    left join twin first_twin on first_twin.ordinality = first.ordinality
    order by a.ordinality;
end $$;

-- Decides on alerts that say what is over. The last that ends an incident is RESOLVED; while others of it fire, or where it
-- was over already or not opened by alerts, DEDUPLICATED; where nothing fired, IGNORED.
create function incident_manager.alerts_end(alerts incident_manager.alert[])
returns table (ordinal bigint, incident_id uuid, status text)
language plpgsql volatile set search_path = pg_catalog, incident_manager, pg_temp
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

  return query
    with hit as (
      select distinct h.ordinality, h.named, h.named = any(resolved)
             and h.ordinality = max(h.ordinality) over (partition by h.named) as last_word
      from unnest(enders, ended) h(ordinality, named)),
    best as (
      select distinct on (hit.ordinality) hit.* from hit
      order by hit.ordinality, hit.last_word desc nulls last, hit.named)
    select a.ordinality, best.named,
           case when best.last_word then 'RESOLVED' when best.named is not null then 'DEDUPLICATED' else 'IGNORED' end
    from unnest(alerts) with ordinality a
    left join best on best.ordinality = a.ordinality
    order by a.ordinality;
end $$;

-- Stores alerts, as if they had come one after the other in the array's order, and tells what became of each. The elements'
-- members are the table's columns; what is missing or null gets the column's default.
create function incident_manager.submit_alerts(input jsonb)
returns table (ordinal integer, alert_id uuid, incident_id uuid, status text)
language plpgsql volatile security definer set search_path = pg_catalog, incident_manager, pg_temp
as $$
#variable_conflict use_column
declare
  alerts incident_manager.alert[];
  run incident_manager.alert[];
  turns boolean[];
  total integer;
  first integer := 1;
  past integer;
begin
  select array_agg(row(
      coalesce(i.id, gen_random_uuid()), i.external_id, i.source, i.title, coalesce(i.description, ''), i.severity,
      coalesce(i.alert_type, 'UNKNOWN'), coalesce(i.labels, '{}'), coalesce(i.annotations, '{}'),
      coalesce(i.affected_services, '{}'), i.runbook_url, coalesce(i.firing, true),
      coalesce(i.fingerprint, incident_manager.alert_fingerprint(i.source, coalesce(i.alert_type, 'UNKNOWN'), i.title, coalesce(i.labels, '{}'))),
      clock_timestamp(), false, null, null)::incident_manager.alert order by e.n)
  into alerts
  from jsonb_array_elements(input) with ordinality e(item, n),
       jsonb_to_record(e.item) i(id uuid, external_id text, source text, title text, description text, severity text,
                                 alert_type text, labels jsonb, annotations jsonb, affected_services text[],
                                 runbook_url text, firing boolean, fingerprint text);
  total := coalesce(cardinality(alerts), 0);
  if total = 0 then
    return;
  end if;
  -- what the table would refuse must open no incident before
  insert into incident_manager.alert
    select a.* from unnest(alerts) a
    where a.source is null or a.title is null or a.severity is null or not incident_manager.alert_keeps_limits(a) limit 1;
  select array_agg(a.firing order by a.ordinality) into turns from unnest(alerts) with ordinality a;
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
    return query
      with decided as (
        select d.* from incident_manager.alerts_fire(run) d where turns[first]
        union all
        select d.* from incident_manager.alerts_end(run) d where not turns[first]),
      stored as (
        insert into incident_manager.alert
          (id, external_id, source, title, description, severity, alert_type, labels, annotations, affected_services,
           runbook_url, firing, fingerprint, received_at, deduplicated, incident_id, status)
        select a.id, a.external_id, a.source, a.title, a.description, a.severity, a.alert_type, a.labels, a.annotations,
               a.affected_services, a.runbook_url, a.firing, a.fingerprint, a.received_at,
               a.firing and d.status = 'DEDUPLICATED', d.incident_id, d.status
        from unnest(run) with ordinality a
        join decided d on d.ordinal = a.ordinality
        order by a.ordinality)
      select first + d.ordinal::integer - 1, run[d.ordinal].id, d.incident_id, d.status from decided d order by 1;
    first := past;
  end loop;
end $$;
comment on function incident_manager.submit_alerts is
  'Stores an array of alerts in its order, opens, joins and resolves incidents, and tells what became of each.';

-- A direct writer's row. An id that is there already decides nothing, so that `on conflict do nothing` is safe.
create function incident_manager.alert_decide() returns trigger
language plpgsql volatile security definer set search_path = pg_catalog, incident_manager, pg_temp
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
  new.incident_id := decided.incident_id;
  new.status := decided.status;
  new.deduplicated := new.firing and decided.status = 'DEDUPLICATED';
  return new;
end $$;
create trigger zz_alert_decide before insert on incident_manager.alert for each row
  when (new.status is null) execute function incident_manager.alert_decide();

revoke all on function incident_manager.alert_fingerprint(text, text, text, jsonb), incident_manager.alert_lock(incident_manager.alert[]),
  incident_manager.alerts_fire(incident_manager.alert[]),
  incident_manager.alerts_end(incident_manager.alert[]),
  incident_manager.submit_alerts(jsonb), incident_manager.alert_decide() from public;
