//! A replica that is stopped while its connection for notifications has more to take than fits into the buffers. Until its
//! backend is gone, the server's queue of notifications cannot be emptied, and would fill up.

use rustix::process::Signal;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::scene::{Scene, Setting};
use crate::waiting::eventually;
use crate::{Outcome, Stage};

async fn queue_is_free_again(scene: Scene) -> Outcome {
    let (database, stopped) = (&scene.database, &scene.replicas[0]);
    let usage = "select pg_notification_queue_usage()";
    stopped.signal(Signal::STOP);
    let began = Instant::now();
    database
        .execute("select pg_notify('incident_manager_probe', rpad(n::text, 7900, '.')) from generate_series(1, 2000) n")
        .await;
    let used = database.value::<f64>(usage).await;
    assert!(used > 0.0, "the listener holds nothing up");
    eventually("the queue is empty again", || async { database.value::<f64>(usage).await == 0.0 }).await;
    let took = began.elapsed().as_secs_f64();
    scene.writers.commit(20).await;
    stopped.signal(Signal::CONT);
    scene.goes_on().await;
    Outcome::Shown { counts: scene.settle().await, note: format!("the queue was empty again after {took:.1} s") }
}

/// There is no other replica: the server's own time-out ends the backend.
pub async fn a_stopped_listener_over_tcp(_: &Stage) -> Outcome {
    let cluster = Cluster::start().await;
    queue_is_free_again(Scene::on(&cluster, Setting { replicas: 1, ..Setting::default() }).await).await
}

/// There is no such time-out: the other replica ends it.
pub async fn a_stopped_listener_over_a_unix_socket(_: &Stage) -> Outcome {
    let cluster = Cluster::start().await;
    let database = cluster.database().await;
    let url = cluster.socket_url(&database.name);
    queue_is_free_again(Scene::of(database, url, Setting::default()).await).await
}
