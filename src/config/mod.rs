//! Settings: compiled defaults, then `vestnik.toml`, then the environment, then flags.

pub mod limits;
pub mod telegram;
pub mod whatsapp;
