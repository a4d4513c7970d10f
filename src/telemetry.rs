//! What the service says of itself: the log, to stderr, and the metrics, for `GET /metrics`.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::{LogConfig, LogFormat};

/// How often what histograms have taken in is folded into their buckets; between two renderings it takes memory.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Bounds of the buckets of metrics in seconds: from a warm look-up to the longest statement.
const SECONDS_BUCKETS: [f64; 12] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("cannot read the log filter")]
    ParseFilter(#[source] ParseError),
    #[error("cannot install the log")]
    InstallLog(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot describe the metrics to the recorder")]
    InstallMetrics,
}

/// Sends the log to stderr, and panics with it; once in a process.
pub fn init_log(config: &LogConfig) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder().parse(&config.log).map_err(TelemetryError::ParseFilter)?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => subscriber.with_ansi(config.log_colour()).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    }
    .map_err(TelemetryError::InstallLog)?;
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        error!(message = panic.payload_as_str().unwrap_or("(no text)"), location, "panic");
    }));
    Ok(())
}

/// The metrics of this process. However many services run in it, they have one recorder: it is installed by the
/// first call.
pub fn metrics() -> Result<Metrics, TelemetryError> {
    static INSTALLED: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        let suffix = Matcher::Suffix("_seconds".to_owned());
        let recorder = PrometheusBuilder::new().set_buckets_for_metric(suffix, &SECONDS_BUCKETS).ok()?.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).ok()?;
        metric::describe_all();
        Some(handle)
    });
    installed.clone().map(Metrics).ok_or(TelemetryError::InstallMetrics)
}

/// Shows the metrics that the process has recorded.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// In Prometheus' text format, version 0.0.4.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Keeps histograms from growing between two renderings.
    pub async fn upkeep(self) {
        loop {
            tokio::time::sleep(UPKEEP_INTERVAL).await;
            self.0.run_upkeep();
        }
    }
}

/// Every metric: its name, kind, unit and meaning.
pub mod metric {
    use metrics::{Unit, describe_counter, describe_gauge};

    macro_rules! metrics {
        ($($constant:ident = $describe:ident $name:literal $unit:ident: $meaning:literal;)*) => {
            $(#[doc = $meaning] pub const $constant: &str = concat!("incident_manager_", $name);)*

            /// Names of all metrics with their meaning, as they are documented.
            pub const ALL: &[(&str, &str)] = &[$(($constant, $meaning)),*];

            pub(super) fn describe_all() {
                $($describe!($constant, Unit::$unit, $meaning);)*
            }
        };
    }

    metrics! {
        LOG_HEAD = describe_gauge "log_head" Count: "Newest position of the event log that this process has seen";
        HUB_POSITION = describe_gauge "hub_position" Count: "Position up to which this process has read the event log";
        SEQUENCER_CALLS = describe_counter "sequencer_calls_total" Count: "Calls of the sequencer by this process";
        SEQUENCED_EVENTS = describe_counter "sequenced_events_total" Count: "Events that this process moved to the event log";
        DOORBELL_ON = describe_gauge "doorbell_on" Count: "1 while writers ring the doorbell at each commit, 0 while the sequencer polls";
        LISTENING = describe_gauge "listening" Count: "1 while the connection for notifications is up, 0 while it is not";
        LISTENER_RECONNECTS = describe_counter "listener_reconnects_total" Count: "Times that the connection for notifications was made anew";
        UNREADABLE_EVENTS = describe_counter "unreadable_events_total" Count: "Events of the log that could not be read, of which no subscriber was told";
        UNREADABLE_VALUES = describe_counter "unreadable_values_total" Count: "JSON values of rows that could not be read, and were shown as {}";
        MAINTENANCE_OVERDUE = describe_gauge "maintenance_overdue" Count: "1 while the event log's maintenance waits for a lock that others hold";
        SUBSCRIPTIONS = describe_gauge "subscriptions" Count: "Subscriptions that are open";
        CONNECTIONS = describe_gauge "connections" Count: "WebSocket connections and event streams that are open";
        DELIVERIES = describe_counter "deliveries_total" Count: "Results that were handed to subscribers' connections";
        HELD_BACK = describe_counter "subscriptions_held_back_total" Count: "Times that a subscription had been sent as many events as it may be for then";
        EXECUTIONS = describe_counter "executions_total" Count: "Executions of an event for all who ask the same, live and for those who catch up";
        REPLAYS = describe_counter "replays_total" Count: "Subscriptions that began behind a cursor";
        REPLAY_BLOCKS = describe_counter "replay_blocks_total" Count: "Stretches of the log that were executed for those who catch up, each for all of them";
        REPLAY_READS = describe_counter "replay_reads_total" Count: "Reads for those stretches, by where from: memory, or the log in the database";
        REPLAY_BYTES = describe_gauge "replay_bytes" Bytes: "Results that are held for those who catch up";
        CURSORS_EXPIRED = describe_counter "cursors_expired_total" Count: "Subscriptions that were ended or refused because their cursor was gone";
        ALERTS_STORED = describe_counter "alerts_stored_total" Count: "Alerts that requests brought and that were stored";
        ALERT_CALLS = describe_counter "alert_calls_total" Count: "Calls of the database that stored them; alerts that come at the same time share one";
        ALERTS_WAITING = describe_gauge "alerts_waiting" Count: "Alerts that wait to be stored, or are being stored";
        JWKS_REACHABLE = describe_gauge "jwks_reachable" Count: "1 while the published keys of tokens can be fetched, 0 while those that were fetched before have to do";
        REQUESTS = describe_counter "requests_total" Count: "Requests by route, method and status";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorder_serves_every_service_of_the_process() {
        metrics().unwrap();
        metrics::counter!(metric::LISTENER_RECONNECTS).increment(2);
        let shown = metrics().unwrap().render();
        assert!(shown.contains("# TYPE incident_manager_listener_reconnects_total counter"), "{shown}");
        assert!(
            shown.contains(
                "# HELP incident_manager_listener_reconnects_total Times that the connection for notifications was made anew"
            ),
            "{shown}"
        );
        assert!(shown.lines().any(|line| line == "incident_manager_listener_reconnects_total 2"), "{shown}");
    }

    #[test]
    fn durations_are_shown_in_buckets() {
        let metrics = metrics().unwrap();
        metrics::histogram!("test_seconds").record(0.004);
        let shown = metrics.render();
        assert!(shown.contains(r#"test_seconds_bucket{le="0.005"} 1"#), "{shown}");
        assert!(shown.contains(r#"test_seconds_bucket{le="0.0025"} 0"#), "{shown}");
    }
}
