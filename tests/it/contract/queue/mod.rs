//! What every queue promises, over both; and what the broker adds, with a broker that is broken on purpose.

mod broker;
mod ingress;
mod promises;
mod setup;
mod stand;
mod tls;
