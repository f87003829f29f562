//! Looking at a broker: for people, and for figures.

use lapin::Connection;
use lapin::options::QueueDeclareOptions;
use lapin::types::parsing::parse_field_table;
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPScheme;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::connection::{CALL_LIMIT, connect, within};
use super::options::Options;
use super::topology::{self, Report};
use crate::domain::Channel;
use crate::queue::{Lane, LaneDepth, QueueError};

const DOING: &str = "counting what waits";

/// Makes the exchanges, queues and bindings that are missing, compares those that are there, and says what it found:
/// for whoever has the right to, once before a service without it starts.
///
/// # Errors
/// When the broker cannot be reached; what it refused stands in the report.
pub async fn declare(options: &Options) -> Result<Report, QueueError> {
    let connection = connect(options, "setup").await?;
    let report = topology::bring_about(&connection, &Options { declare: true, ..options.clone() }, true).await;
    end(connection).await;
    report
}

/// What a broker says of itself, and what is there.
#[derive(Clone, Debug)]
pub struct Broker {
    /// `RabbitMQ 3.10.8`; not asked for over TLS.
    pub product: Option<String>,
    pub topology: Report,
}

/// Looks, and changes nothing.
pub async fn look(options: &Options) -> Result<Broker, QueueError> {
    let connection = connect(options, "doctor").await?;
    let product = match options.uri.scheme {
        AMQPScheme::AMQP => timeout(CALL_LIMIT, product(options)).await.ok().flatten(),
        AMQPScheme::AMQPS => None,
    };
    let topology = topology::bring_about(&connection, &Options { declare: false, ..options.clone() }, false).await;
    end(connection).await;
    Ok(Broker { product, topology: topology? })
}

/// What the broker calls itself in its first frame, which the client does not show.
async fn product(options: &Options) -> Option<String> {
    /// A frame's type, channel and length.
    const HEAD_BYTES: usize = 7;
    /// Class and method (connection.start), and the protocol's version.
    const BEFORE_TABLE_BYTES: usize = 6;
    /// Far more than any broker says.
    const MOST_BYTES: u32 = 64 * 1024;
    let authority = &options.uri.authority;
    let mut stream = TcpStream::connect((authority.host.as_str(), authority.port)).await.ok()?;
    stream.write_all(b"AMQP\x00\x00\x09\x01").await.ok()?;
    let mut head = [0; HEAD_BYTES];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    let mut frame = vec![0; usize::try_from(length.min(MOST_BYTES)).ok()?];
    stream.read_exact(&mut frame).await.ok()?;
    let (_, says) = parse_field_table(frame.get(BEFORE_TABLE_BYTES..)?).ok()?;
    let word = |name: &str| match says.inner().get(name) {
        Some(AMQPValue::LongString(text)) => Some(text.to_string()),
        _ => None,
    };
    Some(format!("{} {}", word("product")?, word("version")?))
}

async fn end(connection: Connection) {
    // An orderly end is a courtesy.
    let _ = within(CALL_LIMIT, "closing", connection.close(200, "bye".into())).await;
}

/// What waits in every lane. A lane that is not there is an error: the keeper makes it again, or says why not.
pub(super) async fn depths(connection: &Connection) -> Result<Vec<LaneDepth>, QueueError> {
    // Its own: a lane that is missing closes it.
    let channel = within(CALL_LIMIT, DOING, connection.create_channel()).await?;
    let mut depths = Vec::new();
    for lane in Channel::ALL.into_iter().flat_map(Lane::of) {
        let options = QueueDeclareOptions { passive: true, durable: true, ..QueueDeclareOptions::default() };
        let asking = channel.queue_declare(lane.name().into(), options, FieldTable::default());
        let queue = within(CALL_LIMIT, DOING, asking).await?;
        let (ready, consumers) = (queue.message_count().into(), queue.consumer_count().into());
        depths.push(LaneDepth { lane, ready, consumers });
    }
    Ok(depths)
}
