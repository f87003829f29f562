//! What every implementation of a seam promises, one named test per promise.

mod batches;
mod dead_letters;
mod email;
mod http_client;
mod ledger;
mod moves;
mod provider;
mod quarantine;
mod queue;
mod record_sources;
mod records;
mod verify;
