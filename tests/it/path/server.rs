//! One running service, and a client of it.

use std::fs::File;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;
use vestnik::channels::http_client::{HttpClient, HttpError, HttpLimits, HttpRequest};

use super::world::World;
use crate::support::eventually::{LONG, eventually};

/// A running `vestnik serve`. Killed on drop.
pub(super) struct Server {
    pub(super) url: String,
    child: Child,
    client: Client,
    log: PathBuf,
}

/// Asks a server. Cheap to clone, for requests at the same time.
#[derive(Clone)]
pub(super) struct Client {
    http: HttpClient,
    url: String,
    key: Option<String>,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: hyper::HeaderMap,
    pub(super) body: bytes::Bytes,
}

impl Answer {
    #[track_caller]
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{}: {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Its body, if it is a 200.
    #[track_caller]
    pub(super) fn ok(&self) -> Value {
        let body = self.json();
        assert_eq!(self.status, 200, "{body:#}");
        body
    }

    /// Its problem, which has this status.
    #[track_caller]
    pub(super) fn problem(&self, status: u16) -> Value {
        let problem = self.json();
        assert_eq!(self.status, status, "{problem:#}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{problem:#}");
        assert_eq!(problem["status"], status);
        assert!(problem["type"].as_str().unwrap().starts_with("urn:vestnik:"), "{problem:#}");
        let id = self.header("x-request-id").unwrap();
        assert_eq!(problem["instance"], format!("urn:uuid:{id}"));
        problem
    }
}

impl Client {
    /// The same, calling with a key.
    pub(super) fn with_key(&self, key: &str) -> Client {
        Client { key: Some(key.to_owned()), ..self.clone() }
    }

    pub(super) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Result<Answer, HttpError> {
        let request = self.request(method, path, headers, body.into().into());
        let limits = HttpLimits { connect: LONG, total: Duration::from_secs(70), body_bytes: 64 * 1024 * 1024 };
        let answer = self.http.send(request, &limits).await?;
        Ok(Answer { status: answer.status.as_u16(), headers: answer.headers, body: answer.body })
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> HttpRequest {
        let mut all = hyper::HeaderMap::new();
        all.insert("host", self.url.trim_start_matches("http://").parse().unwrap());
        if let Some(key) = &self.key {
            all.insert("authorization", format!("Bearer {key}").parse().unwrap());
        }
        for (name, value) in headers {
            all.insert(hyper::header::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        HttpRequest {
            method: method.parse().unwrap(),
            uri: format!("{}{path}", self.url).parse().unwrap(),
            headers: all,
            body,
        }
    }

    /// Sends a body as it is made.
    pub(super) async fn upload(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        pieces: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Answer {
        let request = self.request("POST", path, headers, Bytes::new());
        let answer = self.http.upload(request, pieces, &HttpLimits::default()).await.unwrap();
        let (status, headers) = (answer.status.as_u16(), answer.headers.clone());
        Answer { status, headers, body: answer.into_bytes(64 * 1024 * 1024).await.unwrap() }
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await.unwrap()
    }

    pub(super) async fn try_post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<Answer, HttpError> {
        let headers = [&[("content-type", "application/json")], headers].concat();
        self.ask("POST", path, &headers, body.to_string()).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.try_post(path, &[], body).await.unwrap()
    }

    pub(super) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask("PUT", path, &[("content-type", "application/json")], body.to_string()).await.unwrap()
    }

    pub(super) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.ask("PATCH", path, &[("content-type", "application/json")], body.to_string()).await.unwrap()
    }

    pub(super) async fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, &[], "").await.unwrap()
    }

    /// A direct send.
    pub(super) async fn send(&self, body: &Value) -> Answer {
        self.post("/v1/notifications", body).await
    }

    /// A direct send that may be repeated.
    pub(super) async fn send_with_key(&self, key: &str, body: &Value) -> Answer {
        self.try_post("/v1/notifications", &[("idempotency-key", key)], body).await.unwrap()
    }

    /// What the ledger says of one.
    pub(super) async fn find(&self, id: &Value) -> Value {
        self.get(&format!("/v1/notifications/{}", id.as_str().unwrap())).await.ok()
    }

    /// All of the ledger, with attempts.
    pub(super) async fn ledger(&self) -> Vec<Value> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/v1/notifications?limit=500{cursor}")).await.ok();
            for listed in page["items"].as_array().unwrap() {
                all.push(self.find(&listed["id"]).await);
            }
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }

    /// Waits until nothing is on its way any more.
    pub(super) async fn settled(&self) {
        eventually(LONG, "all is settled", async || {
            let figures = self.get("/metrics").await;
            // One look at the books: asked status by status, something could move past the question.
            let none = "vestnik_notifications{status=\"in_flight\"} 0";
            String::from_utf8_lossy(&figures.body).lines().any(|line| line == none).then_some(())
        })
        .await;
    }
}

impl std::ops::Deref for Server {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Server {
    pub(super) async fn start(world: &World, settings: &[(&str, &str)]) -> Server {
        Self::start_listening(world, settings, Some("127.0.0.1:0")).await
    }

    /// The same, listening where `listen` says, or else the settings.
    pub(super) async fn start_listening(world: &World, settings: &[(&str, &str)], listen: Option<&str>) -> Server {
        Self::start_with(world, settings, listen, &[]).await
    }

    /// The same, with more arguments.
    pub(super) async fn start_with(
        world: &World,
        settings: &[(&str, &str)],
        listen: Option<&str>,
        arguments: &[&str],
    ) -> Server {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let log = world.dir.path().join(format!("server-{}.log", STARTED.fetch_add(1, Ordering::Relaxed)));
        let mut child = world
            .command(settings)
            .args(["serve", "--json"])
            .args(listen.map(|listen| ["--listen", listen]).into_iter().flatten())
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let greeting = tokio::time::timeout(LONG, lines.next_line()).await.expect("it starts in time").unwrap();
        let Some(greeting) = greeting else {
            panic!("it did not start: {}", std::fs::read_to_string(&log).unwrap_or_default());
        };
        let greeting: Value = serde_json::from_str(&greeting).unwrap();
        let url = greeting["url"].as_str().unwrap().replace("0.0.0.0", "127.0.0.1");
        let client = Client { http: HttpClient::new(), url: url.clone(), key: None };
        // The first phone number that is read loads their tables: a second, in a build without optimisation.
        client.ask("DELETE", "/v1/suppressions/whatsapp/+79990000000", &[], "").await.unwrap();
        Server { url, child, client, log }
    }

    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(super) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().expect("it runs").try_into().unwrap()).unwrap()
    }

    /// The most memory that it ever held at once, in bytes.
    pub(super) fn memory_high_water(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid().as_raw_nonzero())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// `kill -9`, and gone when this returns.
    pub(super) async fn kill(mut self) {
        self.kill_now().await;
    }

    /// The same, for one that is replaced.
    pub(super) async fn kill_now(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for its end.
    pub(super) async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(LONG, self.child.wait()).await.expect("it ends in time").unwrap()
    }

    /// Stops it as a service manager does.
    pub(super) async fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.ended().await;
        assert!(status.success(), "{status}: {}", self.log());
    }

    pub(super) async fn connect(&self) -> std::io::Result<TcpStream> {
        TcpStream::connect(self.address()).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tell_log(&self.url, &self.log());
        }
    }
}

/// The end of a log, shown with a test that fails.
pub(super) fn tell_log(whose: &str, log: &str) {
    let tail: Vec<_> = log.lines().rev().take(60).collect();
    let tail: Vec<_> = tail.into_iter().rev().collect();
    tell(&format!("--- the log of {whose} ends with\n{}\n---", tail.join("\n")));
}

/// Shown with a test that fails.
#[expect(clippy::print_stderr, reason = "shown with a test that fails")]
pub(super) fn tell(text: &str) {
    eprintln!("{text}");
}

/// All that a peer says until it hangs up, or `None` if it does not within the limit.
pub(super) async fn read_to_end(stream: &mut TcpStream, limit: Duration) -> Option<Vec<u8>> {
    let mut said = Vec::new();
    // A reset is an end, too.
    let _ = tokio::time::timeout(limit, stream.read_to_end(&mut said)).await.ok()?;
    Some(said)
}

pub(super) fn whatsapp(phone: &str) -> Value {
    json!({ "channel": "whatsapp", "recipient": phone, "text": "Your order is ready" })
}

pub(super) fn telegram(chat: &str) -> Value {
    json!({ "channel": "telegram", "recipient": chat, "text": "Your order is ready" })
}

pub(super) fn sms(phone: &str) -> Value {
    json!({ "channel": "sms", "recipient": phone, "text": "Your order is ready" })
}

pub(super) fn email(address: &str) -> Value {
    json!({ "channel": "email", "recipient": address, "text": "Your order is ready" })
}

/// A send with some fields more.
pub(super) fn with(mut body: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    body.as_object_mut().unwrap().extend(fields);
    body
}
