//! The stand-in seen from outside: raw bytes in, raw bytes out.

mod control;
mod faults;
mod inbox;
mod limits;
mod mail;
mod mail_faults;
mod receipts;
mod scenarios;
mod sms;
mod telegram;
mod whatsapp;

use std::io;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use vestnik::domain::{Clock, SystemClock};
use vestnik::simulator::{Scenario, Simulator, SimulatorOptions, SmtpOptions};

const WHATSAPP_PATH: &str = "/v23.0/100000000000001/messages";
const TELEGRAM_PATH: &str = "/bot1000001:sim-token/sendMessage";

/// Starts a simulator on a free port; `scenario` is its JSON.
async fn start(scenario: Value) -> Simulator {
    start_at(scenario, Arc::new(SystemClock)).await
}

/// The same with a clock of the test's own.
async fn start_at(scenario: Value, clock: Arc<dyn Clock>) -> Simulator {
    let scenario = Scenario::parse(scenario.to_string().as_bytes()).unwrap();
    let options = SimulatorOptions { scenario, clock, ..SimulatorOptions::default() };
    Simulator::start(options).await.unwrap()
}

/// The same with a mail server, in plain text and with TLS from the start.
async fn start_with_mail(scenario: Value) -> Simulator {
    let scenario = Scenario::parse(scenario.to_string().as_bytes()).unwrap();
    let free = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let smtp = Some(SmtpOptions { listen: free, tls_listen: Some(free), ca_file: None });
    Simulator::start(SimulatorOptions { scenario, smtp, ..SimulatorOptions::default() }).await.unwrap()
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// WhatsApp's error code.
    fn code(&self) -> u64 {
        self.json()["error"]["code"].as_u64().unwrap()
    }

    /// Telegram's description.
    fn description(&self) -> String {
        self.json()["description"].as_str().unwrap().to_owned()
    }

    fn parse(raw: &[u8]) -> Answer {
        let end = raw.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(raw[..end].to_vec()).unwrap();
        let status = head[9..12].parse().unwrap();
        Answer { status, head, body: raw[end + 4..].to_vec() }
    }
}

/// One request on a connection of its own, written as given and read to its end.
async fn exchange(simulator: &Simulator, request: &[u8]) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(simulator.addr()).await?;
    stream.write_all(request).await?;
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).await?;
    if raw.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(Answer::parse(&raw)) }
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

const WHATSAPP_HEADERS: &str = "Authorization: Bearer sim-token\r\nContent-Type: application/json\r\n";
const JSON_HEADER: &str = "Content-Type: application/json\r\n";

fn whatsapp_request(body: &Value) -> Vec<u8> {
    request("POST", WHATSAPP_PATH, WHATSAPP_HEADERS, &body.to_string())
}

fn telegram_request(body: &Value) -> Vec<u8> {
    request("POST", TELEGRAM_PATH, JSON_HEADER, &body.to_string())
}

fn whatsapp_text(to: &str) -> Value {
    json!({
        "messaging_product": "whatsapp", "recipient_type": "individual", "to": to, "type": "text",
        "text": { "body": "Привет" }, "biz_opaque_callback_data": format!("id-{to}"),
    })
}

async fn whatsapp(simulator: &Simulator, body: &Value) -> Answer {
    exchange(simulator, &whatsapp_request(body)).await.unwrap()
}

async fn telegram(simulator: &Simulator, body: &Value) -> Answer {
    exchange(simulator, &telegram_request(body)).await.unwrap()
}

async fn get(simulator: &Simulator, path: &str) -> Answer {
    exchange(simulator, &request("GET", path, "", "")).await.unwrap()
}

async fn send(simulator: &Simulator, method: &str, path: &str, body: &Value) -> Answer {
    exchange(simulator, &request(method, path, JSON_HEADER, &body.to_string())).await.unwrap()
}
