//! What dead letters and uncertain notifications have in common: filters, items, and changes of many, step by step.

use axum::Json;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Api;
use super::notifications::{bad_cursor, from_cursor, page_limit, to_cursor};
use super::problem::{FieldError, Problem};
use super::requests::bounded;
use crate::delivery::Chosen;
use crate::domain::clock::from_micros;
use crate::domain::{BatchId, Channel, NotificationId, TemplateId};
use crate::store::{Decision, Page, Settlement, StoreError, Undecided, UndecidedFilter};

/// Changed by one call at most; the answer says where to go on.
pub(super) const MOST_AT_ONCE: u32 = 5000;
/// Ids of one call.
const MOST_IDS: usize = 1000;
const LONGEST_REASON_BYTES: usize = 500;

/// Defines what a list, or a change of many, is narrowed by, and what it has beside that.
macro_rules! narrowed {
    ($(#[$meta:meta])* $name:ident { $($own:tt)* }) => {
        $(#[$meta])*
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        pub(in crate::http) struct $name {
            channel: Option<crate::domain::Channel>,
            /// The name of an account.
            account: Option<String>,
            /// `recipient`, `opted_out`, `template`, `transient`, `ambiguous`, …: an error's class.
            cause: Option<String>,
            /// The provider's code.
            code: Option<String>,
            template_id: Option<String>,
            batch_id: Option<crate::domain::BatchId>,
            /// Given up, or uncertain, since this time or later.
            from: Option<jiff::Timestamp>,
            /// Given up, or uncertain, before this time.
            until: Option<jiff::Timestamp>,
            $($own)*
        }

        impl $name {
            /// The filter; mistakes are pointed at below `pointer`.
            pub(super) fn filter(&self, pointer: &str) -> Result<crate::store::UndecidedFilter, Vec<FieldError>> {
                crate::http::undecided::Words {
                    channel: self.channel,
                    account: self.account.as_deref(),
                    cause: self.cause.as_deref(),
                    code: self.code.as_deref(),
                    template_id: self.template_id.as_deref(),
                    batch_id: self.batch_id,
                    from: self.from,
                    until: self.until,
                }
                .checked(pointer)
            }
        }
    };
}
pub(super) use narrowed;

narrowed! {
    /// Those that have everything that is given; `{}` means all.
    #[derive(utoipa::ToSchema)]
    FilterBody {}
}

narrowed! {
    /// A page of what has everything that is given.
    #[derive(utoipa::IntoParams)]
    #[into_params(parameter_in = Query)]
    UndecidedQuery {
        /// 1 to 500; 50 if absent.
        limit: Option<u32>,
        cursor: Option<String>,
    }
}

/// What a caller narrows by, as it was written.
pub(super) struct Words<'a> {
    pub(super) channel: Option<Channel>,
    pub(super) account: Option<&'a str>,
    pub(super) cause: Option<&'a str>,
    pub(super) code: Option<&'a str>,
    pub(super) template_id: Option<&'a str>,
    pub(super) batch_id: Option<BatchId>,
    pub(super) from: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
}

impl Words<'_> {
    pub(super) fn checked(self, pointer: &str) -> Result<UndecidedFilter, Vec<FieldError>> {
        let mut wrong = Vec::new();
        for (name, text) in [("account", self.account), ("cause", self.cause), ("code", self.code)] {
            bounded(&format!("{pointer}/{name}"), text, &mut wrong);
        }
        let template = self.template_id.map(TemplateId::parse).transpose().unwrap_or_else(|error| {
            wrong.push(FieldError::new(format!("{pointer}/templateId"), error.to_string()));
            None
        });
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(UndecidedFilter {
            channel: self.channel,
            account: self.account.map(str::to_owned),
            cause: self.cause.map(str::to_owned),
            code: self.code.map(str::to_owned),
            template,
            batch: self.batch_id,
            from: self.from,
            until: self.until,
        })
    }
}

/// A notification that waits for a person.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UndecidedView {
    pub(super) id: NotificationId,
    /// When it was given up, or since when nobody knows.
    pub(super) since: Timestamp,
    pub(super) channel: Channel,
    pub(super) account: String,
    pub(super) recipient: String,
    /// The error's class: `recipient`, `opted_out`, `template`, `transient`, …; `ambiguous` or `lost`.
    pub(super) cause: String,
    /// The provider's own code, or ours for what never reached it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) code: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) template_id: Option<TemplateId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) batch_id: Option<BatchId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) contact_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) external_id: Option<String>,
    pub(super) created_at: Timestamp,
}

impl From<Undecided> for UndecidedView {
    fn from(found: Undecided) -> Self {
        UndecidedView {
            id: found.id,
            since: found.at,
            channel: found.channel,
            account: found.account,
            recipient: found.recipient,
            cause: found.cause,
            code: found.error.code,
            detail: found.error.detail,
            template_id: found.template,
            batch_id: found.batch,
            contact_id: found.contact,
            external_id: found.external_id,
            created_at: found.created_at,
        }
    }
}

/// A page, newest first by the time they were accepted.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UndecidedPage {
    items: Vec<UndecidedView>,
    /// Give it back as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Which of the two.
#[derive(Clone, Copy)]
pub(super) enum Which {
    DeadLetters,
    Uncertain,
}

impl Which {
    async fn page(
        self,
        api: &Api,
        filter: UndecidedFilter,
        after: Option<NotificationId>,
        limit: u32,
    ) -> Result<Page<Undecided>, StoreError> {
        match self {
            Which::DeadLetters => api.store.dead_letters(filter, after, limit).await,
            Which::Uncertain => api.store.uncertain(filter, after, limit).await,
        }
    }

    /// The page that is asked for.
    pub(super) async fn list(self, api: &Api, query: &UndecidedQuery) -> Result<Json<UndecidedPage>, Problem> {
        let after = query.cursor.as_deref().map(|cursor| from_cursor(cursor).ok_or_else(bad_cursor)).transpose()?;
        let limit = page_limit(query.limit)?;
        let filter = query.filter("").map_err(Problem::invalid)?;
        let page = self.page(api, filter, after.map(NotificationId), limit).await?;
        let next_cursor = page.items.last().filter(|_| page.more).map(|last| to_cursor(last.id.0));
        Ok(Json(UndecidedPage { items: page.items.into_iter().map(Into::into).collect(), next_cursor }))
    }
}

/// Defines a change of many, and what it has beside who is meant.
macro_rules! change_body {
    ($(#[$doc:meta])* $name:ident { $($own:tt)* }) => {
        $(#[$doc])*
        #[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub(in crate::http) struct $name {
            /// Either these, 1,000 at most …
            #[serde(default)]
            ids: Option<Vec<crate::domain::NotificationId>>,
            /// … or those that a filter lets through …
            #[serde(default)]
            filter: Option<crate::http::undecided::FilterBody>,
            /// … or those of a batch.
            #[serde(default)]
            batch_id: Option<crate::domain::BatchId>,
            /// Of a filter or batch so many by this call: 1 to 5,000, which is also what holds if it is absent.
            #[serde(default)]
            limit: Option<u32>,
            /// The `nextCursor` of the call that this one goes on from, with the same filter.
            #[serde(default)]
            cursor: Option<String>,
            $($own)*
        }

        impl $name {
            /// Who is meant, and from which time on what is sent again becomes due.
            fn position(&self) -> Result<crate::http::undecided::Position, Vec<FieldError>> {
                crate::http::undecided::Position::of(
                    self.ids.as_deref(),
                    self.filter.as_ref(),
                    self.batch_id,
                    self.limit,
                    self.cursor.as_deref(),
                )
            }
        }
    };
}
pub(super) use change_body;

/// Who is meant by a change, and where it goes on.
pub(super) struct Position {
    pub(super) chosen: Chosen,
    pub(super) start: Option<Timestamp>,
}

impl Position {
    pub(super) fn of(
        ids: Option<&[NotificationId]>,
        filter: Option<&FilterBody>,
        batch: Option<BatchId>,
        limit: Option<u32>,
        cursor: Option<&str>,
    ) -> Result<Self, Vec<FieldError>> {
        let one = |pointer: &str, detail: &str| Err(vec![FieldError::new(pointer, detail)]);
        let limit = limit.unwrap_or(MOST_AT_ONCE);
        if !(1..=MOST_AT_ONCE).contains(&limit) {
            return one("/limit", &format!("limit is 1 to {MOST_AT_ONCE}"));
        }
        let filter = match (ids, filter, batch) {
            (Some(ids), None, None) if cursor.is_none() && (1..=MOST_IDS).contains(&ids.len()) => {
                return Ok(Position { chosen: Chosen::Ids(ids.to_vec()), start: None });
            }
            (Some(_), None, None) => return one("/ids", &format!("1 to {MOST_IDS} ids, without a cursor")),
            (None, Some(filter), None) => filter.filter("/filter")?,
            (None, None, Some(batch)) => UndecidedFilter { batch: Some(batch), ..UndecidedFilter::default() },
            _ => return one("", "give one of ids, filter and batchId; the filter {} means all"),
        };
        let (after, start) = match cursor.map(parts) {
            Some(Some((id, start))) => (Some(NotificationId(id)), start),
            Some(None) => return Err(bad_cursor().errors),
            None => (None, None),
        };
        Ok(Position { chosen: Chosen::Filter { filter, after, limit: limit as usize }, start })
    }
}

/// Where a replay goes on: after which dead letter, and when the next becomes due.
pub(super) fn replay_cursor(after: NotificationId, start: Timestamp) -> String {
    let mut bytes = after.0.as_bytes().to_vec();
    bytes.extend(start.as_microsecond().to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn parts(cursor: &str) -> Option<(Uuid, Option<Timestamp>)> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (id, rest) = bytes.split_at_checked(16)?;
    let start = match rest {
        [] => None,
        rest => Some(from_micros(i64::from_be_bytes(rest.try_into().ok()?))),
    };
    Some((Uuid::from_slice(id).ok()?, start))
}

/// What a person decides about many.
pub(super) enum Change {
    Discard { reason: String, decision: Decision },
    Settle(Settlement),
}

/// How far it came.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChangedView {
    pub(super) changed: u64,
    /// Of the given ids, those that were nothing to decide about: unknown, or decided about before.
    pub(super) skipped: u64,
    /// There are more: give it back as `cursor`, with the same filter. Absent when all was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_cursor: Option<String>,
}

impl Change {
    /// Done step by step: what is done when it breaks off stays done, and asking again goes on.
    pub(super) async fn make(self, api: &Api, chosen: Chosen) -> Result<ChangedView, StoreError> {
        /// Listed at a time.
        const STEP: usize = 500;
        let mut view = ChangedView::default();
        let (filter, mut after, mut left) = match chosen {
            Chosen::Ids(ids) => {
                self.step(api, ids, &mut view).await?;
                return Ok(view);
            }
            Chosen::Filter { filter, after, limit } => (filter, after, limit),
        };
        loop {
            let step = u32::try_from(left.min(STEP)).unwrap_or(1);
            let page = self.which().page(api, filter.clone(), after, step).await?;
            let ids: Vec<_> = page.items.iter().map(|found| found.id).collect();
            let Some(last) = ids.last().copied() else { return Ok(view) };
            (after, left) = (Some(last), left.saturating_sub(ids.len()));
            self.step(api, ids, &mut view).await?;
            if !page.more {
                return Ok(view);
            }
            if left == 0 {
                view.next_cursor = Some(to_cursor(last.0));
                return Ok(view);
            }
        }
    }

    fn which(&self) -> Which {
        match self {
            Change::Discard { .. } => Which::DeadLetters,
            Change::Settle(_) => Which::Uncertain,
        }
    }

    async fn step(&self, api: &Api, ids: Vec<NotificationId>, view: &mut ChangedView) -> Result<(), StoreError> {
        let asked = ids.len() as u64;
        let changed = match self {
            Change::Discard { reason, decision } => {
                api.store.discard(ids, reason.clone(), decision.clone()).await?.len()
            }
            Change::Settle(settlement) => api.store.settle_uncertain(ids, settlement.clone()).await?.len(),
        };
        view.changed += changed as u64;
        view.skipped += asked.saturating_sub(changed as u64);
        Ok(())
    }
}

/// Why a person decides so; kept with the notification.
pub(super) fn reason(given: &str, wrong: &mut Vec<FieldError>) -> String {
    let reason: String = given.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if reason.is_empty() || reason.len() > LONGEST_REASON_BYTES {
        wrong.push(FieldError::new("/reason", format!("say why, in 1 to {LONGEST_REASON_BYTES} bytes")));
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_says_where_and_when_to_go_on() {
        let (id, at) = (Uuid::from_u128(7), from_micros(1_767_776_400_123_456));
        assert_eq!(parts(&replay_cursor(NotificationId(id), at)), Some((id, Some(at))));
        assert_eq!(parts(&to_cursor(id)), Some((id, None)));
        for wrong in ["", "AAAA", "!", &URL_SAFE_NO_PAD.encode([0; 17])] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn one_way_to_choose_is_given() {
        let id = [NotificationId(Uuid::from_u128(7))];
        let all = FilterBody::default();
        let batch = BatchId(Uuid::from_u128(8));
        assert!(Position::of(Some(&id), None, None, None, None).is_ok());
        assert!(Position::of(None, Some(&all), None, Some(1), None).is_ok());
        assert!(Position::of(None, None, Some(batch), None, Some(&to_cursor(id[0].0))).is_ok());
        for wrong in [
            Position::of(None, None, None, None, None),
            Position::of(Some(&[]), None, None, None, None),
            Position::of(Some(&id), None, Some(batch), None, None),
            Position::of(Some(&id), None, None, None, Some(&to_cursor(id[0].0))),
            Position::of(None, Some(&all), None, Some(0), None),
            Position::of(None, Some(&all), None, None, Some("x")),
        ] {
            assert!(wrong.is_err());
        }
    }
}
