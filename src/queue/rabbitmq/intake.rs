//! What others publish: read, taken into the ledger, answered where the sender waits, and only then acknowledged.

use std::sync::Arc;

use lapin::message::Delivery as Message;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Connection};
use serde_json::{Value, json};

use super::connection::{CALL_LIMIT, within};
use super::publisher::Publisher;
use super::quarantine;
use crate::domain::Clock;
use crate::queue::QueueError;
use crate::queue::foreign::{Accepted, Ingress, Poison, Raw, Refused, read};

const DOING: &str = "taking what others published";
const ANSWERING: &str = "answering a sender";
/// How our own messages are marked; one of them that cannot be read is no new notification.
const OURS: &str = "vestnik";
/// Only to such a name is answered: any other would let a sender have us write into any queue.
const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to.";

/// Without an ingress, everything that is not ours goes to the quarantine's queue.
pub(super) struct Intake {
    pub(super) ingress: Option<Arc<dyn Ingress>>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Intake {
    /// After `Ok` each is in the ledger or in quarantine, and may be acknowledged.
    pub(super) async fn take(
        &self,
        connection: &Connection,
        source: &str,
        messages: &[&Message],
    ) -> Result<(), QueueError> {
        let results = self.accept(source, messages).await?;
        let (mut poison, mut answers) = (Vec::new(), Vec::new());
        for (message, result) in messages.iter().zip(results) {
            if let Err(why) = &result {
                tracing::warn!(queue = source, "a message of somebody else goes to quarantine: {why}");
                poison.push(quarantine::poison(message, source, why.clone()));
            }
            if let Some(to) = reply_to(message) {
                answers.push((to, message.properties.correlation_id().clone(), answer(&result)));
            }
        }
        if !poison.is_empty() {
            self.quarantine(poison).await?;
        }
        if !answers.is_empty() {
            // It is accepted or kept, whatever comes of the answer; without one the sender's own wait ends.
            if let Err(error) = send(connection, answers).await {
                tracing::warn!(error = %error, "a sender that waits has no answer (may we publish to amq.default?)");
            }
        }
        Ok(())
    }

    /// Into the ledger, by whoever has it: no broker's queue has to be there for that.
    async fn quarantine(&self, poison: Vec<Poison>) -> Result<(), QueueError> {
        match &self.ingress {
            Some(ingress) => ingress.quarantine(poison).await.map_err(|error| trouble(error.reason)),
            None => {
                let wrapped: Vec<_> = poison.iter().map(|one| quarantine::wrap(one, self.clock.now())).collect();
                self.publisher.publish(&wrapped).await
            }
        }
    }

    async fn accept(&self, source: &str, messages: &[&Message]) -> Result<Vec<Result<Accepted, String>>, QueueError> {
        let read = |message: &&Message| {
            let text = |property: &Option<ShortString>| property.as_ref().map(ToString::to_string);
            if text(message.properties.app_id()).as_deref() == Some(OURS) {
                return Err("not_readable: it is one of ours, and its list of tasks is not".to_owned());
            }
            if self.ingress.is_none() {
                return Err("not_ours: messages of others are not taken".to_owned());
            }
            let message_id = text(message.properties.message_id());
            let (body, redelivered) = (&message.data, message.redelivered);
            read(Raw { body, source, message_id: message_id.as_deref(), redelivered }).map_err(|why| why.to_string())
        };
        let mut good = Vec::new();
        let read: Vec<Result<(), String>> =
            messages.iter().map(|message| read(message).map(|notification| good.push(notification))).collect();
        let mut accepted = match &self.ingress {
            Some(ingress) if !good.is_empty() => ingress.accept(good).await,
            _ => Vec::new(),
        }
        .into_iter();
        read.into_iter()
            .map(|read| match read {
                Err(why) => Ok(Err(why)),
                Ok(()) => match accepted.next() {
                    Some(Ok(accepted)) => Ok(Ok(accepted)),
                    Some(Err(Refused::Wrong { reason })) => Ok(Err(reason)),
                    Some(Err(Refused::Unavailable(why))) => Err(trouble(why.reason)),
                    None => Err(trouble("there are fewer results than messages".into())),
                },
            })
            .collect()
    }
}

fn trouble(reason: String) -> QueueError {
    QueueError { doing: DOING, reason }
}

fn reply_to(message: &Message) -> Option<ShortString> {
    message.properties.reply_to().clone().filter(|to| to.as_str().starts_with(DIRECT_REPLY))
}

/// As a `NestJS` client takes it: without `isDisposed` it would wait on.
fn answer(result: &Result<Accepted, String>) -> Value {
    match result {
        Ok(Accepted { id }) => json!({ "response": { "success": true, "messageId": id }, "isDisposed": true }),
        Err(why) => json!({ "err": { "status": "error", "message": why }, "isDisposed": true }),
    }
}

async fn send(
    connection: &Connection,
    answers: Vec<(ShortString, Option<ShortString>, Value)>,
) -> Result<(), QueueError> {
    // Its own: without the right to publish there it is closed.
    let channel = within(CALL_LIMIT, ANSWERING, connection.create_channel()).await?;
    for (to, correlation_id, answer) in answers {
        let mut properties = BasicProperties::default().with_content_type("application/json".into());
        if let Some(id) = correlation_id {
            properties = properties.with_correlation_id(id);
        }
        // Not mandatory: a direct reply is reported as unroutable though it arrives.
        let (options, body) = (BasicPublishOptions::default(), answer.to_string());
        let publish = channel.basic_publish("".into(), to, options, body.as_bytes(), properties);
        within(CALL_LIMIT, ANSWERING, publish).await?;
    }
    within(CALL_LIMIT, ANSWERING, channel.close(200, "done".into())).await
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::NotificationId;

    #[test]
    fn answers_are_those_a_nest_client_understands() {
        let accepted = answer(&Ok(Accepted { id: NotificationId(Uuid::nil()) }));
        insta::assert_snapshot!(accepted, @r#"{"isDisposed":true,"response":{"messageId":"00000000-0000-0000-0000-000000000000","success":true}}"#);
        insta::assert_snapshot!(answer(&Err("unknown_pattern".into())), @r#"{"err":{"message":"unknown_pattern","status":"error"},"isDisposed":true}"#);
    }
}
