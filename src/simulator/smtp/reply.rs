//! What a mail server says: a code, an enhanced code (RFC 3463) and a text.

use super::fault::SmtpStage;

/// One reply, of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SmtpReply {
    pub(super) code: u16,
    pub(super) enhanced: Option<String>,
    pub(super) text: String,
}

impl SmtpReply {
    pub(super) fn new(code: u16, enhanced: &str, text: impl Into<String>) -> Self {
        SmtpReply { code, enhanced: Some(enhanced.to_owned()), text: text.into() }
    }

    /// Appends the line. A server that does not offer enhanced codes sends none.
    pub(super) fn write(&self, out: &mut Vec<u8>, with_enhanced: bool) {
        out.extend_from_slice(self.code.to_string().as_bytes());
        out.push(b' ');
        if let Some(enhanced) = self.enhanced.as_deref().filter(|_| with_enhanced) {
            out.extend_from_slice(enhanced.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(self.text.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// A refusal that a scenario asks for: `[stage] code [enhanced code] [text]`, at `rcpt` unless it says where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::simulator) struct ScriptedReply {
    pub(super) stage: SmtpStage,
    pub(super) reply: SmtpReply,
}

impl ScriptedReply {
    pub(in crate::simulator) fn parse(code: &str) -> Result<ScriptedReply, String> {
        const FORM: &str =
            "expected `[stage] code [enhanced code] [text]` as in `550 5.1.1 No such user` or `dot 452 4.3.1`";
        if code.chars().any(char::is_control) {
            return Err(FORM.to_owned());
        }
        let mut rest = code.trim();
        let mut stage = SmtpStage::Rcpt;
        if let Some((word, after)) = rest.split_once(' ')
            && let Some(named) = SmtpStage::parse(word)
        {
            (stage, rest) = (named, after.trim_start());
        }
        let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let number = number.parse().ok().filter(|number| (400..600).contains(number)).ok_or(FORM)?;
        let (word, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let (enhanced, text) = match is_enhanced(word) {
            true if word.as_bytes()[0] != code_class(number) => {
                return Err("the enhanced code is of another class than the code".to_owned());
            }
            true => (Some(word.to_owned()), text),
            false => (None, rest),
        };
        let text = if text.is_empty() { "Asked for by the scenario" } else { text };
        Ok(ScriptedReply { stage, reply: SmtpReply { code: number, enhanced, text: text.to_owned() } })
    }

    pub(in crate::simulator) fn stage(&self) -> SmtpStage {
        self.stage
    }
}

fn code_class(code: u16) -> u8 {
    if code < 500 { b'4' } else { b'5' }
}

/// `5.1.10`.
fn is_enhanced(word: &str) -> bool {
    let parts: Vec<&str> = word.split('.').collect();
    let digits = |part: &&str| !part.is_empty() && part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
    parts.len() == 3 && matches!(parts[0], "2" | "4" | "5") && parts.iter().all(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scripted_reply_is_read_in_all_its_forms() {
        let parse = |code| ScriptedReply::parse(code).expect(code);
        let reply = parse("550 5.1.1 No such user");
        assert_eq!((reply.stage, reply.reply), (SmtpStage::Rcpt, SmtpReply::new(550, "5.1.1", "No such user")));
        let reply = parse("dot 452");
        assert_eq!((reply.stage, reply.reply.code, reply.reply.enhanced), (SmtpStage::Dot, 452, None));
        assert_eq!(parse("421 Too busy").reply.text, "Too busy");
        for wrong in ["", "250 2.0.0 Ok", "lunch 450", "550 4.2.1 x", "550 5.1.1 a\r\nb"] {
            assert!(ScriptedReply::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn enhanced_codes_are_left_out_where_they_are_not_offered() {
        let mut out = Vec::new();
        SmtpReply::new(250, "2.1.0", "Ok").write(&mut out, true);
        SmtpReply::new(250, "2.1.0", "Ok").write(&mut out, false);
        assert_eq!(out, b"250 2.1.0 Ok\r\n250 Ok\r\n");
    }
}
