//! The command line: a file per subcommand, each with its arguments and a `run`.
//!
//! Only `serve`, `worker`, `migrate`, `verify`, `doctor` and `keys` open the ledger; the others are clients of the API.

pub mod about;
pub mod batches;
pub mod bench;
pub mod bulk;
pub mod client;
pub mod config;
pub mod confirm;
pub mod dead_letters;
pub mod demo;
pub mod doctor;
pub mod erase;
pub mod import;
pub mod keys;
pub mod ledger;
pub mod notifications;
pub mod openapi;
pub mod preview;
pub mod printer;
pub mod quarantine;
pub mod queues;
pub mod records;
pub mod send;
pub mod serve;
pub mod simulator;
pub mod suppressions;
pub mod templates;
pub mod uncertain;
pub mod undecided;
pub mod watch;

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};

pub use printer::Printer;

use crate::config::{Settings, Sources};

/// Notifications for CRM teams, with books that balance.
#[derive(Debug, Parser)]
#[command(name = "vestnik", version, about, propagate_version = true)]
pub struct Cli {
    /// The settings file; without it `vestnik.toml`, if there is one.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Answer in JSON.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Serve(serve::ServeArgs),
    Worker(serve::WorkerArgs),
    Send(send::SendArgs),
    Bulk(bulk::BulkArgs),
    Preview(preview::PreviewArgs),
    Templates(templates::TemplatesArgs),
    Notifications(notifications::NotificationsArgs),
    Batches(batches::BatchesArgs),
    Queues(queues::QueuesArgs),
    DeadLetters(dead_letters::DeadLettersArgs),
    Uncertain(uncertain::UncertainArgs),
    Quarantine(quarantine::QuarantineArgs),
    Suppressions(suppressions::SuppressionsArgs),
    Erase(erase::EraseArgs),
    Import(import::ImportArgs),
    Records(records::RecordsArgs),
    Config(config::ConfigArgs),
    Doctor(doctor::DoctorArgs),
    Demo(demo::DemoArgs),
    Keys(keys::KeysArgs),
    Migrate(ledger::MigrateArgs),
    Verify(ledger::VerifyArgs),
    Simulator(simulator::SimulatorArgs),
    Bench(bench::BenchArgs),
    Openapi(openapi::OpenapiArgs),
    Completions(CompletionsArgs),
}

/// Print completions for a shell.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    pub shell: clap_complete::Shell,
}

/// How a command ended, beside by an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Well,
    /// It did what it was asked, and what it found is not well: exit code 1.
    Badly,
}

impl Cli {
    pub async fn run(self) -> anyhow::Result<Ended> {
        let printer = Printer::new(self.json);
        let settings = |overrides| Settings::load(&Sources::of_process(self.config.clone(), overrides));
        let usual = || Ok(settings(Vec::new())?);
        match self.command {
            Command::Serve(args) => serve::run(&args, settings(args.overrides())?, printer).await,
            Command::Worker(args) => serve::work(&args, settings(args.overrides())?, printer).await,
            Command::Send(args) => send::run(args, usual, printer).await,
            Command::Bulk(args) => bulk::run(args, usual, printer).await,
            Command::Preview(args) => preview::run(args, usual, printer).await,
            Command::Templates(args) => templates::run(args, usual, printer).await,
            Command::Notifications(args) => notifications::run(args, usual, printer).await,
            Command::Batches(args) => batches::run(args, usual, printer).await,
            Command::Queues(args) => queues::run(args, usual, printer).await,
            Command::DeadLetters(args) => dead_letters::run(args, usual, printer).await,
            Command::Uncertain(args) => uncertain::run(args, usual, printer).await,
            Command::Quarantine(args) => quarantine::run(args, usual, printer).await,
            Command::Suppressions(args) => suppressions::run(args, usual, printer).await,
            Command::Import(args) => import::run(args, usual, printer).await,
            Command::Records(args) => records::run(args, usual, printer).await,
            Command::Erase(args) => erase::run(args, usual, printer).await,
            Command::Config(args) => config::run(&args, &usual()?, printer),
            Command::Demo(args) => demo::run(args, printer).await,
            Command::Doctor(args) => doctor::run(args, usual(), printer).await,
            Command::Keys(args) => keys::run(args, settings(Vec::new())?, printer).await,
            Command::Migrate(args) => ledger::migrate(settings(args.overrides())?, printer).await,
            Command::Verify(args) => ledger::verify(settings(args.overrides())?, printer).await,
            Command::Simulator(args) => simulator::run(args, printer).await.map(|()| Ended::Well),
            Command::Bench(args) => bench::run(args, printer).await,
            Command::Openapi(args) => openapi::run(args, printer),
            Command::Completions(args) => {
                let mut script = Vec::new();
                clap_complete::generate(args.shell, &mut Cli::command(), "vestnik", &mut script);
                printer.text(&String::from_utf8_lossy(&script))?;
                Ok(Ended::Well)
            }
        }
    }
}
