//! The mail server's stand-in: SMTP on ports of its own, with STARTTLS or TLS from the start.
//!
//! It checks a conversation (`session`, `command`) and a mail (`mail`) as strict servers do, refuses with the codes
//! they use (`reply`), and goes wrong at any step the scenario names (`fault`). What it takes is in the record, a
//! recipient each.

mod command;
mod fault;
mod mail;
mod reply;
mod session;
mod tls;
mod transaction;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::fault::{SLOW_REPLY_PAUSE, SmtpFault, SmtpFaultKind, SmtpStage};
pub(super) use self::reply::ScriptedReply;
use super::stage::Stage;

/// What the answer to EHLO may offer; all of it unless the scenario says otherwise.
pub const EXTENSIONS: [&str; 7] =
    ["PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "STARTTLS", "AUTH"];
/// Who may log in unless the scenario says otherwise.
pub const DEFAULT_USER: &str = "sim";
pub const DEFAULT_PASSWORD: &str = "sim-password";

/// Where mail is taken.
#[derive(Clone, Debug)]
pub struct SmtpOptions {
    /// In plain text, with STARTTLS. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// With TLS from the start.
    pub tls_listen: Option<SocketAddr>,
    /// Where the certificate goes that a client must trust.
    pub ca_file: Option<PathBuf>,
}

/// A running mail server.
pub(super) struct SmtpServer {
    pub(super) addr: SocketAddr,
    pub(super) tls_addr: Option<SocketAddr>,
    pub(super) ca_pem: String,
}

impl SmtpServer {
    /// Serves from tasks of the tracker's until it is stopped.
    pub(super) async fn start(
        options: &SmtpOptions,
        stage: &Arc<Stage>,
        stopping: &CancellationToken,
        tasks: &TaskTracker,
    ) -> io::Result<SmtpServer> {
        let tls::Identity { acceptor, ca_pem } = tls::identity(&stage.scenario().email.host_name)?;
        if let Some(path) = &options.ca_file {
            std::fs::write(path, &ca_pem)?;
        }
        let listen = async |address: SocketAddr, implicit_tls: bool| {
            let listener = super::listen(address).await?;
            let bound = listener.local_addr()?;
            let (stage, acceptor) = (Arc::clone(stage), acceptor.clone());
            let serve = move |stream| serve(stream, Arc::clone(&stage), acceptor.clone(), implicit_tls);
            tasks.spawn(super::accept(listener, serve, stopping.clone(), tasks.clone()));
            io::Result::Ok(bound)
        };
        let addr = listen(options.listen, false).await?;
        let tls_addr = match options.tls_listen {
            Some(address) => Some(listen(address, true).await?),
            None => None,
        };
        Ok(SmtpServer { addr, tls_addr, ca_pem })
    }
}

async fn serve(stream: tokio::net::TcpStream, stage: Arc<Stage>, acceptor: TlsAcceptor, implicit_tls: bool) {
    // Replies are small; waiting to fill a packet would only add latency.
    let _ = stream.set_nodelay(true);
    let mut wire = wire::Wire::new(stream);
    if implicit_tls && wire.start_tls(&acceptor).await.is_err() {
        return;
    }
    // How a conversation ended is in the figures and the record; a client that left is nobody's failure.
    let _ = session::Session::new(wire, &stage, acceptor).run().await;
}

/// What the reply to a message names it.
pub(super) fn queue_id(id_bits: u64) -> String {
    format!("{id_bits:016X}")
}
