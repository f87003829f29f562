//! The twelve ways through the queue: four channels, three priorities.

use std::fmt;

use crate::domain::{Channel, Priority};

/// One channel's lane of one priority. Its name is the queue's in RabbitMQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    pub channel: Channel,
    pub priority: Priority,
}

impl Lane {
    /// All lanes of a channel, most urgent first.
    pub const fn of(channel: Channel) -> [Lane; 3] {
        [
            Lane { channel, priority: Priority::High },
            Lane { channel, priority: Priority::Normal },
            Lane { channel, priority: Priority::Low },
        ]
    }

    /// `whatsapp.send` for the normal lane, `whatsapp.send.high` and `whatsapp.send.low` beside it.
    pub const fn name(self) -> &'static str {
        match (self.channel, self.priority) {
            (Channel::WhatsApp, Priority::High) => "whatsapp.send.high",
            (Channel::WhatsApp, Priority::Normal) => "whatsapp.send",
            (Channel::WhatsApp, Priority::Low) => "whatsapp.send.low",
            (Channel::Telegram, Priority::High) => "telegram.send.high",
            (Channel::Telegram, Priority::Normal) => "telegram.send",
            (Channel::Telegram, Priority::Low) => "telegram.send.low",
            (Channel::Sms, Priority::High) => "sms.send.high",
            (Channel::Sms, Priority::Normal) => "sms.send",
            (Channel::Sms, Priority::Low) => "sms.send.low",
            (Channel::Email, Priority::High) => "email.send.high",
            (Channel::Email, Priority::Normal) => "email.send",
            (Channel::Email, Priority::Low) => "email.send.low",
        }
    }

    /// The lane of this name.
    pub fn from_name(name: &str) -> Option<Lane> {
        Channel::ALL.into_iter().flat_map(Lane::of).find(|lane| lane.name() == name)
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
