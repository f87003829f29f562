//! Templates: what their authors wrote plus a notification's data becomes what its channel sends.
//!
//! Promises: a template that [`check`](Engine::check) accepted and one that it never saw both end in bounded time and
//! memory, whoever wrote them; a value is data and never code; a value in HTML is text and never markup, in a subject one
//! line, in WhatsApp's text no formatting; a missing value stops the message instead of leaving a hole in it, and the
//! error says which and where, in what the author wrote.
//! The language is minijinja's without what can run away (`grammar`). Versions are immutable, so compiled templates are
//! kept and read without a lock. Which template and which data are `delivery`'s to say.

mod approved_text;
mod attachments;
mod cache;
mod check;
mod compiled;
mod data;
mod engine;
mod error;
mod fill_in;
mod filters;
mod given;
mod grammar;
mod html;
mod limits;
mod output;
mod parts;
mod position;
mod preview;
#[cfg(test)]
mod tests;
mod uses;
mod warnings;
mod whatsapp;

pub use check::Checked;
pub use data::Reader;
pub use engine::Engine;
pub use error::{Place, RenderError, TemplateProblem, TemplateProblems};
pub use limits::Limits;
pub use output::without_controls;
pub use preview::{ChannelPreview, Length, LengthUnit, Preview};
pub use warnings::{FieldUse, unknown_fields};
