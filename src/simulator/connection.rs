//! One client's connection: requests in, answers or faults out.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::answer::{Answer, Reply};
use super::fault::{ENDLESS_BODY_BYTES, ENDLESS_BODY_PAUSE, ENDLESS_BODY_PIECE_BYTES, FaultKind, SLOW_HEADER_PAUSE};
use super::request::{ReadError, RequestReader};
use super::stage::Stage;

/// Serves until the client leaves, a fault ends the connection, or it breaks. May be dropped at any point: the client
/// sees the connection end.
pub(super) async fn serve(mut stream: TcpStream, stage: &Stage) {
    // An answer is one small write; waiting to fill a packet would only add latency. A socket that refuses the option
    // is about to fail anyway.
    let _ = stream.set_nodelay(true);
    let mut reader = RequestReader::new();
    let mut out = Vec::with_capacity(1024);
    loop {
        let request = match reader.next(&mut stream).await {
            Ok(request) => request,
            Err(ReadError::Gone) => return,
            Err(ReadError::Bad(status, detail)) => {
                let answer = Answer::json(status, &serde_json::json!({ "error": detail }));
                let _ = write(&mut stream, &mut out, &answer, false).await;
                return drain(&mut stream).await;
            }
        };
        let keep_alive = request.keep_alive;
        let Reply { after, fault, answer } = stage.reply(&request);
        // Gives the body back to the reader's buffer before the wait.
        drop(request);
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
        let goes_on = match fault {
            None => write(&mut stream, &mut out, &answer, keep_alive).await.map(|()| keep_alive),
            Some(fault) => play(fault, &mut stream, &mut out, &answer, keep_alive).await,
        };
        if !goes_on.unwrap_or(false) {
            return;
        }
    }
}

async fn write(stream: &mut TcpStream, out: &mut Vec<u8>, answer: &Answer, keep_alive: bool) -> io::Result<()> {
    out.clear();
    answer.write_head(out, Some(answer.body.len()), keep_alive);
    out.extend_from_slice(&answer.body);
    stream.write_all(out).await
}

/// Plays a fault; says whether the connection goes on.
async fn play(
    fault: FaultKind,
    stream: &mut TcpStream,
    out: &mut Vec<u8>,
    answer: &Answer,
    keep_alive: bool,
) -> io::Result<bool> {
    match fault {
        FaultKind::ResetBeforeRead | FaultKind::ResetAfterRead => {
            // A linger of zero makes the close that follows a reset.
            stream.set_zero_linger()?;
            Ok(false)
        }
        // A scenario cannot ask an HTTP provider for a mail server's faults.
        FaultKind::CloseAfterRead | FaultKind::Smtp(_) => {
            stream.shutdown().await?;
            Ok(false)
        }
        FaultKind::Hang => {
            let mut ignored = [0; 512];
            while stream.read(&mut ignored).await? != 0 {}
            Ok(false)
        }
        FaultKind::EndlessBody => {
            endless_body(stream, out, answer).await?;
            Ok(false)
        }
        FaultKind::SlowHeaders => {
            out.clear();
            answer.write_head(out, Some(answer.body.len()), keep_alive);
            for byte in out.iter() {
                stream.write_all(std::slice::from_ref(byte)).await?;
                tokio::time::sleep(SLOW_HEADER_PAUSE).await;
            }
            stream.write_all(&answer.body).await?;
            Ok(keep_alive)
        }
        FaultKind::Rubbish200 | FaultKind::BadGateway | FaultKind::ServerErrorJson | FaultKind::Redirect => {
            write(stream, out, answer, keep_alive).await?;
            Ok(keep_alive)
        }
    }
}

/// Chunk after chunk, never the last one.
async fn endless_body(stream: &mut TcpStream, out: &mut Vec<u8>, answer: &Answer) -> io::Result<()> {
    out.clear();
    answer.write_head(out, None, false);
    push_chunk(out, &answer.body);
    stream.write_all(out).await?;
    out.clear();
    push_chunk(out, &[b'x'; ENDLESS_BODY_PIECE_BYTES]);
    for _ in 0..ENDLESS_BODY_BYTES / ENDLESS_BODY_PIECE_BYTES {
        stream.write_all(out).await?;
        tokio::time::sleep(ENDLESS_BODY_PAUSE).await;
    }
    Ok(())
}

fn push_chunk(out: &mut Vec<u8>, piece: &[u8]) {
    out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
    out.extend_from_slice(piece);
    out.extend_from_slice(b"\r\n");
}

/// Reads on for a while after a refusal: closing with unread bytes would reset the connection and could take the
/// answer with it.
async fn drain(stream: &mut TcpStream) {
    const LONGEST: Duration = Duration::from_secs(1);
    const MOST_BYTES: usize = 1024 * 1024;
    let _ = stream.shutdown().await;
    let read_on = async {
        let (mut ignored, mut total) = ([0; 4096], 0);
        while let Ok(count @ 1..) = stream.read(&mut ignored).await {
            total += count;
            if total > MOST_BYTES {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(LONGEST, read_on).await;
}
