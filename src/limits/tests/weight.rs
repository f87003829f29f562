//! Messages that weigh more than one: an SMS of three parts spends three.

use super::*;

fn weight_of_all(sent: &[(Duration, u32)]) -> f64 {
    sent.iter().map(|(_, weight)| f64::from(*weight)).sum()
}

/// No window holds more than `burst + rate × its length`, of the last message only what fits into a burst counted:
/// what a heavier one has too much is caught up with after it.
fn keeps_within_weights(sent: &[(Duration, u32)], per_second: f64, burst: f64) -> Result<(), TestCaseError> {
    for (n, (first, _)) in sent.iter().enumerate() {
        for (m, (last, weight)) in sent.iter().enumerate().skip(n) {
            let allowed = burst + per_second * (*last - *first).as_secs_f64();
            let held = weight_of_all(&sent[n..m]) + f64::from(*weight).min(burst);
            prop_assert!(held <= allowed + 1e-6, "{held} from {first:?} to {last:?}, {allowed} allowed");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_window_holds_more_weight_than_burst_and_rate(
        per_second in 0.5..2000.0_f64,
        burst in 1..60_u32,
        asks in prop::collection::vec((0..40_u64, 1..80_u32), 1..300),
    ) {
        let start = Instant::now();
        let budget = budget(per_second, burst, 0.0, start);
        let (mut at, mut sent) = (Duration::ZERO, Vec::new());
        for (millis, weight) in asks {
            at += Duration::from_millis(millis);
            if is_now(budget.take(Lane::Queued, ANN, weight, start + at)) {
                sent.push((at, weight));
            }
        }
        keeps_within_weights(&sent, per_second, f64::from(burst))?;
    }

    #[test]
    fn both_lanes_together_keep_the_rate_but_for_one_message_each(
        per_second in 0.5..2000.0_f64,
        burst in 1..60_u32,
        share in 0.0..=1.0_f64,
        asks in prop::collection::vec((0..40_u64, 1..12_u32, any::<bool>()), 1..300),
    ) {
        let start = Instant::now();
        let budget = budget(per_second, burst, share, start);
        let (mut at, mut sent) = (Duration::ZERO, Vec::new());
        for (millis, weight, is_direct) in asks {
            at += Duration::from_millis(millis);
            let lane = if is_direct { Lane::Direct } else { Lane::Queued };
            if is_now(budget.take(lane, ANN, weight, start + at)) {
                sent.push((at, weight));
            }
        }
        for n in 0..sent.len() {
            let allowed = f64::from(burst) + per_second * (at - sent[n].0).as_secs_f64() + 2.0 * 11.0;
            prop_assert!(weight_of_all(&sent[n..]) <= allowed + 1e-6);
        }
    }

    #[test]
    fn a_wait_is_exactly_as_long_as_the_weight_needs(
        per_second in 0.5..2000.0_f64,
        burst in 1..20_u32,
        share in 0.0..=0.95_f64,
        weight in 1..40_u32,
        is_direct in any::<bool>(),
    ) {
        let (start, lane) = (Instant::now(), if is_direct { Lane::Direct } else { Lane::Queued });
        let budget = budget(per_second, burst, share, start);
        // However heavy, it goes out of a full bucket.
        prop_assert!(is_now(budget.take(lane, ANN, weight, start)));
        while is_now(budget.take(lane, ANN, weight, start)) {}
        let wait = wait_of(budget.take(lane, ANN, weight, start));
        prop_assert!(!is_now(budget.take(lane, ANN, weight, start + wait - Duration::from_nanos(1))));
        prop_assert!(is_now(budget.take(lane, ANN, weight, start + wait)));
    }

    #[test]
    fn heavy_direct_sends_leave_the_share_to_those_after_them(
        per_second in 1.0..500.0_f64,
        burst in 20..60_u32,
        share in 0.1..=0.4_f64,
        weight in 2..200_u32,
    ) {
        let start = Instant::now();
        let budget = budget(per_second, burst, share, start);
        let own_burst = (f64::from(burst) * share) as u32;
        // Too heavy for the direct sends' own part: it takes from the queue's.
        let is_heavy = weight > own_burst;
        prop_assert!(is_now(budget.take(Lane::Direct, ANN, weight, start)));
        let left = if is_heavy { own_burst } else { own_burst - weight };
        for n in 0..left {
            prop_assert!(is_now(budget.take(Lane::Direct, ANN, 1, start)), "{n} of {left}");
        }
    }
}

#[test]
fn three_parts_spend_three() {
    let start = Instant::now();
    let mut books = day::Books::of(10);
    let budget = Budget::new(&settings(1.0, 6, Some(10), 0.0), ScopeRule::Stated, start);
    books.exchange(1, &budget, start, start);
    assert!(books.take(1, &budget, 3, start, start));
    assert!(books.take(1, &budget, 3, start, start));
    assert!(!books.take(1, &budget, 3, start, start));
    assert_eq!(wait_of(budget.take(Lane::Queued, ANN, 3, start)), SECOND * 3);
    assert!(books.take(1, &budget, 3, start, start + SECOND * 3));
    // Nine of the day's ten are spent.
    assert!(!books.take(1, &budget, 2, start, start + SECOND * 60));
    let permit = budget.take(Lane::Queued, ANN, 2, start + SECOND * 60);
    assert!(matches!(permit, Permit::Later { reason: WaitReason::Day, .. }), "{permit:?}");
    assert!(books.take(1, &budget, 1, start, start + SECOND * 60));
}

#[test]
fn what_is_heavier_than_the_burst_goes_and_is_caught_up_with() {
    let start = Instant::now();
    let budget = budget(1.0, 2, 0.0, start);
    assert!(is_now(budget.take(Lane::Queued, ANN, 5, start)));
    // Of five, two were the burst's: the bucket is empty for three seconds more, and has one a second later.
    assert_eq!(wait_of(budget.take(Lane::Queued, BOB, 1, start)), SECOND * 4);
    assert_eq!(wait_of(budget.take(Lane::Queued, BOB, 5, start)), SECOND * 5);
    assert!(is_now(budget.take(Lane::Queued, BOB, 1, start + SECOND * 4)));
}

#[tokio::test(start_paused = true)]
async fn a_heavy_one_at_the_head_is_not_overtaken() {
    let start = Instant::now();
    let budget = budget(10.0, 4, 0.0, start);
    let served = Mutex::new(Vec::new());
    let waiter = |n: u32, weight: u32| {
        let (budget, served) = (&budget, &served);
        async move {
            budget.acquire(Lane::Queued, ANN, weight, start + SECOND * 60).await.unwrap();
            served.lock().unwrap().push((n, (Instant::now() - start).as_millis()));
        }
    };
    assert!(is_now(budget.take(Lane::Queued, BOB, 4, start)));
    // There is room for the light ones sooner, and yet they wait behind the heavy one, which then is caught up with.
    join_all([waiter(0, 9), waiter(1, 1), waiter(2, 1)]).await;
    assert_eq!(served.into_inner().unwrap(), [(0, 400), (1, 1000), (2, 1100)]);
}

#[tokio::test(start_paused = true)]
async fn a_heavy_direct_send_does_not_wait_behind_a_greedy_queue() {
    let start = Instant::now();
    let budget = budget(10.0, 10, 0.2, start);
    while is_now(budget.take(Lane::Queued, BOB, 1, start)) {}
    let greedy = async {
        let mut sent = 0;
        while budget.acquire(Lane::Queued, BOB, 1, start + SECOND * 2).await.is_ok() {
            sent += 1;
        }
        sent
    };
    let heavy = async {
        budget.acquire(Lane::Direct, ANN, 5, start + SECOND * 2).await.unwrap();
        Instant::now() - start
    };
    let (waited, _) = futures::join!(heavy, greedy);
    // The queue's part makes eight a second.
    assert!(waited <= Duration::from_millis(700), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn weight_in_line_is_told_before_it_is_waited_for() {
    let start = Instant::now();
    let budget = budget(10.0, 5, 0.0, start);
    assert!(is_now(budget.take(Lane::Direct, ANN, 5, start)));
    let results = join_all((0..10).map(|_| budget.acquire(Lane::Direct, ANN, 5, start + SECOND))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 2);
    let refused = results.iter().filter_map(|result| result.as_ref().err());
    assert!(refused.clone().all(|busy| busy.reason == WaitReason::Rate), "{results:?}");
}
