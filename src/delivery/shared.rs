//! What several processes know of accounts is one thing: it is in the ledger, and carried to and fro here.
//!
//! What this process sees (a throttled answer, an account that cannot send or sends again) is told at once; what others
//! saw is learnt within a second. Of an account's day each process reserves a part before it spends it. Nothing of
//! this lies on the way of a message: that asks the budget and the circuit of this process, and only the probe of an
//! account that is down asks the ledger.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Delivery, SendingAccount};
use crate::domain::AccountId;
use crate::limits::{Change, DayWish, Down, KnownDay, Learnt, RecipientKey, Rest, Way};
use crate::store::{AccountNews, AccountState, DayDemand, KnownDown, KnownPause, StoreError};

/// What others saw is asked for this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What is told within this time is told together.
const GATHER: Duration = Duration::from_millis(20);

/// Tells and learns until the tracker's tasks are told to stop.
pub(super) fn keep(delivery: &Arc<Delivery>) {
    let delivery = Arc::clone(delivery);
    let tracker = delivery.tracker.clone();
    tracker.spawn(async move {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            let is_tick = tokio::select! {
                _ = ticks.tick() => true,
                () = delivery.news.notified() => false,
                // What runs while stopping still spends.
                () = delivery.settled() => return,
            };
            if let Err(error) = delivery.share_accounts(is_tick).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "could not share what is known of accounts");
                tokio::time::sleep(LOOK_EVERY).await;
            }
            tokio::time::sleep(GATHER).await;
        }
    });
}

impl Delivery {
    /// Tells what is new, learns what others saw, and reserves what is needed of each day.
    pub(super) async fn share_accounts(&self, is_tick: bool) -> Result<(), StoreError> {
        let told = self.tell().await?;
        if told || is_tick {
            // After it was told, so that what is learnt has it in it.
            let known = self.store.account_states(self.first_epoch).await?;
            let nothing = AccountState::default();
            for account in self.sending.values() {
                self.learn(account, known.get(&account.id).unwrap_or(&nothing));
            }
        }
        self.reserve(|account, now| account.budget.day_wish(is_tick, now)).await
    }

    /// What was seen last is told, what was spent is counted, and what was reserved is given back.
    pub(super) async fn leave_accounts(&self) -> Result<(), StoreError> {
        self.tell().await?;
        self.reserve(|account, now| account.budget.last_day_wish(now)).await
    }

    /// Whether one may be sent through an account, or how long nothing may. Of all that ask while it is down, whichever
    /// the ledger lets is the probe.
    pub(super) async fn may_send(&self, account: &SendingAccount) -> Result<(), Duration> {
        match account.circuit.lets_through(Instant::now())? {
            Way::Free => Ok(()),
            Way::AsProbe { wait } => match self.store.claim_probe(account.id, wait).await {
                Ok(Some(probe)) => {
                    account.circuit.probes(probe);
                    Ok(())
                }
                Ok(None) => Err(account.circuit.another_probes(Instant::now())),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "could not ask who tries an account");
                    Err(wait)
                }
            },
        }
    }

    async fn tell(&self) -> Result<bool, StoreError> {
        let now = Instant::now();
        let mut news = Vec::new();
        let mut taken = Vec::new();
        for account in self.sending.values() {
            let (rests, change) = (account.budget.untold_rests(now), account.circuit.untold());
            news.extend(rests.iter().map(|rest| (account.id, AccountNews::Paused(pause_of(rest)))));
            news.extend(change.iter().map(|change| (account.id, news_of(change.clone()))));
            taken.push((account, rests, change));
        }
        if news.is_empty() {
            return Ok(false);
        }
        let told = self.store.tell_of_accounts(news).await;
        if told.is_err() {
            for (account, rests, change) in taken {
                account.budget.not_told(&rests);
                change.into_iter().for_each(|change| account.circuit.not_told(change));
            }
        }
        told.map(|()| true)
    }

    fn learn(&self, account: &SendingAccount, known: &AccountState) {
        let now = Instant::now();
        for pause in &known.pauses {
            account.budget.learn_rest(&rest_of(pause), now);
        }
        let AccountState { spent, reserved, reserved_by_living, .. } = known;
        let day = KnownDay { spent, reserved: *reserved, reserved_by_living: *reserved_by_living };
        account.budget.learn_day(&day, now);
        match account.circuit.learn(known.down.as_ref().map(|down| down_of(down, now))) {
            Learnt::Nothing => {}
            Learnt::IsDown => tracing::warn!(account = %account.name(), "the account cannot send, as others found"),
            Learnt::Works => {
                tracing::info!(account = %account.name(), "the account sends again, as others found");
                self.wake.notify_one();
            }
        }
    }

    async fn reserve(
        &self,
        wish_of: impl Fn(&SendingAccount, Instant) -> Option<DayWish> + Send + Sync,
    ) -> Result<(), StoreError> {
        let now = Instant::now();
        let accounts = self.sending.values();
        let wishes: Vec<_> = accounts.filter_map(|account| Some((account, wish_of(account, now)?))).collect();
        if wishes.is_empty() {
            return Ok(());
        }
        let demands = wishes.iter().map(|(account, wish)| demand_of(account.id, wish)).collect();
        match self.store.spend_day(self.first_epoch, demands).await {
            Ok(granted) => {
                for ((account, wish), granted) in wishes.iter().zip(granted) {
                    account.budget.day_granted(wish, granted);
                }
                Ok(())
            }
            Err(error) => {
                wishes.iter().for_each(|(account, wish)| account.budget.day_not_told(wish));
                Err(error)
            }
        }
    }
}

fn pause_of(rest: &Rest) -> KnownPause {
    let recipient = rest.recipient.map(|RecipientKey(hash)| hash.cast_signed());
    KnownPause { recipient, left: rest.left, strikes: rest.strikes }
}

fn rest_of(pause: &KnownPause) -> Rest {
    let recipient = pause.recipient.map(|hash| RecipientKey(hash.cast_unsigned()));
    Rest { recipient, left: pause.left, strikes: pause.strikes }
}

fn news_of(change: Change) -> AccountNews {
    match change {
        Change::Down { reason, code, wait } => AccountNews::Down { reason, code, wait },
        Change::StillDown { probe, reason, code, wait } => AccountNews::StillDown { probe, reason, code, wait },
        Change::Works => AccountNews::Works,
    }
}

fn down_of(known: &KnownDown, now: Instant) -> Down {
    Down::known(known.since, known.reason.clone(), known.code.clone(), known.wait, now + known.probe_in)
}

fn demand_of(account: AccountId, wish: &DayWish) -> DayDemand {
    DayDemand { account, spent: wish.spent, limit: wish.limit, held: wish.held, want: wish.want }
}
