//! What a client says, a line at a time.

/// One command, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// EHLO (true) or HELO, with what the client calls itself.
    Hello {
        extended: bool,
        client: String,
    },
    StartTls,
    Auth {
        mechanism: String,
        initial: Option<String>,
    },
    Mail(Path),
    Rcpt(Path),
    Data,
    Rset,
    Noop,
    Quit,
    Vrfy,
    /// A known command with something wrong about it.
    Malformed(&'static str),
    Unknown,
}

/// An address in angle brackets and the parameters behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Path {
    /// Empty for the sender of bounces.
    pub(super) address: String,
    /// Names in capitals.
    pub(super) parameters: Vec<(String, Option<String>)>,
}

/// An address may be this long (RFC 5321 §4.5.3.1.3), without its brackets.
const ADDRESS_LIMIT_BYTES: usize = 254;

impl Command {
    /// `line` comes without its end.
    pub(super) fn parse(line: &str) -> Command {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" | "HELO" if rest.is_empty() => Command::Malformed("a name is missing"),
            verb @ ("EHLO" | "HELO") => Command::Hello { extended: verb == "EHLO", client: rest.to_owned() },
            "STARTTLS" if rest.is_empty() => Command::StartTls,
            "DATA" if rest.is_empty() => Command::Data,
            "RSET" if rest.is_empty() => Command::Rset,
            "QUIT" if rest.is_empty() => Command::Quit,
            "STARTTLS" | "DATA" | "RSET" | "QUIT" => Command::Malformed("no parameters are allowed"),
            "NOOP" => Command::Noop,
            "VRFY" => Command::Vrfy,
            "AUTH" => {
                let (mechanism, initial) = rest.split_once(' ').map_or((rest, None), |(name, rest)| (name, Some(rest)));
                Command::Auth { mechanism: mechanism.to_ascii_uppercase(), initial: initial.map(str::to_owned) }
            }
            "MAIL" => path(rest, "FROM:", true).map_or_else(Command::Malformed, Command::Mail),
            "RCPT" => path(rest, "TO:", false).map_or_else(Command::Malformed, Command::Rcpt),
            _ => Command::Unknown,
        }
    }
}

fn path(text: &str, prefix: &str, may_be_empty: bool) -> Result<Path, &'static str> {
    let given = text.get(..prefix.len()).filter(|given| given.eq_ignore_ascii_case(prefix));
    given.ok_or("expected FROM:<address> or TO:<address>")?;
    // Nothing between the colon and the bracket: RFC 5321 §3.3, and some servers mean it.
    let rest = text[prefix.len()..].strip_prefix('<').ok_or("expected an address in angle brackets")?;
    let (address, rest) = rest.split_once('>').ok_or("expected an address in angle brackets")?;
    let parameter = |word: &str| match word.split_once('=') {
        Some((name, value)) => (name.to_ascii_uppercase(), Some(value.to_owned())),
        None => (word.to_ascii_uppercase(), None),
    };
    let is_address = address.is_empty() && may_be_empty
        || address.len() <= ADDRESS_LIMIT_BYTES
            && !address.contains(|c: char| c.is_control() || c == ' ')
            && address.rsplit_once('@').is_some_and(|(local, domain)| !local.is_empty() && is_domain(domain));
    if !is_address {
        return Err("not an address");
    }
    Ok(Path { address: address.to_owned(), parameters: rest.split_whitespace().map(parameter).collect() })
}

fn is_domain(domain: &str) -> bool {
    domain.starts_with('[') && domain.ends_with(']')
        || domain.split('.').all(|label| {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || !c.is_ascii();
            (1..=63).contains(&label.len()) && label.chars().all(plain)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_in_any_case() {
        let hello = Command::Hello { extended: true, client: "me.example".to_owned() };
        assert_eq!(Command::parse("ehlo me.example"), hello);
        let size = ("SIZE".to_owned(), Some("12".to_owned()));
        let path = |address: &str, parameters| Path { address: address.to_owned(), parameters };
        assert_eq!(Command::parse("mail from:<a@b.c> size=12"), Command::Mail(path("a@b.c", vec![size])));
        assert_eq!(Command::parse("MAIL FROM:<>"), Command::Mail(Path::default()));
        assert_eq!(Command::parse("RCPT TO:<анна@пример.рф>"), Command::Rcpt(path("анна@пример.рф", vec![])));
        assert_eq!(Command::parse("XYZZY"), Command::Unknown);
        for wrong in ["EHLO", "RCPT TO:<>", "MAIL FROM: <a@b.c>", "MAIL a@b.c", "RCPT TO:<a b@c.d>", "RCPT TO:<a@b..c>"]
        {
            assert!(matches!(Command::parse(wrong), Command::Malformed(_)), "{wrong}");
        }
    }
}
