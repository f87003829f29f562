//! The service as its users meet it: the real program, started, asked over HTTP, killed and started again, with the
//! providers' stand-in at its other end. Every test has a ledger and a stand-in of its own and ends with the books.

mod accounts;
mod auto;
mod away;
mod books;
mod broker;
mod broker_tls;
mod bulk;
mod chaos;
mod crashes;
mod dead_letters;
mod erasing;
mod http;
mod idempotency;
mod import;
mod kept_elsewhere;
mod moves;
mod nest;
mod on_failure;
mod outcomes;
mod processes;
mod queues;
mod records;
mod server;
mod shared_accounts;
mod sharing;
mod sms;
mod stopping;
mod worker;
mod world;

/// Writes each test twice, once per ledger.
macro_rules! on_both_ledgers {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name($crate::path::world::World::sqlite().await).await;
                }
            )*
        }

        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    if let Some(world) = $crate::path::world::World::postgres().await {
                        super::$name(world).await;
                    }
                }
            )*
        }
    };
}
use on_both_ledgers;
