//! The faults, each with its proof.

mod clients;
mod copies;
mod database;
mod failover;
mod listener;
mod network;
mod pooler;
mod processes;

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::{Outcome, Stage};

/// A fault, and what shows that it costs no event.
#[derive(Clone, Copy)]
pub struct Proof {
    pub name: &'static str,
    pub run: fn(Arc<Stage>) -> BoxFuture<'static, Outcome>,
}

macro_rules! proofs {
    ($($module:ident: $($name:ident),+;)+) => {
        pub const PROOFS: &[Proof] = &[$($(Proof {
            name: stringify!($name),
            run: |stage| async move { $module::$name(&stage).await }.boxed(),
        }),+),+];
    };
}

// the longest first, so that those that run side by side end together
proofs! {
    clients: clients_cut_at_random_points, a_client_that_reads_slowly;
    listener: a_stopped_listener_over_tcp, a_stopped_listener_over_a_unix_socket;
    processes:
        a_replica_killed,
        the_sequencing_replica_killed,
        a_replica_stopped_for_a_while,
        the_sequencing_replica_stopped_for_a_while,
        a_replica_added_and_removed,
        a_rolling_restart,
        a_second_signal_in_a_drain,
        an_upgrade_side_by_side;
    database:
        all_connections_terminated,
        postgresql_stopped_at_once_and_started,
        a_transaction_open_all_the_while,
        partitions_of_outbox_and_log_rolling_over,
        retention_passing_a_client_that_lags;
    network: the_network_to_the_database_cut, the_network_to_the_database_stalled, a_network_with_delays;
    copies: a_dump_restored_into_a_new_database, a_database_copied_as_a_template;
    failover: a_failover_that_loses_nothing, a_failover_that_loses_events;
    pooler: pgbouncer_by_sessions, pgbouncer_by_transactions;
}
