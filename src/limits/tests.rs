//! The budget's promises, over sequences nobody would write by hand.

use futures::future::join_all;
use proptest::prelude::*;

use super::*;

mod day;
mod shared;
mod weight;

const ANN: RecipientKey = RecipientKey(1);
const BOB: RecipientKey = RecipientKey(2);
const SECOND: Duration = Duration::from_secs(1);

fn settings(per_second: f64, burst: u32, per_day: Option<u64>, direct_share: f64) -> LimitSettings {
    LimitSettings { per_second, burst, per_day, direct_share }
}

fn budget(per_second: f64, burst: u32, direct_share: f64, now: Instant) -> Budget {
    Budget::new(&settings(per_second, burst, None, direct_share), ScopeRule::Stated, now)
}

fn is_now(permit: Permit) -> bool {
    permit == Permit::Now
}

fn wait_of(permit: Permit) -> Duration {
    match permit {
        Permit::Now => Duration::ZERO,
        Permit::Later { wait, .. } => wait,
    }
}

/// No window holds more than `burst + rate × its length`.
fn keeps_within(times: &[Duration], per_second: f64, burst: f64) -> Result<(), TestCaseError> {
    for (n, first) in times.iter().enumerate() {
        for (m, last) in times.iter().enumerate().skip(n) {
            let allowed = burst + per_second * (*last - *first).as_secs_f64();
            prop_assert!((m - n + 1) as f64 <= allowed + 1e-6, "{} from {first:?} to {last:?}", m - n + 1);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_window_holds_more_than_burst_and_rate(
        per_second in 0.5..2000.0_f64,
        burst in 1..60_u32,
        share in 0.0..=1.0_f64,
        asks in prop::collection::vec((0..40_u64, any::<bool>()), 1..400),
    ) {
        let start = Instant::now();
        let budget = budget(per_second, burst, share, start);
        let (mut at, mut all, mut queued) = (Duration::ZERO, Vec::new(), Vec::new());
        for (millis, is_direct) in asks {
            at += Duration::from_millis(millis);
            let lane = if is_direct { Lane::Direct } else { Lane::Queued };
            if is_now(budget.take(lane, ANN, 1, start + at)) {
                all.push(at);
                if !is_direct {
                    queued.push(at);
                }
            }
        }
        let share = share.min(rate::LARGEST_DIRECT_SHARE);
        keeps_within(&all, per_second, f64::from(burst))?;
        keeps_within(&queued, per_second * (1.0 - share), (f64::from(burst) * (1.0 - share)).max(1.0))?;
    }

    #[test]
    fn direct_sends_always_get_their_share(
        per_second in 1.0..500.0_f64,
        burst in 1..60_u32,
        share in 0.05..=0.95_f64,
        greedy_before in 0..200_u64,
    ) {
        let start = Instant::now();
        let budget = budget(per_second, burst, share, start);
        // Direct sends come exactly at the rate of their share, beside a queue that takes whatever it gets.
        let spacing = Duration::from_secs_f64(1.0 / (per_second * share)) + Duration::from_nanos(2);
        let is_rounded = f64::from(burst) * share < 1.0 || f64::from(burst) * (1.0 - share) < 1.0;
        let allowed = if is_rounded { Duration::from_secs_f64(1.0 / per_second) + Duration::from_nanos(2) } else { Duration::ZERO };
        let mut at = start + Duration::from_millis(greedy_before);
        for _ in 0..60 {
            while is_now(budget.take(Lane::Queued, BOB, 1, at)) {}
            let wait = wait_of(budget.take(Lane::Direct, ANN, 1, at));
            prop_assert!(wait <= allowed, "{wait:?} after the queue took all");
            if wait > Duration::ZERO {
                prop_assert!(is_now(budget.take(Lane::Direct, ANN, 1, at + wait)), "the wait was not the truth");
            }
            at += spacing.max(wait);
            // Between two direct sends the queue asks all the time.
            for part in 0..10 {
                while is_now(budget.take(Lane::Queued, BOB, 1, at - spacing + spacing * part / 10)) {}
            }
        }
    }

    #[test]
    fn a_wait_is_exactly_as_long_as_needed(
        per_second in 0.5..2000.0_f64,
        burst in 1..20_u32,
        share in 0.0..=0.95_f64,
        is_direct in any::<bool>(),
    ) {
        let (start, lane) = (Instant::now(), if is_direct { Lane::Direct } else { Lane::Queued });
        let budget = budget(per_second, burst, share, start);
        while is_now(budget.take(lane, ANN, 1, start)) {}
        let wait = wait_of(budget.take(lane, ANN, 1, start));
        prop_assert!(!is_now(budget.take(lane, ANN, 1, start + wait - Duration::from_nanos(1))));
        prop_assert!(is_now(budget.take(lane, ANN, 1, start + wait)));
    }

    #[test]
    fn pauses_hold_and_end(
        throttles in prop::collection::vec((0..20_u64, 0..5_u64, 0..3_u8, 1..10_u64), 1..40),
        asks in prop::collection::vec((0..2000_u64, 0..5_u64), 1..40),
        is_guessed in any::<bool>(),
    ) {
        let start = Instant::now();
        let rule = if is_guessed { ScopeRule::Guessed } else { ScopeRule::Stated };
        let budget = Budget::new(&settings(1e6, 1_000_000, None, 0.2), rule, start);
        let (mut at, mut pauses) = (start, Vec::new());
        for ((seconds, recipient, scope, step), (millis, asked)) in throttles.into_iter().zip(asks) {
            at += SECOND * u32::try_from(seconds).unwrap();
            let scope = ThrottleScope::ALL[usize::from(scope)];
            let pause = budget.throttled(scope, RecipientKey(recipient), SECOND * u32::try_from(step).unwrap(), at);
            prop_assert!(pause.until >= at + SECOND * u32::try_from(step).unwrap());
            pauses.push((pause, recipient));
            at += Duration::from_millis(millis);
            let holding = pauses
                .iter()
                .filter(|(pause, of)| pause.scope != ThrottleScope::Recipient || *of == asked)
                .map(|(pause, _)| pause.until)
                .max();
            let permit = budget.take(Lane::Queued, RecipientKey(asked), 1, at);
            let expected = holding.map_or(Duration::ZERO, |until| until.saturating_duration_since(at));
            prop_assert!(wait_of(permit) >= expected);
            // A guess that widened to the account also rests the chat, which may have struck more often.
            prop_assert!(is_guessed || wait_of(permit) == expected);
        }
    }
}

#[test]
fn it_says_until_when_nothing_leaves_and_why() {
    let start = Instant::now();
    let mut books = day::Books::of(2);
    let budget = Budget::new(&settings(100.0, 10, Some(2), 0.0), ScopeRule::Stated, start);
    books.exchange(1, &budget, start, start);
    assert_eq!(budget.rests_until(start), None);
    budget.throttled(ThrottleScope::Recipient, ANN, SECOND, start);
    assert_eq!(budget.rests_until(start), None, "others are not held up");
    let pause = budget.throttled(ThrottleScope::Account, ANN, 5 * SECOND, start);
    assert_eq!(budget.rests_until(start), Some((pause.until, WaitReason::AccountPaused)));
    let after = pause.until;
    assert_eq!(budget.rests_until(after), None);
    assert!(books.take(1, &budget, 2, start, after));
    for _ in 0..2 {
        books.exchange(1, &budget, start, after);
    }
    let (until, reason) = budget.rests_until(after).expect("the day is used up");
    assert!(reason == WaitReason::Day && until > after + Duration::from_secs(3600));
}

#[test]
fn consecutive_throttles_rest_twice_as_long_until_a_success() {
    let start = Instant::now();
    let budget = budget(100.0, 100, 0.2, start);
    let mut at = start;
    let mut rests = Vec::new();
    for _ in 0..14 {
        let pause = budget.throttled(ThrottleScope::Sender, ANN, SECOND, at);
        // Answers of requests that were under way meanwhile are no strikes, and their successes forgive none.
        assert_eq!(budget.throttled(ThrottleScope::Sender, BOB, SECOND, at), pause);
        budget.succeeded(BOB, at);
        rests.push((pause.until - at).as_secs());
        at = pause.until;
    }
    assert_eq!(rests, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600]);
    budget.succeeded(ANN, at);
    assert_eq!(budget.throttled(ThrottleScope::Sender, ANN, SECOND, at).until - at, SECOND);
}

#[test]
fn a_long_step_is_kept_and_does_not_grow() {
    let start = Instant::now();
    let budget = budget(1.0, 1, 0.0, start);
    let day = SECOND * 24 * 3600;
    let first = budget.throttled(ThrottleScope::Account, ANN, day, start);
    let second = budget.throttled(ThrottleScope::Account, ANN, day, first.until);
    assert_eq!((first.until - start, second.until - first.until), (day, day));
}

#[test]
fn a_resting_recipient_rests_alone_and_its_strikes_are_its_own() {
    let start = Instant::now();
    let budget = budget(1000.0, 100, 0.2, start);
    let first = budget.throttled(ThrottleScope::Recipient, ANN, SECOND, start);
    assert_eq!(first, Pause { scope: ThrottleScope::Recipient, until: start + SECOND });
    let permit = budget.take(Lane::Direct, ANN, 1, start);
    assert_eq!(permit, Permit::Later { wait: SECOND, reason: WaitReason::RecipientPaused });
    assert!(is_now(budget.take(Lane::Queued, BOB, 1, start)));
    assert_eq!(budget.throttled(ThrottleScope::Recipient, BOB, SECOND, start).scope, ThrottleScope::Recipient);

    let second = budget.throttled(ThrottleScope::Recipient, ANN, SECOND, first.until);
    assert_eq!(second.until - first.until, SECOND * 2);
    budget.succeeded(ANN, second.until);
    let third = budget.throttled(ThrottleScope::Recipient, ANN, SECOND, second.until);
    assert_eq!(third.until - second.until, SECOND);
}

#[test]
fn where_the_scope_is_a_guess_a_second_chat_makes_it_the_account() {
    let start = Instant::now();
    let limits = settings(1000.0, 100, None, 0.2);
    let budget = Budget::new(&limits, ScopeRule::of(crate::domain::Channel::Telegram), start);
    let throttled = |recipient, at| budget.throttled(ThrottleScope::Recipient, recipient, SECOND * 7, at).scope;
    assert_eq!(throttled(ANN, start), ThrottleScope::Recipient);
    assert_eq!(throttled(ANN, start + SECOND), ThrottleScope::Recipient);
    assert!(is_now(budget.take(Lane::Queued, BOB, 1, start + SECOND)));
    // Within the first one's pause: it must be the bot.
    assert_eq!(throttled(BOB, start + SECOND * 2), ThrottleScope::Account);
    let permit = budget.take(Lane::Queued, RecipientKey(3), 1, start + SECOND * 2);
    assert_eq!(permit, Permit::Later { wait: SECOND * 7, reason: WaitReason::AccountPaused });
    // Long after both: a chat again.
    assert_eq!(throttled(BOB, start + SECOND * 100), ThrottleScope::Recipient);
}

#[test]
fn the_memory_of_resting_recipients_is_bounded() {
    let start = Instant::now();
    let budget = budget(1000.0, 100, 0.2, start);
    let most = pauses::MOST_RECIPIENTS as u64;
    for n in 0..most {
        let pause = budget.throttled(ThrottleScope::Recipient, RecipientKey(n), SECOND, start);
        assert_eq!(pause.scope, ThrottleScope::Recipient);
    }
    // One more than is remembered: it is the account.
    let pause = budget.throttled(ThrottleScope::Recipient, RecipientKey(most), SECOND, start);
    assert_eq!(pause.scope, ThrottleScope::Account);
    // Once they are over there is room again.
    let pause = budget.throttled(ThrottleScope::Recipient, RecipientKey(most), SECOND, start + SECOND * 2);
    assert_eq!(pause.scope, ThrottleScope::Recipient);
    assert_eq!(budget.state().pauses.remembered(), 1);
}

#[test]
fn nonsense_settings_make_a_slow_budget_and_no_panic() {
    let start = Instant::now();
    for per_second in [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e300, 1e-300] {
        for share in [f64::NAN, -1.0, 0.0, 1.0, 7.0] {
            let budget = Budget::new(&settings(per_second, 0, Some(0), share), ScopeRule::Stated, start);
            let _ = budget.take(Lane::Direct, ANN, 1, start);
            let _ = budget.take(Lane::Queued, ANN, 1, start + SECOND);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn waiters_of_a_lane_are_served_in_order_and_at_the_rate() {
    let start = Instant::now();
    let budget = budget(10.0, 1, 0.0, start);
    let served = Mutex::new(Vec::new());
    let waiters = (0..30).map(|n| {
        let (budget, served) = (&budget, &served);
        async move {
            budget.acquire(Lane::Queued, ANN, 1, start + SECOND * 60).await.unwrap();
            served.lock().unwrap().push((n, Instant::now() - start));
        }
    });
    join_all(waiters).await;
    let served = served.into_inner().unwrap();
    assert!(served.is_sorted(), "{served:?}");
    // A runtime's timer rounds up to whole milliseconds.
    let last = served.last().unwrap().1;
    assert!((2.9..3.0).contains(&last.as_secs_f64()), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn direct_waiters_go_before_queued_ones() {
    let start = Instant::now();
    let budget = budget(10.0, 1, 0.0, start);
    let order = Mutex::new(Vec::new());
    let waiter = |lane| {
        let (budget, order) = (&budget, &order);
        async move {
            budget.acquire(lane, ANN, 1, start + SECOND * 60).await.unwrap();
            order.lock().unwrap().push(lane);
        }
    };
    assert!(is_now(budget.take(Lane::Direct, ANN, 1, start)));
    // The queued ones come first, and yet.
    let mut waiters: Vec<_> = (0..5).map(|_| waiter(Lane::Queued)).collect();
    waiters.extend((0..5).map(|_| waiter(Lane::Direct)));
    join_all(waiters).await;
    assert_eq!(order.into_inner().unwrap(), [[Lane::Direct; 5], [Lane::Queued; 5]].concat());
}

#[tokio::test(start_paused = true)]
async fn a_wait_known_to_be_too_long_is_refused_at_once() {
    let start = Instant::now();
    let budget = budget(10.0, 1, 0.0, start);
    let results = join_all((0..50).map(|_| budget.acquire(Lane::Direct, ANN, 1, start + SECOND))).await;
    // One at once, and one each tenth of a second until the deadline.
    let served = results.iter().filter(|result| result.is_ok()).count();
    assert!((10..=11).contains(&served), "{served}");
    assert!(Instant::now() - start <= SECOND);
    let refused_at = Instant::now();
    budget.throttled(ThrottleScope::Account, ANN, SECOND * 5, refused_at);
    let busy = budget.acquire(Lane::Direct, ANN, 1, refused_at + SECOND).await.unwrap_err();
    assert_eq!(busy, Busy { retry_after: SECOND * 5, reason: WaitReason::AccountPaused });
    assert_eq!(Instant::now(), refused_at);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_resting_recipient_holds_nobody_up() {
    let start = Instant::now();
    let budget = budget(10.0, 1, 0.0, start);
    budget.throttled(ThrottleScope::Recipient, ANN, SECOND * 5, start);
    let resting = async {
        budget.acquire(Lane::Queued, ANN, 1, start + SECOND * 60).await.unwrap();
        Instant::now() - start
    };
    let other = async {
        for _ in 0..10 {
            budget.acquire(Lane::Queued, BOB, 1, start + SECOND * 60).await.unwrap();
        }
        Instant::now() - start
    };
    let (resting, other) = futures::join!(resting, other);
    assert!(resting >= SECOND * 5 && other < SECOND, "{resting:?} {other:?}");
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_leaves_the_line_and_reserves_nothing() {
    let start = Instant::now();
    let budget = budget(10.0, 1, 0.0, start);
    assert!(is_now(budget.take(Lane::Direct, ANN, 1, start)));
    for _ in 0..20 {
        let acquiring = budget.acquire(Lane::Direct, ANN, 1, start + SECOND * 60);
        assert!(tokio::time::timeout(Duration::from_millis(1), acquiring).await.is_err());
    }
    assert!(!budget.lines.is_waiting(Lane::Direct));
    assert!(is_now(budget.take(Lane::Queued, ANN, 1, start + SECOND / 10)));
}

/// How many queued messages leave within ten seconds, asked for as often as there may be room.
fn in_ten_seconds(budgets: &[&Budget], start: Instant) -> u32 {
    let mut count = 0;
    for millisecond in 0..10_000 {
        let now = start + Duration::from_millis(millisecond);
        for budget in budgets {
            while budget.take(Lane::Queued, RecipientKey(1), 1, now) == Permit::Now {
                count += 1;
            }
        }
    }
    count
}

#[test]
fn processes_that_share_an_account_keep_its_rate_together() {
    let start = Instant::now();
    let alone = budget(50.0, 20, 0.0, start);
    let whole = in_ten_seconds(&[&alone], start);
    let [first, second, third] = [0, 1, 2].map(|_| budget(50.0, 20, 0.0, start));
    for budget in [&first, &second, &third] {
        budget.share_with(3, start);
        assert_eq!(budget.sharers(), 3);
    }
    let together = in_ten_seconds(&[&first, &second, &third], start);
    assert!(together <= whole && together >= whole * 9 / 10, "{together} together, {whole} alone");
}

#[test]
fn what_was_taken_stays_taken_when_another_process_comes_or_goes() {
    let start = Instant::now();
    let account = budget(10.0, 10, 0.0, start);
    while account.take(Lane::Queued, RecipientKey(1), 1, start) == Permit::Now {}
    account.share_with(2, start);
    assert!(matches!(account.take(Lane::Queued, RecipientKey(1), 1, start), Permit::Later { .. }));
    account.share_with(1, start);
    assert!(matches!(account.take(Lane::Queued, RecipientKey(1), 1, start), Permit::Later { .. }));
    let later = start + Duration::from_secs(1);
    assert_eq!(account.take(Lane::Queued, RecipientKey(1), 1, later), Permit::Now);
}
