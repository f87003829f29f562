//! How much one template may be, use and make.

use crate::config::templates::TemplateSettings;

/// Limits that an installation may move; the rest are below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The source of all parts of one template together.
    pub source_bytes: usize,
    /// Work of one rendering: an instruction costs one, and so do 64 bytes made.
    pub fuel: u64,
    /// One rendered part, counted while it is written.
    pub output_bytes: usize,
}

impl From<&TemplateSettings> for Limits {
    fn from(settings: &TemplateSettings) -> Self {
        let TemplateSettings { fuel, output_bytes, source_bytes } = *settings;
        Limits { source_bytes, fuel, output_bytes }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits { source_bytes: 64 * 1024, fuel: 50_000, output_bytes: 64 * 1024 }
    }
}

/// Files that go along with one email.
pub(super) const ATTACHMENTS: usize = 20;

/// All files within one template together. What an account takes may be less.
pub(super) const ATTACHED_BYTES: usize = 10 * 1024 * 1024;

/// Tokens of code within one `{{ … }}` or `{% … %}`. Expressions nest at most this deep: the parser and the compiler
/// recurse over them, and overflowed a 2 MiB stack from about 1,500 on (unoptimised).
pub(super) const TAG_TOKENS: usize = 200;

/// Tokens of code within one part. Every `set` can wrap the value before it once more, and a chain of `elif` nests as
/// deep as it is long; both overflowed a 2 MiB stack from about 4,000 tokens on (unoptimised).
pub(super) const PART_TOKENS: usize = 2_000;

/// `+` within one part. Between lists it makes a longer list without asking for fuel, so that sixty of them, each adding
/// a list to itself, would never end.
pub(super) const ADDITIONS: usize = 8;

/// `if`, `for` and `set` blocks within each other.
pub(super) const BLOCK_DEPTH: usize = 16;

/// What the engine may recurse while rendering. Loops are all that is left to nest, and [`BLOCK_DEPTH`] bounds them.
pub(super) const RECURSION: usize = 50;

/// Compiled templates kept. Beyond it the one compiled longest ago goes.
pub(super) const COMPILED_TEMPLATES: usize = 1_024;

/// WhatsApp's longest text, in characters.
pub(super) const WHATSAPP_TEXT_CHARS: usize = 4_096;

/// WhatsApp's longest header parameter, in characters.
pub(super) const WHATSAPP_HEADER_CHARS: usize = 60;

/// WhatsApp's longest body of an approved template with its parameters in it, in characters; none of them can be longer.
pub(super) const WHATSAPP_BODY_CHARS: usize = 1_024;

/// Telegram's longest text, in UTF-16 units after its entities were read.
pub(super) const TELEGRAM_TEXT_UTF16: usize = 4_096;

/// An e-mail's longest line, and so its subject's (RFC 5322 §2.1.1).
pub(super) const SUBJECT_BYTES: usize = 998;

/// The longest SMS that Twilio takes, in characters.
pub(super) const SMS_CHARS: usize = 1_600;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Settings, Sources};

    #[test]
    fn the_settings_default_to_the_engines_own_limits() {
        let settings = Settings::load(&Sources::default()).expect("the defaults are fine");
        assert_eq!(Limits::from(&settings.templates), Limits::default());
    }
}
