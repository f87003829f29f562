//! The ledger's promises, on SQLite and PostgreSQL alike.

mod accepting;
mod accounts;
mod claiming;
mod commits;
mod idempotency;
mod lookups;
mod migrations;
mod neighbours;
mod recording;
mod recovering;
mod sequences;
mod subjects;
mod taking;
