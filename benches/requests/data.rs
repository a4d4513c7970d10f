//! Years of incidents, made set-based and without the events of all that.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Executor as _, PgConnection};

/// Rows first and indexes after them: that takes a fraction of the time.
const DROP_INDEXES: &str = "
    create temporary table index_of as
      select indexname as name, indexdef as definition from pg_indexes
      where schemaname = 'incident_manager' and tablename in ('incident', 'alert', 'comment', 'timeline', 'incident_playbook')
        and indexname not like '%\\_pkey';
    do $$ declare name text; begin
      for name in select i.name from index_of i loop execute format('drop index incident_manager.%I', name); end loop;
    end $$";

const MAKE_INDEXES: &str = "
    do $$ declare definition text; begin
      for definition in select i.definition from index_of i loop execute definition; end loop;
    end $$";

/// Of 2025, most closed, of a thousand sources; causes come again. Each with five alerts, a comment, three entries in its
/// timeline and a playbook; every twentieth is linked with the next.
fn rows(incidents: usize) -> [String; 6] {
    [
        r#"insert into incident_manager.playbook (name, steps)
           select 'Playbook ' || n, '[{"title": "Look", "instructions": "At the dashboard."}]' from generate_series(1, 100) n"#
            .to_owned(),
        format!(
            "insert into incident_manager.incident
               (id, title, description, severity, state, incident_type, source, assigned_to, affected_resources, labels,
                fingerprint, created_at, updated_at, opened_by_alert)
             select md5('incident' || n)::uuid, 'Latency of model ' || n % 50 || ' is above its objective',
                    'p99 of 4.2 s over five minutes, the objective is 2 s', 'P' || n % 5,
                    case when n > {incidents} - 2000 then 'INVESTIGATING' else 'CLOSED' end,
                    case when n % 50 = 0 then 'SECURITY' else 'PERFORMANCE' end, 'source-' || n % 1000,
                    case when n % 10 = 0 then 'person-' || n % 70 end, array['model-' || n % 50, 'gateway-' || n % 20],
                    jsonb_build_object('service', 'service-' || n % 40, 'region', 'eu-' || n % 3),
                    'cause-' || n % ({incidents} / 5), at, at + interval '1 hour', true
             from generate_series(1, {incidents}) n,
                  lateral (select '2025-01-01Z'::timestamptz + interval '364 days' * n / {incidents}) t(at)"
        ),
        "insert into incident_manager.alert
           (source, title, severity, alert_type, labels, affected_services, fingerprint, received_at, firing, incident_id,
            status, deduplicated)
         select i.source, i.title, i.severity, i.incident_type, i.labels, i.affected_resources, i.fingerprint,
                i.created_at + interval '1 minute' * n, i.state <> 'CLOSED', i.id,
                case n when 1 then 'CREATED' else 'DEDUPLICATED' end, n > 1
         from incident_manager.incident i, generate_series(1, 5) n"
            .to_owned(),
        "insert into incident_manager.comment (incident_id, author, body, created_at)
         select id, 'ada', 'A new version of the model was rolled out just before.', created_at + interval '10 minutes'
         from incident_manager.incident"
            .to_owned(),
        "insert into incident_manager.timeline (incident_id, pos, at, update_type, actor, summary, changed_fields)
         select i.id, -3 + n, i.created_at + interval '1 minute' * n, case n when 1 then 'CREATED' else 'STATE_CHANGED' end,
                'ada', 'state changed from DETECTED to TRIAGED', array['state', 'acknowledgedAt']
         from incident_manager.incident i, generate_series(4, 6) n;
         insert into incident_manager.incident_playbook (incident_id, playbook_id)
         select i.id, p.ids[1 + abs(hashtext(i.id::text)) % 100]
         from incident_manager.incident i, (select array_agg(id) from incident_manager.playbook) p(ids)"
            .to_owned(),
        format!(
            "insert into incident_manager.incident_link (a, b)
             select least(a, b), greatest(a, b) from generate_series(1, {incidents} - 1, 20) n,
                    lateral (select md5('incident' || n)::uuid, md5('incident' || n + 1)::uuid) pair(a, b)"
        ),
    ]
}

/// Fills an empty database; says with how much.
pub async fn fill(connection: &mut PgConnection, incidents: usize) -> String {
    connection.execute("set session_replication_role = replica; set maintenance_work_mem = '256MB'").await.unwrap();
    connection.execute(DROP_INDEXES).await.unwrap();
    for statement in rows(incidents) {
        connection.execute(AssertSqlSafe(statement)).await.unwrap();
    }
    connection.execute(MAKE_INDEXES).await.unwrap();
    connection.execute("set session_replication_role = origin").await.unwrap();
    for statement in ["vacuum analyze", "checkpoint"] {
        connection.execute(statement).await.unwrap();
    }
    sqlx::query_scalar(
        "select (select count(*) from incident_manager.incident) || ' incidents, '
             || (select count(*) from incident_manager.alert) || ' alerts, '
             || pg_size_pretty(pg_database_size(current_database()))",
    )
    .fetch_one(connection)
    .await
    .unwrap()
}

/// How many alerts there are, as far as requests have brought them.
pub async fn stored(connection: &mut PgConnection) -> usize {
    let count: i64 =
        sqlx::query_scalar("select count(*) from incident_manager.alert where received_at >= '2026-01-01Z'")
            .fetch_one(connection)
            .await
            .unwrap();
    usize::try_from(count).unwrap()
}

/// Waits until every event has its position; for how long.
pub async fn caught_up(connection: &mut PgConnection) -> Duration {
    let began = Instant::now();
    loop {
        let missing: bool = sqlx::query_scalar(
            "select (select max(seq) from incident_manager.event_outbox)
                  > (select seen_seq from incident_manager.event_batch order by n desc limit 1)",
        )
        .fetch_one(&mut *connection)
        .await
        .unwrap();
        if !missing {
            return began.elapsed();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn about(connection: &mut PgConnection) -> String {
    let (version, fsync): (String, String) =
        sqlx::query_as("select version(), current_setting('fsync')").fetch_one(connection).await.unwrap();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{version}, fsync {fsync}; server, service and load share {cores} cores")
}
