//! What no type can say: ranges, shapes, and settings that contradict each other.

use jiff::tz::TimeZone;
use secrecy::{ExposeSecret, SecretString};

use super::limits::LimitSettings;
use super::{ConfigError, Settings};

const ACCOUNT_NAME_CHARS: usize = 40;

impl Settings {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.check_figures()?;
        if let Some(url) = &self.ledger.database_url {
            let known = is_postgres(url);
            self.hold(known, "ledger.database_url", "expected postgres://… (without it the ledger is embedded)")?;
        }
        self.check_records()?;
        if let Some(key) = &self.keys.bootstrap_key {
            self.hold(!key.expose_secret().trim().is_empty(), "keys.bootstrap_key", "is empty")?;
        }
        let region_known = self.delivery.default_region.is_none() || self.delivery.region().is_some();
        self.hold(region_known, "delivery.default_region", "expected a country's two letters, like RU or DE")?;
        if let Err(cause) = self.log.level.parse::<tracing_subscriber::EnvFilter>() {
            return Err(self.refuse("log.level", format!("not a level or filter: {cause}")));
        }
        for (name, account) in &self.whatsapp {
            let path = format!("whatsapp.{name}");
            self.check_account(&path, name, &account.limits, account.timezone.as_deref())?;
            self.check_api(&path, &account.token, &account.base_url)?;
            self.check_timeouts(&path, account.connect_timeout_ms, account.timeout_ms)?;
            let id = &account.phone_number_id;
            let digits = !id.is_empty() && id.chars().all(|c| c.is_ascii_digit());
            self.hold(digits, &format!("{path}.phone_number_id"), "expected digits: the number's id, not the number")?;
        }
        for (name, account) in &self.telegram {
            let path = format!("telegram.{name}");
            self.check_account(&path, name, &account.limits, account.timezone.as_deref())?;
            self.check_api(&path, &account.token, &account.base_url)?;
            self.check_timeouts(&path, account.connect_timeout_ms, account.timeout_ms)?;
        }
        for (name, account) in &self.sms {
            let path = format!("sms.{name}");
            self.check_account(&path, name, &account.limits, account.timezone.as_deref())?;
            self.check_timeouts(&path, account.connect_timeout_ms, account.timeout_ms)?;
            let sections =
                [account.twilio.is_some(), account.http.is_some()].into_iter().filter(|given| *given).count();
            self.hold(sections == 1, &path, &format!("needs one of the sections [{path}.twilio] and [{path}.http]"))?;
        }
        for (name, account) in &self.email {
            let path = format!("email.{name}");
            self.check_account(&path, name, &account.limits, account.timezone.as_deref())?;
            if let Some((setting, message)) = account.problem() {
                return Err(self.refuse(&format!("{path}.{setting}"), message));
            }
        }
        if let Some((setting, message)) = self.queue.problem() {
            return Err(self.refuse(&format!("queue.{setting}"), message));
        }
        self.check_public_url()
    }

    /// Twilio, for one, calls no host with an underscore in it (its own documentation of `StatusCallback`).
    fn check_public_url(&self) -> Result<(), ConfigError> {
        let Some(url) = &self.http.public_url else { return Ok(()) };
        let rest = ["https://", "http://"].iter().find_map(|scheme| url.strip_prefix(scheme)).unwrap_or_default();
        let host = rest.split('/').next().unwrap_or_default();
        let is_base = !host.is_empty() && !url.contains(['?', '#', '@']) && !url.contains(char::is_whitespace);
        self.hold(is_base, "http.public_url", "expected a URL like https://notify.example.com, without a query")?;
        self.hold(!host.contains('_'), "http.public_url", "its host holds an underscore, which providers refuse")
    }

    fn check_figures(&self) -> Result<(), ConfigError> {
        let milliseconds = [
            ("http.header_time_limit_ms", self.http.header_time_limit_ms),
            ("http.request_time_limit_ms", self.http.request_time_limit_ms),
            ("ledger.call_timeout_ms", self.ledger.call_timeout_ms),
            ("delivery.direct_deadline_ms", self.delivery.direct_deadline_ms),
            ("delivery.lease_ms", self.delivery.lease_ms),
            ("delivery.send_deadline_ms", self.delivery.send_deadline_ms),
            ("templates.fuel", self.templates.fuel),
        ];
        let counts = [
            ("http.body_limit_bytes", self.http.body_limit_bytes),
            ("ledger.pool_size", self.ledger.pool_size),
            ("delivery.direct_concurrency", self.delivery.direct_concurrency),
            ("delivery.concurrency", self.delivery.concurrency),
            ("templates.output_bytes", self.templates.output_bytes),
            ("templates.source_bytes", self.templates.source_bytes),
        ];
        for (path, value) in milliseconds {
            self.hold(value > 0, path, "must be more than 0")?;
        }
        for (path, value) in counts {
            self.hold(value > 0, path, "must be more than 0")?;
        }
        let (deadline_ms, limit_ms) = (self.delivery.direct_deadline_ms, self.http.request_time_limit_ms);
        self.hold(
            deadline_ms < limit_ms,
            "delivery.direct_deadline_ms",
            &format!("{deadline_ms} contradicts http.request_time_limit_ms = {limit_ms}, which must be longer"),
        )
    }

    fn check_records(&self) -> Result<(), ConfigError> {
        let Some(sql) = &self.records.sql else { return Ok(()) };
        self.hold(is_postgres(&sql.url), "records.sql.url", "expected postgres://…")?;
        self.hold(sql.timeout_ms > 0, "records.sql.timeout_ms", "must be more than 0")?;
        self.hold(sql.pool_size > 0, "records.sql.pool_size", "must be more than 0")?;
        let has_query = sql.queries().next().is_some();
        self.hold(has_query, "records.sql", "has no query: give contact, lead, deal or company")
    }

    fn check_account(
        &self,
        path: &str,
        name: &str,
        limits: &LimitSettings,
        timezone: Option<&str>,
    ) -> Result<(), ConfigError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        let named_well = (1..=ACCOUNT_NAME_CHARS).contains(&name.len()) && name.chars().all(plain);
        self.hold(named_well, path, "an account's name is 1 to 40 of `a-z 0-9 _ -`")?;
        let zone_known = timezone.is_none_or(|name| TimeZone::get(name).is_ok());
        self.hold(zone_known, &format!("{path}.timezone"), "expected a time zone's name, like Europe/Moscow")?;
        let rate_fits = limits.per_second.is_finite() && limits.per_second > 0.0;
        self.hold(rate_fits, &format!("{path}.limits.per_second"), "must be more than 0")?;
        self.hold(limits.burst > 0, &format!("{path}.limits.burst"), "must be more than 0")?;
        let share_fits = (0.0..=1.0).contains(&limits.direct_share);
        self.hold(share_fits, &format!("{path}.limits.direct_share"), "must be from 0 to 1")
    }

    fn check_api(&self, path: &str, token: &SecretString, base_url: &str) -> Result<(), ConfigError> {
        self.hold(!token.expose_secret().trim().is_empty(), &format!("{path}.token"), "is empty")?;
        let is_url = ["http://", "https://"].iter().any(|scheme| base_url.starts_with(scheme));
        self.hold(is_url, &format!("{path}.base_url"), "expected http://… or https://…")
    }

    fn check_timeouts(&self, path: &str, connect_ms: u64, total_ms: u64) -> Result<(), ConfigError> {
        self.hold(connect_ms > 0, &format!("{path}.connect_timeout_ms"), "must be more than 0")?;
        self.hold(
            connect_ms <= total_ms,
            &format!("{path}.connect_timeout_ms"),
            &format!("{connect_ms} contradicts timeout_ms = {total_ms}, which includes it"),
        )
    }

    fn hold(&self, holds: bool, path: &str, message: &str) -> Result<(), ConfigError> {
        if holds { Ok(()) } else { Err(self.refuse(path, message)) }
    }

    fn refuse(&self, path: &str, message: impl Into<String>) -> ConfigError {
        ConfigError::setting(path, message, self.origins.get(path).cloned())
    }
}

fn is_postgres(url: &SecretString) -> bool {
    ["postgres://", "postgresql://"].iter().any(|scheme| url.expose_secret().starts_with(scheme))
}
