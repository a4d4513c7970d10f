//! Settings of how fast requests and alerts may come.

use std::num::NonZeroU32;

use clap::Args;

/// How fast requests and alerts may come.
#[derive(Debug, Clone, Copy, Args)]
pub struct RatesConfig {
    /// Requests, and operations on a WebSocket, that one credential may send in a second, and at once after a pause
    #[arg(long, env = "INCIDENT_MANAGER_MAX_REQUESTS_PER_SECOND", default_value_t = DEFAULT, value_name = "COUNT")]
    pub max_requests_per_second: NonZeroU32,

    /// The same of one client address, of an IPv6 network of 64 bits [default: no limit]
    #[arg(long, env = "INCIDENT_MANAGER_MAX_REQUESTS_PER_SECOND_PER_ADDRESS", value_name = "COUNT")]
    pub max_requests_per_second_per_address: Option<NonZeroU32>,

    /// Alerts that one credential may submit in a second, and at once after a pause, then 1,000 at least
    #[arg(long, env = "INCIDENT_MANAGER_MAX_ALERTS_PER_SECOND", default_value_t = DEFAULT, value_name = "COUNT")]
    pub max_alerts_per_second: NonZeroU32,

    /// The same of one client address, of an IPv6 network of 64 bits [default: no limit]
    #[arg(long, env = "INCIDENT_MANAGER_MAX_ALERTS_PER_SECOND_PER_ADDRESS", value_name = "COUNT")]
    pub max_alerts_per_second_per_address: Option<NonZeroU32>,
}

/// More than one program needs that is in order, and less than what keeps others waiting.
const DEFAULT: NonZeroU32 = NonZeroU32::new(5000).unwrap();
