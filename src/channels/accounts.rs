//! Every account there is, found by name.

use std::collections::HashMap;
use std::sync::Arc;

use super::Provider;
use crate::domain::{AccountRef, Channel};

/// The account of a channel that is meant when none is named.
pub const DEFAULT_NAME: &str = "main";

/// The accounts of the settings. Built once at start, then only read.
#[derive(Default)]
pub struct Accounts(HashMap<AccountRef, Arc<dyn Provider>>);

/// No account could be chosen. The text lists what there is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownAccount {
    #[error("no account sends {0}: add a section [{0}.{DEFAULT_NAME}] to the settings")]
    None(Channel),
    #[error("{channel} has several accounts and none is called {DEFAULT_NAME}: name one of {}", .known.join(", "))]
    Ambiguous { channel: Channel, known: Vec<String> },
    #[error("{channel} has no account of that name: it has {}", .known.join(", "))]
    Name { channel: Channel, known: Vec<String> },
}

impl Accounts {
    pub fn new(providers: impl IntoIterator<Item = Arc<dyn Provider>>) -> Self {
        Accounts(providers.into_iter().map(|provider| (provider.account().clone(), provider)).collect())
    }

    /// The account called `main`, else the only one.
    pub fn default_for(&self, channel: Channel) -> Result<&Arc<dyn Provider>, UnknownAccount> {
        let mut of_channel = self.of(channel);
        match (self.find(channel, DEFAULT_NAME), of_channel.next(), of_channel.next()) {
            (Some(main), _, _) => Ok(main),
            (None, None, _) => Err(UnknownAccount::None(channel)),
            (None, Some(only), None) => Ok(only),
            (None, Some(_), Some(_)) => Err(UnknownAccount::Ambiguous { channel, known: self.names(channel) }),
        }
    }

    pub fn get(&self, channel: Channel, name: &str) -> Result<&Arc<dyn Provider>, UnknownAccount> {
        self.find(channel, name).ok_or_else(|| match self.names(channel) {
            known if known.is_empty() => UnknownAccount::None(channel),
            known => UnknownAccount::Name { channel, known },
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Provider>> {
        self.0.values()
    }

    fn of(&self, channel: Channel) -> impl Iterator<Item = &Arc<dyn Provider>> {
        self.iter().filter(move |provider| provider.account().channel == channel)
    }

    /// There are a handful, and comparing them makes no key to look up.
    fn find(&self, channel: Channel, name: &str) -> Option<&Arc<dyn Provider>> {
        self.of(channel).find(|provider| &*provider.account().name == name)
    }

    fn names(&self, channel: Channel) -> Vec<String> {
        let mut names: Vec<_> = self.of(channel).map(|provider| provider.account().name.to_string()).collect();
        names.sort_unstable();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Outcome, OutgoingMessage};
    use std::time::Duration;

    struct Named(AccountRef);

    #[async_trait::async_trait]
    impl Provider for Named {
        fn account(&self) -> &AccountRef {
            &self.0
        }

        async fn send(&self, _: &OutgoingMessage, _: Duration) -> Outcome {
            unreachable!("nothing is sent here")
        }

        async fn check(&self, _: Duration) -> Result<String, String> {
            unreachable!("nothing is checked here")
        }
    }

    fn accounts(names: &[&str]) -> Accounts {
        Accounts::new(names.iter().map(|name| {
            Arc::new(Named(AccountRef { channel: Channel::Telegram, name: (*name).into() })) as Arc<dyn Provider>
        }))
    }

    fn default_of(names: &[&str]) -> Result<String, String> {
        let accounts = accounts(names);
        let chosen = accounts.default_for(Channel::Telegram).map(|provider| provider.account().name.to_string());
        chosen.map_err(|error| error.to_string())
    }

    #[test]
    fn the_default_is_main_or_the_only_one() {
        assert_eq!(default_of(&["b", "main", "a"]), Ok("main".into()));
        assert_eq!(default_of(&["b"]), Ok("b".into()));
        insta::assert_snapshot!(default_of(&["b", "a"]).unwrap_err(), @"telegram has several accounts and none is called main: name one of a, b");
        insta::assert_snapshot!(default_of(&[]).unwrap_err(), @"no account sends telegram: add a section [telegram.main] to the settings");
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let accounts = accounts(&["b", "a"]);
        assert!(accounts.get(Channel::Telegram, "a").is_ok());
        let error = accounts.get(Channel::Telegram, "c").err().map(|error| error.to_string());
        insta::assert_snapshot!(error.unwrap(), @"telegram has no account of that name: it has a, b");
        assert!(matches!(accounts.get(Channel::Sms, "a"), Err(UnknownAccount::None(Channel::Sms))));
    }
}
