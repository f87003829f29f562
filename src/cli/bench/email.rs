//! `vestnik bench email`: emails through the adapter alone, over few connections, to the simulator's mail server.
//!
//! The simulator is a process of its own, so that its CPU is told apart from ours. No ledger and no API take part.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use serde_json::json;
use uuid::Uuid;

use super::measure::{as_float, cpu_of, own_cpu, table};
use super::process::Process;
use crate::channels::{Email, Provider as _};
use crate::cli::{Ended, Printer};
use crate::domain::{Channel, Content, EmailContent, NotificationId, Outcome, OutgoingMessage, Recipient, SystemClock};

/// No send of a measurement takes longer.
const LIMIT: Duration = Duration::from_secs(60);
/// Sends that wait for each connection, so that none is ever idle for want of a message.
const WAITING_PER_CONNECTION: usize = 4;
/// Before the measurement: connections stand, and both programs have met every line of theirs.
const WARM_UP: u64 = 200;

/// Emails over few SMTP connections: messages a second, CPU per message.
#[derive(Debug, clap::Args)]
pub struct EmailArgs {
    /// Emails of the round, each with text and HTML.
    #[arg(long, default_value_t = 20_000)]
    pub messages: u64,
    /// Connections at the same time.
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
}

pub async fn run(args: EmailArgs, printer: Printer) -> anyhow::Result<Ended> {
    ensure!(args.messages > 0 && args.connections > 0, "nothing to measure");
    let simulator = Process::start("simulator", &["--listen", "127.0.0.1:0"], &BTreeMap::new()).await?;
    let address = simulator.greeting["smtp"]["address"].as_str().context("the simulator takes mail")?;
    let address: SocketAddr = address.parse().context("the simulator takes mail at an address")?;
    let settings = serde_json::from_value(json!({
        "host": address.ip(), "port": address.port(), "tls": "none", "from": "Север <news@example.com>",
        "connections": args.connections,
    }))?;
    let provider = Email::new("main", &settings, Arc::new(SystemClock))?;
    send(&provider, WARM_UP.min(args.messages), args.connections).await?;

    let (own_before, simulator_before) = (own_cpu(), cpu_of(simulator.id()?));
    let started = Instant::now();
    send(&provider, args.messages, args.connections).await?;
    let took = started.elapsed();
    let messages = as_float(args.messages);
    let per_message = |cpu: Duration| cpu.as_secs_f64() * 1e6 / messages;
    let own_cpu_us = per_message(own_cpu().saturating_sub(own_before));
    let simulator_cpu_us = per_message(cpu_of(simulator.id()?).saturating_sub(simulator_before));
    let per_second = messages / took.as_secs_f64();
    let summary = json!({
        "messages": args.messages, "connections": args.connections, "perSecond": per_second,
        "ownCpuUs": own_cpu_us, "simulatorCpuUs": simulator_cpu_us,
    });
    printer.either(&summary, || {
        table(
            &["emails", "connections", "a second", "own CPU µs", "simulator µs"],
            &[vec![
                args.messages.to_string(),
                args.connections.to_string(),
                format!("{per_second:.0}"),
                format!("{own_cpu_us:.0}"),
                format!("{simulator_cpu_us:.0}"),
            ]],
        )
    })?;
    simulator.stop().await?;
    Ok(Ended::Well)
}

/// Sends so many, and wants every one accepted.
async fn send(provider: &Email, messages: u64, connections: usize) -> anyhow::Result<()> {
    let next = AtomicU64::new(0);
    let senders = (0..connections * WAITING_PER_CONNECTION).map(async |_| {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= messages {
                return anyhow::Ok(());
            }
            let outcome = provider.send(&message(n)?, LIMIT).await;
            ensure!(matches!(outcome, Outcome::Accepted { .. }), "email {n} was not taken: {outcome:?}");
        }
    });
    try_join_all(senders).await.map(|_| ())
}

/// What a shop says of an order, about 1 KB as text and HTML.
fn message(n: u64) -> anyhow::Result<OutgoingMessage> {
    let text = format!(
        "Анна, ваш заказ №{n} готов: 3 товара на 12 500,50 ₽.\n\nЖдём вас с 7 января 2026, 12:00 по адресу \
         Невский пр., 28.\n\nВаш менеджер: Пётр Волков, +7 999 765-43-21"
    );
    let paragraphs: String =
        text.split("\n\n").map(|line| format!("<p style=\"margin: 0 0 16px\">{line}</p>\n")).collect();
    let html = format!(
        "<div style=\"font-family: Arial, sans-serif; max-width: 520px\">\n<h1>Заказ №{n}</h1>\n{paragraphs}</div>"
    );
    Ok(OutgoingMessage {
        id: NotificationId(Uuid::from_u128(u128::from(n) + 1)),
        recipient: Recipient::parse(Channel::Email, &format!("person{n}@example.org"), None)?,
        content: Content::Email(EmailContent {
            subject: format!("Заказ №{n} готов"),
            html: Some(html),
            text,
            attachments: Vec::new(),
        }),
    })
}
