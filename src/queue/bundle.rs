//! What travels together.
//!
//! A broker's price is by the message, and what a worker takes at once it makes ready at once: so neighbours share a
//! message. What is in one goes to one worker, and comes again together until all of it is settled.

use super::{Lane, Task};

/// Tasks of one lane, all of them first tries or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    pub(super) lane: Lane,
    pub(super) is_retry: bool,
    /// At least one.
    pub(super) tasks: Vec<Task>,
}

impl Bundle {
    /// Bundles neighbours, up to `most` of them together; the order stays.
    pub fn all(tasks: &[Task], most: usize) -> Vec<Bundle> {
        let kind = |task: &Task| (task.lane, task.retry_count > 0);
        let of_a_kind = tasks.chunk_by(|one, next| kind(one) == kind(next));
        of_a_kind
            .flat_map(|tasks| tasks.chunks(most.max(1)))
            .map(|tasks| {
                let (lane, is_retry) = kind(&tasks[0]);
                Bundle { lane, is_retry, tasks: tasks.to_vec() }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{AccountId, Channel, Generation, NotificationId, Priority};
    use crate::store::ChunkId;

    fn task(number: u128, priority: Priority, retry_count: i16) -> Task {
        Task {
            id: NotificationId(Uuid::from_u128(number)),
            generation: Generation(1),
            chunk: ChunkId(Uuid::nil()),
            account: AccountId(1),
            batch: None,
            lane: Lane { channel: Channel::Sms, priority },
            retry_count,
        }
    }

    fn numbers(tasks: &[Task], most: usize) -> Vec<Vec<u128>> {
        let bundles = Bundle::all(tasks, most);
        bundles.iter().map(|bundle| bundle.tasks.iter().map(|task| task.id.0.as_u128()).collect()).collect()
    }

    #[test]
    fn neighbours_share_a_bundle_and_the_order_stays() {
        let tasks: Vec<_> = (0..5).map(|number| task(number, Priority::Low, 0)).collect();
        assert_eq!(numbers(&tasks, 2), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(numbers(&tasks, 1).len(), 5);
        assert_eq!(numbers(&tasks, 0).len(), 5, "none is left out, whatever is asked");
        assert_eq!(numbers(&[], 2), Vec::<Vec<u128>>::new());
    }

    #[test]
    fn lanes_and_retries_travel_apart() {
        let mixed = [task(0, Priority::High, 0), task(1, Priority::Low, 0), task(2, Priority::Low, 1)];
        assert_eq!(numbers(&mixed, 9), [[0], [1], [2]]);
        assert!(Bundle::all(&mixed, 9)[2].is_retry);
    }
}
