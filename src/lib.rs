//! Vestnik: notifications for CRM teams, with books that balance.
//!
//! The way of a notification, which is also the order to read in: **accept → relay → work → render → send → record**
//! (`delivery`). Dependencies point one way: `cli → app → {http, delivery} → {queue, store, limits, channels,
//! templates} → domain`.

pub mod app;
pub mod channels;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod domain;
pub mod http;
pub mod import;
pub mod lifecycle;
pub mod limits;
pub mod queue;
pub mod records;
pub mod server_url;
pub mod simulator;
pub mod store;
pub mod telemetry;
pub mod templates;
pub mod upkeep;
