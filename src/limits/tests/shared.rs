//! What rests in one process rests in all.

use super::*;

fn pair(rule: ScopeRule, start: Instant) -> [Budget; 2] {
    [(); 2].map(|()| Budget::new(&settings(1e6, 1_000_000, None, 0.0), rule, start))
}

fn carry(from: &Budget, to: &Budget, now: Instant) -> usize {
    let rests = from.untold_rests(now);
    rests.iter().for_each(|rest| to.learn_rest(rest, now));
    rests.len()
}

#[test]
fn a_throttle_of_the_account_holds_the_others_and_counts_as_their_strike() {
    let start = Instant::now();
    let [one, other] = pair(ScopeRule::Stated, start);
    let pause = one.throttled(ThrottleScope::Account, ANN, SECOND * 5, start);
    assert_eq!(carry(&one, &other, start + SECOND), 1);
    assert_eq!(carry(&one, &other, start + SECOND), 0, "it is told once");
    assert_eq!(carry(&other, &one, start + SECOND), 0, "what was learnt is not told back");
    let permit = other.take(Lane::Queued, BOB, 1, start + SECOND);
    assert_eq!(permit, Permit::Later { wait: SECOND * 4, reason: WaitReason::AccountPaused });
    assert_eq!(other.rests_until(start), Some((pause.until, WaitReason::AccountPaused)));
    // Whichever is throttled when it is over: it is the second time.
    let again = other.throttled(ThrottleScope::Account, BOB, SECOND * 5, pause.until);
    assert_eq!(again.until - pause.until, SECOND * 10);
    // A success forgives what was learnt, too.
    carry(&other, &one, pause.until);
    one.succeeded(ANN, again.until);
    assert_eq!(one.throttled(ThrottleScope::Account, ANN, SECOND, again.until).until - again.until, SECOND);
}

#[test]
fn a_throttle_of_a_recipient_holds_that_recipient_in_the_others() {
    let start = Instant::now();
    let [one, other] = pair(ScopeRule::Stated, start);
    one.throttled(ThrottleScope::Recipient, ANN, SECOND * 5, start);
    carry(&one, &other, start);
    let permit = other.take(Lane::Queued, ANN, 1, start);
    assert_eq!(permit, Permit::Later { wait: SECOND * 5, reason: WaitReason::RecipientPaused });
    assert!(is_now(other.take(Lane::Queued, BOB, 1, start)));
}

#[test]
fn where_the_scope_is_a_guess_chats_of_all_processes_count() {
    let start = Instant::now();
    let [one, other] = pair(ScopeRule::Guessed, start);
    one.throttled(ThrottleScope::Recipient, ANN, SECOND * 5, start);
    carry(&one, &other, start);
    assert_eq!(other.throttled(ThrottleScope::Recipient, BOB, SECOND * 5, start).scope, ThrottleScope::Account);
}

#[test]
fn a_shorter_rest_shortens_none_and_what_is_over_is_not_told() {
    let start = Instant::now();
    let [one, other] = pair(ScopeRule::Stated, start);
    let long = other.throttled(ThrottleScope::Account, ANN, SECOND * 60, start);
    one.throttled(ThrottleScope::Account, ANN, SECOND * 5, start);
    carry(&one, &other, start);
    assert_eq!(other.rests_until(start), Some((long.until, WaitReason::AccountPaused)));
    one.throttled(ThrottleScope::Account, ANN, SECOND * 5, start);
    let later = start + SECOND * 20;
    assert_eq!(carry(&one, &other, later), 0);
}

#[test]
fn what_could_not_be_told_is_kept() {
    let start = Instant::now();
    let [one, other] = pair(ScopeRule::Stated, start);
    one.throttled(ThrottleScope::Account, ANN, SECOND * 5, start);
    one.throttled(ThrottleScope::Recipient, BOB, SECOND * 5, start);
    let rests = one.untold_rests(start);
    one.not_told(&rests);
    assert_eq!(carry(&one, &other, start), 2);
}
