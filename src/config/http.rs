//! `[http]`: the API's listener and its limits.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    pub listen: SocketAddr,
    /// Where providers reach the API from outside, for their receipts: `https://notify.example.com`.
    #[serde(default)]
    pub public_url: Option<String>,
    pub body_limit_bytes: usize,
    /// A client that takes longer than this for its headers is dropped.
    pub header_time_limit_ms: u64,
    pub request_time_limit_ms: u64,
    /// How long a stop waits for requests and sends that have begun.
    pub shutdown_grace_ms: u64,
}
