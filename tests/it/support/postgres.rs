//! A PostgreSQL database for each test, dropped when the test is over.
#![expect(clippy::disallowed_methods, reason = "where the test server is comes from the environment, as in CI")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use std::sync::Once;
use std::time::Duration;

use tokio_postgres::NoTls;

const FALLBACK_URL: &str = "postgres://postgres@127.0.0.1:5432/postgres";
/// A server on this machine answers in milliseconds; a loaded one in seconds.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// One database of one test.
pub(crate) struct TestDatabase {
    admin_url: String,
    name: String,
}

impl TestDatabase {
    /// `None` only when skipping was allowed.
    ///
    /// # Panics
    /// When no server answers: a promise that was not checked is not kept.
    pub(crate) async fn create() -> Option<Self> {
        let from_env = std::env::var("VESTNIK_TEST_PG_URL").ok();
        let admin_url = from_env.unwrap_or_else(|| FALLBACK_URL.to_owned());
        let client = match connect(&admin_url).await {
            Ok(client) => client,
            Err(error) if std::env::var("VESTNIK_TEST_ALLOW_SKIP").is_ok_and(|value| value == "1") => {
                eprintln!("SKIPPED: no PostgreSQL ({error}), and VESTNIK_TEST_ALLOW_SKIP=1");
                return None;
            }
            Err(error) => panic!(
                "no PostgreSQL to test with: {error}. Start one, name it in VESTNIK_TEST_PG_URL (its user may create \
                 databases), or set VESTNIK_TEST_ALLOW_SKIP=1"
            ),
        };
        remove_leftovers(&admin_url);
        Some(Self::make(&client, admin_url).await)
    }

    /// One on a server of the test's own, which has to outlive it.
    pub(crate) async fn on(admin_url: String) -> Self {
        let client = connect(&admin_url).await.unwrap();
        Self::make(&client, admin_url).await
    }

    async fn make(client: &tokio_postgres::Client, admin_url: String) -> Self {
        // The process id tells the leftovers of dead runs from the databases of living ones.
        let name = format!("vestnik_test_p{}_{:016x}", std::process::id(), getrandom::u64().unwrap());
        // template0 is what nobody else is connected to.
        client.batch_execute(&format!("CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")).await.unwrap();
        TestDatabase { admin_url, name }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn url(&self) -> String {
        let mut url = with_database(&self.admin_url, &self.name);
        url.push_str(if url.contains('?') { "&sslmode=disable" } else { "?sslmode=disable" });
        url
    }

    /// The same database, reached through another address.
    pub(crate) fn url_at(&self, address: std::net::SocketAddr) -> String {
        let url = self.url();
        let (scheme, rest) = url.split_once("://").unwrap();
        let (authority, path) = rest.split_once('/').unwrap();
        let user = authority.rsplit_once('@').map_or(String::new(), |(user, _)| format!("{user}@"));
        format!("{scheme}://{user}{address}/{path}")
    }

    /// Where the server listens.
    pub(crate) fn server(&self) -> (String, u16) {
        let config: tokio_postgres::Config = self.url().parse().unwrap();
        let host = match config.get_hosts().first() {
            Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
            other => panic!("the tests' proxy needs a server on TCP, not {other:?}"),
        };
        (host, config.get_ports().first().copied().unwrap_or(5432))
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        run_apart(self.admin_url.clone(), move |client| async move {
            if let Err(error) = client.batch_execute(&drop).await {
                eprintln!("a test database stays behind: {error}");
            }
        });
    }
}

pub(crate) async fn connect(url: &str) -> Result<tokio_postgres::Client, String> {
    let connecting = tokio::time::timeout(CONNECT_LIMIT, tokio_postgres::connect(url, NoTls));
    let (client, connection) =
        connecting.await.map_err(|_| "it does not answer".to_owned())?.map_err(|error| format!("{error:?}"))?;
    tokio::spawn(connection);
    Ok(client)
}

/// Databases of processes that are gone, once per run.
fn remove_leftovers(admin_url: &str) {
    static ONCE: Once = Once::new();
    let url = admin_url.to_owned();
    ONCE.call_once(move || {
        run_apart(url, |client| async move {
            // A database that somebody is connected to is no leftover, whatever its name says.
            let query = "SELECT datname FROM pg_database d WHERE datname LIKE 'vestnik\\_test\\_p%'
                         AND NOT EXISTS (SELECT 1 FROM pg_stat_activity a WHERE a.datname = d.datname)";
            for row in client.query(query, &[]).await.unwrap_or_default() {
                let name: String = row.get(0);
                let process =
                    name.trim_start_matches("vestnik_test_p").split('_').next().unwrap_or_default().to_owned();
                let is_ours = process.parse::<u32>().is_ok();
                if is_ours && !std::path::Path::new("/proc").join(process).exists() {
                    let _ = client.batch_execute(&format!("DROP DATABASE IF EXISTS {name}")).await;
                }
            }
        });
    });
}

/// Runs on a thread and a runtime of its own, so that it also works while a test's runtime is ending.
fn run_apart<F>(url: String, work: impl FnOnce(tokio_postgres::Client) -> F + Send + 'static)
where
    F: Future<Output = ()>,
{
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            match connect(&url).await {
                Ok(client) => work(client).await,
                Err(error) => eprintln!("cannot tidy up test databases: {error}"),
            }
        });
    });
    let _ = thread.join();
}

fn with_database(url: &str, name: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("a PostgreSQL URL");
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let query = path.split_once('?').map_or(String::new(), |(_, query)| format!("?{query}"));
    format!("{scheme}://{authority}/{name}{query}")
}
