//! A service spread over processes, a broker and a database server: each is killed in turn, in the middle of campaigns.

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

use super::{accepted, all_over, assert_at_most_once, campaign_body, faulty_providers, kills, tell_figures};
use crate::path::crashes::{moment, pass, seed, throw};
use crate::path::server::{Answer, Client, Server, tell};
use crate::path::worker::Worker;
use crate::path::world::World;
use crate::support::eventually::{LONG, eventually};
use crate::support::postgres::TestDatabase;
use crate::support::postgres_server::PostgresServer;
use crate::support::rabbitmq::{self, Alone, Vhost};

/// Sends that one process has on their way at most: what a kill can leave uncertain.
const AT_ONCE: usize = 24;
/// Of each campaign: long enough to be hit in its middle.
const RECIPIENTS: u64 = 160;
/// A lease is longer than a busy machine's database is away: only the killed may count as lost.
const SETTINGS: [(&str, &str); 3] = [
    ("VESTNIK__DELIVERY__CONCURRENCY", "24"),
    ("VESTNIK__DELIVERY__LEASE_MS", "8000"),
    ("VESTNIK__DELIVERY__SEND_DEADLINE_MS", "3000"),
];
/// Chance has a row of numbers for each of these, beside the one of the moments.
const VICTIMS: u64 = 1 << 32;
const WORKERS: u64 = 2 << 32;
const ROLES: u64 = 3 << 32;
const EARLY: u64 = 4 << 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Worker,
    Server,
    Broker,
    Database,
}

impl Victim {
    const ALL: [Victim; 4] = [Victim::Worker, Victim::Server, Victim::Broker, Victim::Database];

    /// All of them once before any comes again, in an order by chance.
    fn of_round(seed: u64, round: u64) -> Victim {
        let mut left = Victim::ALL.to_vec();
        let first = round / 4 * 4;
        for before in first..round {
            left.remove(chosen(seed, before, left.len()));
        }
        left[chosen(seed, round, left.len())]
    }
}

fn chosen(seed: u64, round: u64, among: usize) -> usize {
    usize::try_from(throw(seed, VICTIMS + round, among as u64)).unwrap()
}

/// All that runs.
struct Service<'a> {
    world: &'a World,
    settings: &'a [(&'a str, &'a str)],
    seed: u64,
    postgres: &'a mut PostgresServer,
    vhost: &'a Vhost<Alone>,
    server: Server,
    workers: Vec<Worker>,
    /// Of the server that runs now.
    client: watch::Sender<Client>,
}

impl<'a> Service<'a> {
    async fn start(
        world: &'a World,
        settings: &'a [(&'a str, &'a str)],
        seed: u64,
        postgres: &'a mut PostgresServer,
        vhost: &'a Vhost<Alone>,
    ) -> Self {
        let server = Self::serve(world, settings, "api,relay").await;
        let workers = tokio::join!(Worker::start(world, settings), Worker::start(world, settings));
        let workers = vec![workers.0, workers.1];
        let client = watch::Sender::new(server.client());
        Service { world, settings, seed, postgres, vhost, server, workers, client }
    }

    async fn serve(world: &World, settings: &[(&str, &str)], roles: &str) -> Server {
        Server::start_with(world, settings, Some("127.0.0.1:0"), &["--roles", roles]).await
    }

    /// Kills one part and starts it again.
    async fn kill(&mut self, victim: Victim, round: u64) {
        match victim {
            Victim::Worker => {
                let index = throw(self.seed, WORKERS + round, self.workers.len() as u64);
                self.workers.swap_remove(usize::try_from(index).unwrap()).kill().await;
                self.workers.push(Worker::start(self.world, self.settings).await);
            }
            Victim::Server => {
                let roles =
                    ["api,relay", "api,relay,worker"][usize::try_from(throw(self.seed, ROLES + round, 2)).unwrap()];
                self.server.kill_now().await;
                self.server = Self::serve(self.world, self.settings, roles).await;
                self.client.send_replace(self.server.client());
            }
            Victim::Broker => {
                self.vhost.broker.kill();
                self.vhost.broker.run().await;
            }
            Victim::Database => {
                self.postgres.kill().await;
                self.postgres.run().await;
            }
        }
    }

    async fn stop(self) {
        for worker in self.workers {
            worker.stop().await;
        }
        self.server.stop().await;
    }
}

/// Repeats a call with the same key until it is accepted, by whichever server there is.
async fn accept(client: watch::Receiver<Client>, round: u64) -> (String, Vec<Value>) {
    let again = async || try_accept(client.borrow().clone(), round).await;
    accepted(&eventually(2 * LONG, "the campaign is accepted", again).await)
}

async fn try_accept(client: Client, round: u64) -> Option<Answer> {
    let (body, key) = (campaign_body(round, RECIPIENTS), format!("campaign-{round}"));
    let answer = client.try_post("/v1/notifications/bulk", &[("idempotency-key", &key)], &body).await.ok()?;
    match answer.status {
        202 => Some(answer),
        // The ledger is away, or the call that was cut off is not given up yet.
        503 | 409 => None,
        status => panic!("{status}: {}", answer.json()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn campaigns_while_everything_is_killed_in_turn() {
    LocalSet::new().run_until(killed_in_turn()).await;
}

async fn killed_in_turn() {
    let (seed, kills) = (seed(), kills(4));
    let (Some(broker), Some(mut postgres)) = tokio::join!(rabbitmq::alone(), PostgresServer::start()) else { return };
    let world = World::on(TestDatabase::on(postgres.url()).await).await;
    let vhost = Vhost::on(broker).await;
    let url = vhost.url();
    let settings = [&SETTINGS[..], &[("RABBITMQ_URL", &url)]].concat();
    faulty_providers(&world, seed, &json!({ "min": 20, "p50": 150, "p99": 600 }));
    let mut service = Service::start(&world, &settings, seed, &mut postgres, &vhost).await;
    let mut accepting = JoinSet::new();
    for round in 0..kills {
        let call = accept(service.client.subscribe(), round);
        accepting.spawn_local(call);
        // Sometimes so early that the call itself is hit.
        match throw(seed, EARLY + 2 * round, 4) {
            0 => pass(std::time::Duration::from_micros(throw(seed, EARLY + 2 * round + 1, 150_000))).await,
            _ => moment(&world, seed, round, RECIPIENTS).await,
        }
        let victim = Victim::of_round(seed, round);
        tell(&format!("round {round}: {victim:?} is killed, {} taken", world.simulator.taken_count()));
        service.kill(victim, round).await;
    }
    let (batches, told): (Vec<_>, Vec<_>) = accepting.join_all().await.into_iter().unzip();
    let ledger = all_over(&service.server, &batches, RECIPIENTS).await;
    let report = world.assert_books(&service.server, &told.concat()).await;
    assert_at_most_once(&world, &ledger, kills, AT_ONCE);
    let of = |victim| (0..kills).filter(|round| Victim::of_round(seed, *round) == victim).count();
    let killed = Victim::ALL.map(|victim| (victim, of(victim)));
    tell_figures(&world, &format!("killed {killed:?}"), &report, &ledger);
    service.stop().await;
}

#[test]
fn each_is_killed_once_in_four_rounds() {
    for seed in 0..50 {
        for first in [0, 4, 40] {
            let four: Vec<_> = (first..first + 4).map(|round| Victim::of_round(seed, round)).collect();
            assert!(Victim::ALL.iter().all(|victim| four.contains(victim)), "{four:?}");
        }
    }
}
