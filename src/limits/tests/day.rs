//! The day's limit, kept by several processes and a ledger between them.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const QUARTER: Duration = Duration::from_secs(15 * 60);

/// The ledger's part: what was spent by quarter of an hour, and what each process has in reserve.
#[derive(Debug)]
pub(super) struct Books {
    limit: u64,
    spent: BTreeMap<u32, u64>,
    reserves: BTreeMap<u32, u64>,
    killed: BTreeSet<u32>,
}

impl Books {
    pub(super) fn of(limit: u64) -> Self {
        Books { limit, spent: BTreeMap::new(), reserves: BTreeMap::new(), killed: BTreeSet::new() }
    }

    /// A process learns, tells and is granted, as it does every second.
    pub(super) fn exchange(&mut self, process: u32, budget: &Budget, start: Instant, now: Instant) {
        self.look(process, budget, start, now);
        self.tell(process, budget.day_wish(true, now), budget, start, now);
    }

    /// Sends one, if the limits let it; for one that finds the reserve too small it is filled up at once.
    pub(super) fn take(&mut self, process: u32, budget: &Budget, weight: u32, start: Instant, now: Instant) -> bool {
        is_now(budget.take(Lane::Queued, ANN, weight, now)) || {
            self.tell(process, budget.day_wish(false, now), budget, start, now);
            is_now(budget.take(Lane::Queued, ANN, weight, now))
        }
    }

    fn tell(&mut self, process: u32, wish: Option<DayWish>, budget: &Budget, start: Instant, now: Instant) {
        let Some(wish) = wish else { return };
        *self.spent.entry(quarter(start, now)).or_default() += wish.spent;
        let others = self.reserved_by_others(process);
        let room = self.limit.saturating_sub(self.within_a_day(start, now) + others);
        let granted = wish.want.min(room).max(wish.held);
        self.reserves.insert(process, granted);
        budget.day_granted(&wish, granted);
    }

    fn look(&self, process: u32, budget: &Budget, start: Instant, now: Instant) {
        let spent: Vec<_> = self
            .spent
            .iter()
            .filter_map(|(quarter, count)| {
                let leaves = start + QUARTER * (quarter + 97);
                (leaves > now).then(|| (*count, leaves - now))
            })
            .collect();
        let reserved = self.reserved_by_others(process);
        let of_dead: u64 = self.killed.iter().filter_map(|dead| self.reserves.get(dead)).sum();
        budget.learn_day(&KnownDay { spent: &spent, reserved, reserved_by_living: reserved - of_dead }, now);
    }

    fn within_a_day(&self, start: Instant, now: Instant) -> u64 {
        self.spent.range((quarter(start, now) + 1).saturating_sub(97)..).map(|(_, count)| count).sum()
    }

    fn reserved_by_others(&self, process: u32) -> u64 {
        self.reserves.iter().filter(|(other, _)| **other != process).map(|(_, reserve)| reserve).sum()
    }
}

fn quarter(start: Instant, now: Instant) -> u32 {
    u32::try_from((now - start).as_secs() / QUARTER.as_secs()).unwrap()
}

fn limited(limit: u64, start: Instant) -> Budget {
    Budget::new(&settings(1e6, 1_000_000, Some(limit), 0.0), ScopeRule::Stated, start)
}

proptest! {
    #[test]
    fn no_24_hours_of_all_processes_hold_more_than_the_day(
        limit in 1..400_u64,
        // After how many minutes which process sends how much, and whether it is killed then.
        steps in prop::collection::vec((0..90_u64, 0..3_usize, 1..12_u32, prop::bool::weighted(0.05), any::<bool>()), 1..300),
    ) {
        let start = Instant::now();
        let mut books = Books::of(limit);
        let mut names = 3;
        let mut processes: Vec<_> = (0..3).map(|n| (n, limited(limit, start))).collect();
        let (mut at, mut sent) = (Duration::ZERO, Vec::new());
        for (minutes, n, weight, is_killed, looks) in steps {
            at += Duration::from_secs(60 * minutes);
            let weight = weight.min(u32::try_from(limit).unwrap());
            let (name, budget) = &mut processes[n];
            budget.share_with(3, start + at);
            if looks {
                books.exchange(*name, budget, start, start + at);
            }
            if is_now(budget.take(Lane::Queued, ANN, weight, start + at)) {
                sent.push((at, u64::from(weight)));
            }
            if is_killed {
                // What it had spent and not told is in what it had in reserve.
                books.killed.insert(*name);
                names += 1;
                processes[n] = (names, limited(limit, start));
            } else {
                books.exchange(*name, budget, start, start + at);
            }
        }
        let day = Duration::from_secs(24 * 3600);
        for (n, (first, _)) in sent.iter().enumerate() {
            let within: u64 = sent[n..].iter().take_while(|(at, _)| *at < *first + day).map(|(_, weight)| weight).sum();
            prop_assert!(within <= limit, "{within} of {limit} from {first:?}");
        }
    }
}

#[test]
fn all_of_a_day_can_be_spent_by_whoever_needs_it() {
    let start = Instant::now();
    let mut books = Books::of(1_000);
    let (busy, idle) = (limited(1_000, start), limited(1_000, start));
    for budget in [&busy, &idle] {
        budget.share_with(2, start);
    }
    let mut sent = 0;
    for second in 0..600 {
        let now = start + SECOND * second;
        books.exchange(2, &idle, start, now);
        books.exchange(1, &busy, start, now);
        for _ in 0..10 {
            sent += u64::from(books.take(1, &busy, 1, start, now));
        }
    }
    assert_eq!(sent, 1_000);
    let end = start + SECOND * 600;
    assert!(
        matches!(idle.rests_until(end), Some((_, WaitReason::Day))),
        "the idle one knows: {:?}",
        idle.rests_until(end)
    );
    assert!(!books.take(2, &idle, 1, start, end));
}

#[test]
fn a_restart_begins_no_new_day_and_a_killed_one_s_reserve_is_small() {
    let start = Instant::now();
    let mut books = Books::of(1_000);
    let mut sent = 0;
    for life in 0..50 {
        let (now, budget) = (start + SECOND * life, limited(1_000, start));
        books.exchange(life, &budget, start, now);
        for _ in 0..10 {
            sent += u64::from(books.take(life, &budget, 1, start, now));
        }
        books.killed.insert(life);
    }
    assert_eq!(sent, 500);
    let budget = limited(1_000, start);
    let now = start + SECOND * 60;
    books.exchange(99, &budget, start, now);
    while books.take(99, &budget, 1, start, now) {
        sent += 1;
    }
    books.exchange(99, &budget, start, now);
    assert!((700..=1_000).contains(&sent), "{sent} of 1,000 left in fifty lives that were killed");
    // What was spent in the first quarter of an hour is a day ago in the 97th.
    let (until, reason) = budget.rests_until(now).expect("the day is used up");
    assert_eq!((until - start, reason), (QUARTER * 97, WaitReason::Day));
    books.exchange(99, &budget, start, until);
    assert!(books.take(99, &budget, 1, start, until));
}

#[test]
fn what_ends_well_leaves_nothing_in_reserve() {
    let start = Instant::now();
    let mut books = Books::of(100);
    for life in 0..10 {
        let budget = limited(100, start);
        books.exchange(life, &budget, start, start);
        for _ in 0..10 {
            assert!(books.take(life, &budget, 1, start, start));
        }
        books.tell(life, budget.last_day_wish(start), &budget, start, start);
    }
    assert_eq!(books.reserved_by_others(99), 0);
    assert_eq!(books.within_a_day(start, start), 100);
}

#[test]
fn what_others_may_give_back_is_waited_for() {
    let start = Instant::now();
    let mut books = Books::of(20);
    let (busy, idle) = (limited(20, start), limited(20, start));
    for (process, budget) in [(1, &busy), (2, &idle)] {
        budget.share_with(2, start);
        books.exchange(process, budget, start, start);
    }
    let mut sent = 0;
    while books.take(1, &busy, 2, start, start) {
        sent += 2;
    }
    assert_eq!(sent, 18, "one part of two is the idle one's");
    books.exchange(1, &busy, start, start);
    let wait = wait_of(busy.take(Lane::Queued, ANN, 2, start));
    assert!(wait <= SECOND * 2, "it waits {wait:?} for what comes back");
    for (process, budget) in [(2, &idle), (1, &busy)] {
        books.exchange(process, budget, start, start + SECOND);
    }
    assert!(books.take(1, &busy, 2, start, start + SECOND * 2));
    assert!(!books.take(1, &busy, 1, start, start + SECOND * 2));
}

#[test]
fn two_that_need_more_than_is_left_to_each_do_not_wait_for_each_other() {
    let start = Instant::now();
    let mut books = Books::of(20);
    let processes = [(1, limited(20, start)), (2, limited(20, start))];
    processes.iter().for_each(|(_, budget)| budget.share_with(2, start));
    let mut sent = 0;
    for second in 0..30 {
        let now = start + SECOND * second;
        for (process, budget) in &processes {
            books.exchange(*process, budget, start, now);
            sent += 3 * u64::from(books.take(*process, budget, 3, start, now));
        }
    }
    assert_eq!(sent, 18, "two are left, and all weigh three");
}

#[test]
fn a_busy_process_asks_seldom() {
    let start = Instant::now();
    let mut books = Books::of(1_000_000);
    let budget = limited(1_000_000, start);
    books.exchange(1, &budget, start, start);
    let mut asked = 0;
    for millisecond in 0..60_000 {
        let now = start + Duration::from_millis(millisecond);
        for _ in 0..2 {
            if !is_now(budget.take(Lane::Queued, ANN, 1, now)) {
                asked += 1;
                books.tell(1, budget.day_wish(false, now), &budget, start, now);
            }
        }
        if millisecond % 1_000 == 0 {
            books.exchange(1, &budget, start, now);
        }
    }
    assert!(asked < 30, "had to wait for a reserve {asked} times in 120,000 messages");
}

#[test]
fn what_could_not_be_told_is_told_again() {
    let start = Instant::now();
    let mut books = Books::of(100);
    let budget = limited(100, start);
    books.exchange(1, &budget, start, start);
    assert!(is_now(budget.take(Lane::Queued, ANN, 1, start)));
    let wish = budget.day_wish(true, start).expect("there is something to tell");
    budget.day_not_told(&wish);
    books.exchange(1, &budget, start, start);
    assert_eq!(books.within_a_day(start, start), 1);
}
