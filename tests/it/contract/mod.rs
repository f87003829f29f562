//! What every implementation of a seam promises, one named test per promise.

mod ledger;
mod verify;
