//! A line between us and PostgreSQL that can be cut: at a COMMIT, or altogether.
#![expect(clippy::disallowed_methods, reason = "the proxy lives and dies with its test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the next COMMIT meets, or the next statement that commits by itself. It meets it once; then the line is whole
/// again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The server commits; nobody hears of it.
    AfterCommit = 1,
    /// The server never sees it.
    BeforeCommit = 2,
    /// The server runs a prepared statement; nobody hears of it.
    AfterStatement = 3,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    armed: Arc<AtomicU8>,
    executed: Arc<AtomicUsize>,
    is_down: watch::Sender<bool>,
}

impl Proxy {
    pub(crate) async fn start(server: (String, u16)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let armed = Arc::new(AtomicU8::new(0));
        let executed = Arc::new(AtomicUsize::new(0));
        let (is_down, down) = watch::channel(false);
        let (for_lines, count) = (Arc::clone(&armed), Arc::clone(&executed));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *down.borrow() {
                    continue;
                }
                let server = TcpStream::connect(&server).await.unwrap();
                let line = line(client, server, Arc::clone(&for_lines), Arc::clone(&count));
                let mut down = down.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = line => {}
                        _ = down.wait_for(|is_down| *is_down) => {}
                    }
                });
            }
        });
        Proxy { address, armed, executed, is_down }
    }

    pub(crate) fn arm(&self, cut: Cut) {
        self.armed.store(cut as u8, Ordering::SeqCst);
    }

    /// Hangs up on everybody, and on whoever comes, until told otherwise.
    pub(crate) fn set_down(&self, is_down: bool) {
        self.is_down.send_replace(is_down);
    }

    /// Prepared statements that ran so far.
    pub(crate) fn executed(&self) -> usize {
        self.executed.load(Ordering::SeqCst)
    }

    pub(crate) fn has_cut(&self) -> bool {
        self.armed.load(Ordering::SeqCst) == 0
    }
}

/// One connection: frames from the client are read whole, bytes from the server pass as they come.
async fn line(client: TcpStream, server: TcpStream, armed: Arc<AtomicU8>, executed: Arc<AtomicUsize>) {
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let (give_back, mut given_back) = tokio::sync::mpsc::channel::<OwnedReadHalf>(1);
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let answers = tokio::spawn(pass(from_server, to_client, stopped, give_back));
    let (mut started, mut is_running) = (false, false);
    while let Some(frame) = frame(&mut from_client, started).await {
        if started && frame[0] == b'E' {
            executed.fetch_add(1, Ordering::SeqCst);
            is_running |= armed.load(Ordering::SeqCst) == Cut::AfterStatement as u8;
        }
        started = true;
        // What was executed is committed at the Sync after it.
        let is_over = is_running && frame[0] == b'S';
        if !is_over && (armed.load(Ordering::SeqCst) == Cut::AfterStatement as u8 || !is_commit(&frame)) {
            if to_server.write_all(&frame).await.is_err() {
                break;
            }
            continue;
        }
        match armed.swap(0, Ordering::SeqCst) {
            1 | 3 => {
                let _ = stop.send(());
                let mut from_server = given_back.recv().await.expect("the way back is open");
                to_server.write_all(&frame).await.unwrap();
                // The server has answered: it has committed.
                let mut answer = [0; 64];
                assert!(from_server.read(&mut answer).await.unwrap() > 0);
                return;
            }
            2 => {
                answers.abort();
                return;
            }
            _ => {
                if to_server.write_all(&frame).await.is_err() {
                    break;
                }
            }
        }
    }
    answers.abort();
}

/// Passes answers on until told to stop; then gives the way back to whoever stopped it, and hangs up.
async fn pass(
    mut from_server: OwnedReadHalf,
    mut to_client: OwnedWriteHalf,
    mut stopped: tokio::sync::oneshot::Receiver<()>,
    give_back: tokio::sync::mpsc::Sender<OwnedReadHalf>,
) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => {
                let _ = give_back.send(from_server).await;
                // Hung up only when the server has answered.
                give_back.closed().await;
                return;
            }
            read = from_server.read(&mut bytes) => match read {
                Ok(0) | Err(_) => return,
                Ok(count) => if to_client.write_all(&bytes[..count]).await.is_err() { return },
            },
        }
    }
}

/// A message of the frontend: a type byte (not in the first one), its length, its content
/// (postgresql.org/docs/current/protocol-message-formats.html).
async fn frame(from: &mut OwnedReadHalf, started: bool) -> Option<Vec<u8>> {
    let head_bytes = if started { 5 } else { 4 };
    let mut frame = vec![0; head_bytes];
    from.read_exact(&mut frame).await.ok()?;
    let length = u32::from_be_bytes(frame[head_bytes - 4..].try_into().unwrap()) as usize;
    let mut content = vec![0; length - 4];
    from.read_exact(&mut content).await.ok()?;
    frame.extend(content);
    Some(frame)
}

fn is_commit(frame: &[u8]) -> bool {
    frame.first() == Some(&b'Q') && frame[5..].starts_with(b"COMMIT")
}
