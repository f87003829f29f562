//! Layers, every error's text, and that the file of defaults is complete.

use std::collections::BTreeSet;

use secrecy::ExposeSecret;

use super::load::DEFAULTS;
use super::*;

/// Loads with `file` as `vestnik.toml` and these variables. The folder's path is cut from errors.
fn load(file: &str, environment: &[(&str, &str)], overrides: &[(&str, &str)]) -> Result<Settings, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("vestnik.toml");
    let shown = format!("{}/", folder.path().display());
    std::fs::write(&path, file.replace("FOLDER/", &shown)).expect("written");
    std::fs::write(folder.path().join("token"), "from-a-file\n").expect("written");
    let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.replace("FOLDER/", &shown));
    let sources = Sources {
        file: Some(path),
        environment: environment.iter().map(owned).collect(),
        overrides: overrides.iter().map(owned).collect(),
    };
    Settings::load(&sources).map_err(|error| error.to_string().replace(&shown, ""))
}

fn refused(file: &str, environment: &[(&str, &str)]) -> String {
    load(file, environment, &[]).expect_err("refused")
}

const ACCOUNTS: &str = "
[whatsapp.main]
phone_number_id = \"106540352242922\"
token = \"whatsapp-secret\"
[telegram.sales-2]
token_file = \"FOLDER/token\"
limits.per_second = 1
[email.main]
host = \"smtp.example.com\"
from = \"Север <news@example.com>\"
username = \"news\"
password = \"email-secret\"
dkim = { selector = \"s\", private_key_file = \"FOLDER/token\" }
";

#[test]
fn defaults_need_nothing() {
    let settings = Settings::load(&Sources::default()).expect("defaults hold");
    assert_eq!(settings.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.ledger.synchronous, ledger::Synchronous::Full);
    assert!(settings.whatsapp.is_empty() && settings.telegram.is_empty());
}

#[test]
fn later_layers_win() {
    let file = "[http]\nlisten = \"127.0.0.1:1\"\nbody_limit_bytes = 2\n[delivery]\nauto_threshold = 3\n";
    let environment =
        [("VESTNIK__HTTP__BODY_LIMIT_BYTES", "4"), ("VESTNIK__DELIVERY__AUTO_THRESHOLD", "5"), ("HOME", "x")];
    let settings = load(file, &environment, &[("delivery.auto_threshold", "6")]).expect("fine");
    assert_eq!(settings.http.listen.port(), 1);
    assert_eq!((settings.http.body_limit_bytes, settings.delivery.auto_threshold), (4, 6));
}

#[test]
fn secrets_stay_text_whatever_they_look_like() {
    for secret in ["0123", "12345", "true", "[1,2]", "1e5"] {
        let environment = [("VESTNIK_BOOTSTRAP_KEY", secret), ("VESTNIK__WHATSAPP__MAIN__TOKEN", secret)];
        let file = ACCOUNTS.replace("token = \"whatsapp-secret\"", "");
        let settings = load(&file, &environment, &[]).expect("fine");
        assert_eq!(settings.keys.bootstrap_key.expect("given").expose_secret(), secret);
        assert_eq!(settings.whatsapp["main"].token.expose_secret(), secret);
        assert_eq!(settings.telegram["sales-2"].token.expose_secret(), "from-a-file");
    }
}

#[test]
fn plain_variables_are_read_and_empty_ones_are_not() {
    let environment =
        [("DATABASE_URL", "postgres://u:p@h/d"), ("RABBITMQ_URL", "amqp://q"), ("VESTNIK_BOOTSTRAP_KEY", "")];
    let settings = load("", &environment, &[]).expect("fine");
    assert_eq!(settings.ledger.database_url.as_ref().expect("given").expose_secret(), "postgres://u:p@h/d");
    assert!(settings.keys.bootstrap_key.is_none());
    assert_eq!(settings.queue.rabbitmq_url.as_ref().expect("given").expose_secret(), "amqp://q");
}

/// A mail account with these settings, which may replace its own.
fn email(settings: &str) -> String {
    let own = ["host = \"smtp.example.com\"", "from = \"Север <news@example.com>\""];
    let name = |line: &str| line.split(" =").next().expect("a name").to_owned();
    let kept = own.iter().filter(|line| !settings.lines().any(|other| name(other) == name(line)));
    format!("[email.main]\n{}\n{settings}\n", kept.copied().collect::<Vec<_>>().join("\n"))
}

#[test]
fn a_mistake_is_named_with_its_path() {
    let cases: [(&str, &[(&str, &str)]); 52] = [
        ("[http]\nlisten = 8080", &[]),
        ("[http]\nport = 8080", &[]),
        ("[htpp]\nlisten = 1", &[]),
        ("http = 1", &[]),
        ("", &[("VESTNIK__HTTP__BODY_LIMIT_BYTES", "many")]),
        ("", &[("VESTNIK__HTTP__PORT", "1")]),
        ("", &[("VESTNIK__LEDGER__POOL_SIZE", "-1")]),
        ("[ledger]\npool_size = 0", &[]),
        ("[ledger]\nsynchronous = \"OFF\"", &[]),
        ("[log]\nformat = \"xml\"", &[]),
        ("[ledger]\ndatabase_url = \"mysql://u:topsecret@h/d\"", &[]),
        ("", &[("DATABASE_URL", "postgres://topsecret"), ("VESTNIK__LEDGER__DATABASE_URL", "postgres://b")]),
        ("[keys]\nbootstrap_key = \"topsecret\"\nbootstrap_key_file = \"x\"", &[]),
        ("[keys]\nbootstrap_key_file = \"FOLDER/nowhere\"", &[]),
        ("[delivery]\ndirect_deadline_ms = 60000", &[]),
        ("[delivery]\ndefault_region = \"Russia\"", &[]),
        ("[log]\nlevel = \"vestnik=loud\"", &[]),
        ("[records.sql]\nurl = \"postgres://u:topsecret@h/d\"", &[]),
        ("[records.sql]\nurl = \"mysql://u:topsecret@h/d\"\ncontact = \"select 1\"", &[]),
        ("[records.sql]\nurl = \"postgres://u:topsecret@h/d\"\ncontacts = \"select 1\"", &[]),
        ("[queue]\nqueue_type = \"mirrored\"", &[]),
        ("[queue]\nheartbeat_seconds = 0", &[]),
        ("[queue]\nca_file = \"ca.pem\"", &[("RABBITMQ_URL", "amqp://u:topsecret@h")]),
        ("", &[("RABBITMQ_URL", "amqp://u:topsecret@[::1]/%2f")]),
        ("[telegram.Main]\ntoken = \"topsecret\"", &[]),
        ("[telegram.main]\ntokn = \"topsecret\"", &[]),
        ("[telegram.main]\nbase_url = \"x\"", &[]),
        ("[telegram.main]\ntoken = \"topsecret\"\nlimits.direct_share = 2.0", &[]),
        ("[telegram.main]\ntoken = \"topsecret\"\ntimeout_ms = 5\n", &[]),
        ("[telegram.main]\ntoken = \"topsecret\"\ntimezone = \"Moscow\"", &[]),
        ("[whatsapp.main]\ntoken = \"topsecret\"\nphone_number_id = \"+7 999\"", &[]),
        ("[http]\npublic_url = \"notify.example.com\"", &[]),
        ("[http]\npublic_url = \"https://my_host.example.com/x\"", &[]),
        ("[sms.main]\ntimeout_ms = 5000", &[]),
        ("[sms.main]\nprovider = \"twilio\"", &[]),
        ("[sms.main.twilio]\nauth_token = \"topsecret\"\nsid = \"AC1\"", &[]),
        ("[sms.main.http]\nurl = \"https://x\"\nmethod = \"PUT\"", &[]),
        ("[sms.main.http]\nurl = \"https://x\"", &[]),
        ("[sms.main.http.secrets]\nkey = \"topsecret\"\nkey_file = \"FOLDER/token\"", &[]),
        ("[email.main]\nfrom = \"a@example.com\"", &[]),
        (&email("from = \"Север\""), &[]),
        (&email("from = \"анна@example.com\""), &[]),
        (&email("from = \"a@example.com\"\nhost = \"smtp://mail\""), &[]),
        (&email("tls = \"ssl\""), &[]),
        (&email("tls = \"none\""), &[]),
        (&email("username = \"u\""), &[]),
        (&email("password = \"topsecret\\n\"\nusername = \"u\""), &[]),
        (&email("tls = \"none\"\nallow_plaintext = true\nusername = \"u\"\npassword = \"topsecret\""), &[]),
        (&email("envelope_from = \"bounce+{mac}@\""), &[]),
        (&email("list_unsubscribe = \"http://example.com/{id}\""), &[]),
        (&email("connections = 0"), &[]),
        (&email("dkim.selector = \"a b\"\ndkim.private_key = \"topsecret\""), &[]),
    ];
    let said: Vec<String> = cases.iter().map(|(file, environment)| refused(file, environment)).collect();
    let said = said.join("\n");
    assert!(!said.contains("topsecret"), "a secret is shown: {said}");
    insta::assert_snapshot!(said, @r#"
    setting `http.listen` (from vestnik.toml): invalid socket address syntax
    setting `http.port` (from vestnik.toml): there is no such setting; expected one of `listen`, `public_url`, `body_limit_bytes`, `header_time_limit_ms`, `request_time_limit_ms`, `shutdown_grace_ms`
    setting `htpp`: there is no such setting; expected one of `http`, `ledger`, `delivery`, `templates`, `log`, `retention`, `keys`, `queue`, `records`, `whatsapp`, `telegram`, `sms`, `email`
    setting `http` (from vestnik.toml): is a section: write [http] and its settings below
    setting `http.body_limit_bytes` (from the environment): expected an integer, got string "many"
    setting `http.port` (from the environment): there is no such setting; expected one of `listen`, `public_url`, `body_limit_bytes`, `header_time_limit_ms`, `request_time_limit_ms`, `shutdown_grace_ms`
    setting `ledger.pool_size` (from the environment): expected an integer, got string "-1"
    setting `ledger.pool_size` (from vestnik.toml): must be more than 0
    setting `ledger.synchronous` (from vestnik.toml): expected FULL or NORMAL, got "OFF"
    setting `log.format` (from vestnik.toml): expected text or json, got "xml"
    setting `ledger.database_url` (from vestnik.toml): expected postgres://… (without it the ledger is embedded)
    setting `ledger.database_url`: DATABASE_URL and VESTNIK__LEDGER__DATABASE_URL are both set, and differ
    setting `keys.bootstrap_key` (from vestnik.toml): give either bootstrap_key or bootstrap_key_file, not both
    setting `keys.bootstrap_key_file` (from vestnik.toml): cannot read nowhere: No such file or directory (os error 2)
    setting `delivery.direct_deadline_ms` (from vestnik.toml): 60000 contradicts http.request_time_limit_ms = 60000, which must be longer
    setting `delivery.default_region` (from vestnik.toml): expected a country's two letters, like RU or DE
    setting `log.level` (from vestnik.toml): not a level or filter: error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5
    setting `records.sql`: has no query: give contact, lead, deal or company
    setting `records.sql.url` (from vestnik.toml): expected postgres://…
    setting `records.sql.contacts` (from vestnik.toml): there is no such setting; expected one of `url`, `contact`, `lead`, `deal`, `company`, `timeout_ms`, `pool_size`
    setting `queue.queue_type` (from vestnik.toml): expected quorum or classic, got "mirrored"
    setting `queue.heartbeat_seconds` (from vestnik.toml): must be from 5 to 300
    setting `queue.ca_file` (from vestnik.toml): is for amqps://, and rabbitmq_url is not
    setting `queue.rabbitmq_url` (from RABBITMQ_URL): an IPv6 address would be read as localhost: give the host a name
    setting `telegram.Main`: an account's name is 1 to 40 of `a-z 0-9 _ -`
    setting `telegram.main.tokn` (from vestnik.toml): there is no such setting; expected one of `token`, `base_url`, `timezone`, `connect_timeout_ms`, `timeout_ms`, `limits`
    setting `telegram.main.token`: is missing
    setting `telegram.main.limits.direct_share` (from vestnik.toml): must be from 0 to 1
    setting `telegram.main.connect_timeout_ms`: 3000 contradicts timeout_ms = 5, which includes it
    setting `telegram.main.timezone` (from vestnik.toml): expected a time zone's name, like Europe/Moscow
    setting `whatsapp.main.phone_number_id` (from vestnik.toml): expected digits: the number's id, not the number
    setting `http.public_url` (from vestnik.toml): expected a URL like https://notify.example.com, without a query
    setting `http.public_url` (from vestnik.toml): its host holds an underscore, which providers refuse
    setting `sms.main`: needs one of the sections [sms.main.twilio] and [sms.main.http]
    setting `sms.main.provider` (from vestnik.toml): there is no such setting; expected one of `timezone`, `connect_timeout_ms`, `timeout_ms`, `limits`, `twilio`, `http`
    setting `sms.main.twilio.sid` (from vestnik.toml): there is no such setting; expected one of `account_sid`, `auth_token`, `api_key`, `api_key_secret`, `from`, `messaging_service_sid`, `smart_encoded`, `base_url`
    setting `sms.main.http.method` (from vestnik.toml): expected POST or GET, got "PUT"
    setting `sms.main.http.answer`: is missing
    setting `sms.main.http.secrets.key` (from vestnik.toml): give either key or key_file, not both
    setting `email.main.host`: is missing
    setting `email.main.from` (from vestnik.toml): expected an address like news@example.com, or Name <news@example.com>
    setting `email.main.from` (from vestnik.toml): an address of our own has to be ASCII, or few servers would take it
    setting `email.main.host` (from vestnik.toml): expected a mail server's name or address, without port or scheme
    setting `email.main.tls` (from vestnik.toml): expected starttls, implicit or none, got "ssl"
    setting `email.main.tls` (from vestnik.toml): none is for this machine only: use starttls or implicit, or set allow_plaintext = true
    setting `email.main.password`: is missing: username is set
    setting `email.main.password` (from vestnik.toml): is empty or holds a line break
    setting `email.main.password` (from vestnik.toml): would be sent in the clear: tls is none
    setting `email.main.envelope_from` (from vestnik.toml): expected a bare ASCII address, perhaps with {id}
    setting `email.main.list_unsubscribe` (from vestnik.toml): expected https://… in ASCII, with {id} in it
    setting `email.main.connections` (from vestnik.toml): must be more than 0
    setting `email.main.dkim.selector` (from vestnik.toml): expected a name, like s2026
    "#);
}

#[test]
fn sms_accounts_of_both_kinds_are_read_from_file_and_environment() {
    let file = "
        [sms.main.twilio]
        account_sid = \"AC1\"
        auth_token_file = \"FOLDER/token\"
        [sms.backup.http]
        url = \"https://x\"
        answer.id = \"/Id\"
        [sms.backup.http.secrets]
        apiKey_file = \"FOLDER/token\"
        other = \"topsecret\"
        [sms.backup.http.headers]
        X-Api-Key = \"{secrets.apiKey}\"
        [sms.backup.http.answer.codes]
        3 = \"channel_down billing\"
    ";
    let environment = [
        ("VESTNIK__SMS__MAIN__LIMITS__PER_SECOND", "10"),
        ("VESTNIK__SMS__MAIN__TWILIO__FROM", "12345"),
        ("VESTNIK__SMS__BACKUP__HTTP__SECRETS__OTHER", "0123"),
    ];
    let settings = load(file, &environment, &[]).expect("fine");
    let (main, backup) = (&settings.sms["main"], settings.sms["backup"].http.as_ref().expect("given"));
    let twilio = main.twilio.as_ref().expect("given");
    assert_eq!((main.limits.per_second, twilio.from.as_deref()), (10.0, Some("12345")));
    assert_eq!(twilio.auth_token.as_ref().expect("given").expose_secret(), "from-a-file");
    let secrets: Vec<_> = backup.secrets.iter().map(|(name, secret)| (&**name, secret.expose_secret())).collect();
    assert_eq!(secrets, [("apiKey", "from-a-file"), ("other", "0123")]);
    assert_eq!(backup.headers["X-Api-Key"], "{secrets.apiKey}");
    assert_eq!(backup.answer.codes["3"], "channel_down billing");
    let shown = settings.effective_toml();
    shown.parse::<toml::Table>().expect("is TOML");
    for secret in ["from-a-file", "0123"] {
        assert!(!shown.contains(secret) && !format!("{settings:?}").contains(secret), "{secret} is shown");
    }
}

#[test]
fn a_broken_file_is_not_quoted() {
    let said = refused("[keys]\nbootstrap_key = topsecret\n", &[]);
    assert!(!said.contains("topsecret"), "{said}");
    insta::assert_snapshot!(said, @"vestnik.toml, line 2, column 17: invalid boolean, expected `true`");
    let missing = Settings::load(&Sources { file: Some("nowhere/vestnik.toml".into()), ..Sources::default() });
    insta::assert_snapshot!(missing.expect_err("is not there"), @"cannot read nowhere/vestnik.toml");
}

#[test]
fn effective_settings_show_origins_and_no_secret() {
    let environment = [("DATABASE_URL", "postgres://u:topsecret@h/d"), ("VESTNIK__DELIVERY__DEFAULT_REGION", "RU")];
    let settings = load(ACCOUNTS, &environment, &[("log.level", "debug")]).expect("fine");
    let shown = settings.effective_toml();
    for secret in ["topsecret", "whatsapp-secret", "email-secret", "from-a-file"] {
        assert!(!shown.contains(secret) && !format!("{settings:?}").contains(secret), "{secret} is shown");
    }
    shown.parse::<toml::Table>().expect("is TOML");
    // Of a file's path only its name is the same everywhere.
    let name_only = |(setting, origin): (&str, &str)| {
        let name = origin.rsplit('/').next().unwrap_or(origin);
        let kind = if origin.starts_with("file ") { "file " } else { "" };
        format!("{setting}  # {kind}{name}")
    };
    let given: Vec<String> = shown.lines().filter_map(|line| line.split_once("  # ")).map(name_only).collect();
    insta::assert_snapshot!(given.join("\n"), @r#"
    default_region = "RU"  # the environment
    from = "Север <news@example.com>"  # vestnik.toml
    host = "smtp.example.com"  # vestnik.toml
    password = "***"  # vestnik.toml
    username = "news"  # vestnik.toml
    private_key = "***"  # file token
    selector = "s"  # vestnik.toml
    database_url = "***"  # DATABASE_URL
    level = "debug"  # a flag
    token = "***"  # file token
    per_second = 1.0  # vestnik.toml
    phone_number_id = "106540352242922"  # vestnik.toml
    token = "***"  # vestnik.toml
    "#);
}

/// What a section takes, from what serde says to a setting that is not there.
fn taken(section: &str) -> BTreeSet<String> {
    let file = format!("[{section}]\nno_such_setting = 1\n");
    let said = refused(&file, &[]);
    let (_, allowed) = said.split_once("; ").unwrap_or_else(|| panic!("{said}"));
    allowed.split('`').skip(1).step_by(2).map(|name| format!("{section}.{name}")).collect()
}

#[test]
fn the_file_of_defaults_lists_exactly_all_settings() {
    // Settings without a default are there, commented out.
    let is_setting = |line: &str| {
        let name_end = line.find([' ', '=']).unwrap_or(line.len());
        let named = name_end > 0 && line[..name_end].chars().all(|c| c.is_ascii_lowercase() || c == '_');
        (named && line[name_end..].trim_start().starts_with("= ")) || (line.starts_with('[') && line.ends_with(']'))
    };
    let uncommented: String = DEFAULTS
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| is_setting(rest)).unwrap_or(line).to_owned() + "\n")
        .collect();
    let table: toml::Table = uncommented.parse().expect("is TOML once uncommented");
    let mut listed = BTreeSet::new();
    let mut tables = vec![(String::new(), &table)];
    while let Some((path, table)) = tables.pop() {
        for (name, value) in table {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match value {
                toml::Value::Table(inner) => tables.push((path, inner)),
                _ => drop(listed.insert(path)),
            }
        }
    }

    let sections = refused("no_such_setting = 1", &[]);
    let names: Vec<&str> = sections.split_once("; ").expect("lists").1.split('`').skip(1).step_by(2).collect();
    let mut taken_by_all = BTreeSet::new();
    for name in names {
        if name == "sms" {
            // What stands in tables of one's own making is not listed anywhere.
            let own = ["answer", "codes", "form", "headers", "http", "limits", "query", "secrets", "twilio"];
            for section in ["main", "main.limits", "main.twilio", "backup.http", "backup.http.answer"] {
                let named_own = |path: &String| own.iter().any(|name| path.ends_with(&format!(".{name}")));
                taken_by_all.extend(taken(&format!("sms.{section}")).into_iter().filter(|path| !named_own(path)));
            }
            let free = ["codes", "form", "headers", "query", "secrets"].map(|name| format!("sms.backup.http.{name}."));
            listed.retain(|path: &String| !free.iter().any(|table| path.starts_with(table)));
        } else if matches!(name, "whatsapp" | "telegram" | "email") {
            let account = format!("{name}.main");
            let inner = [format!("{account}.limits"), format!("{account}.dkim")];
            for path in taken(&account) {
                if inner.contains(&path) {
                    taken_by_all.extend(taken(&path));
                } else {
                    taken_by_all.insert(path);
                }
            }
        } else if name == "records" {
            taken_by_all.extend(taken("records.sql"));
        } else {
            taken_by_all.extend(taken(name));
        }
    }
    assert_eq!(listed, taken_by_all);

    // What is written there, commented out or not, is taken as it stands.
    let settings = load(&uncommented, &[], &[]).expect("the examples hold");
    let defaults: telegram::TelegramSettings =
        load("[telegram.main]\ntoken = \"x\"", &[], &[]).expect("fine").telegram["main"].clone();
    assert_eq!(settings.telegram["main"].base_url, defaults.base_url);
    assert_eq!(settings.telegram["main"].timeout_ms, defaults.timeout_ms);
}
