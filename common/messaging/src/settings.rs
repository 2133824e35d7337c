//! What is to be known about the broker, checked once, with the defaults in one place.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use doorstep_event::BrokerUser;
use doorstep_tls::TlsSettings;

use lapin::types::ShortString;

use crate::{
    address::{Address, AddressError},
    backoff::Backoff,
    message::short_string,
};

/// How to reach the broker, and the bounds of everything that waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerSettings {
    /// Tried in turn until one answers.
    pub addresses: Vec<Address>,
    /// Which brokers to trust by amqps, and the certificate to show them.
    pub tls: TlsSettings,
    /// The user id that published messages carry.
    pub user_id: UserId,
    /// The users of the broker whose requests a role answers; `None` for all, and for requests without a user id.
    pub rpc_callers: Option<Vec<BrokerUser>>,
    /// What every name on the broker starts with.
    pub namespace: Namespace,
    /// The most that one address may take until the connection is open, and that one declaration may take.
    pub connect_timeout: Duration,
    /// How often each side gives a sign of life, unless an address says otherwise; a peer that is silent for twice as long is dead.
    pub heartbeat: Duration,
    /// The most that a confirm may take before its message is [`TimedOut`](crate::PublishOutcome::TimedOut).
    pub confirm_timeout: Duration,
    /// The most that a publish waits for a broker that is away or has blocked us before it resolves with the reason.
    pub outage_timeout: Duration,
    /// The most that an acknowledgement may take to be written before its connection is given up.
    pub settle_timeout: Duration,
    /// The most that a delivery may go without its acknowledgement, as while a store is away, before consuming is suspended and the
    /// delivery goes back to its queue. Has to be well below the broker's `consumer_timeout`, 30 minutes by default.
    pub ack_timeout: Duration,
    /// The mean time after which a subscription binds its queues again, in case somebody has deleted a binding, and looks for their marks.
    pub rebind_interval: Duration,
    /// The most messages that are published and not yet confirmed.
    pub publish_window: usize,
    /// The most deliveries of a queue that are not yet settled. Quorum queues give no more than 2,000.
    pub prefetch: u16,
    /// The most that a program waits for its first connection when it starts.
    pub start_timeout: Duration,
    /// The waits between two attempts to connect.
    pub backoff: Backoff,
}

impl BrokerSettings {
    /// The settings for these addresses, separated by commas, and this namespace; everything else as by default.
    ///
    /// # Errors
    /// Says which address or which part of the namespace is wrong and how it is written. An address is named by its place in the
    /// list, never by its text, which may hold a password.
    pub fn new(url_list: &str, namespace: &str) -> Result<Self, SettingsError> {
        let mut addresses = Vec::new();
        for (index, text) in url_list.split(',').map(str::trim).enumerate() {
            if text.is_empty() {
                continue;
            }
            addresses.push(text.parse().map_err(|error| SettingsError::Address {
                number: index + 1,
                error,
            })?);
        }
        if addresses.is_empty() {
            return Err(SettingsError::NoAddress);
        }
        Ok(Self {
            addresses,
            tls: TlsSettings::default(),
            user_id: UserId::default(),
            rpc_callers: None,
            namespace: namespace.parse()?,
            connect_timeout: Duration::from_secs(10),
            heartbeat: Duration::from_secs(10),
            confirm_timeout: Duration::from_secs(30),
            outage_timeout: Duration::from_secs(5),
            settle_timeout: Duration::from_secs(10),
            ack_timeout: Duration::from_mins(5),
            rebind_interval: Duration::from_mins(1),
            publish_window: 1000,
            prefetch: 2000,
            start_timeout: Duration::from_secs(30),
            backoff: Backoff::default(),
        })
    }

    /// The same settings with this password at every address.
    ///
    /// # Errors
    /// Names the address that has another password already.
    pub fn with_password(mut self, password: &str) -> Result<Self, SettingsError> {
        for (index, address) in self.addresses.iter_mut().enumerate() {
            let with = address.clone().with_password(password);
            *address = with.map_err(|error| SettingsError::Address {
                number: index + 1,
                error,
            })?;
        }
        Ok(self)
    }

    /// The longest heartbeat of all addresses: a peer that shows no sign of life has been noticed everywhere after three of it.
    #[must_use]
    pub fn longest_heartbeat(&self) -> Duration {
        let heartbeats = self.addresses.iter().map(|address| {
            let own = address.heartbeat_seconds().map(u64::from);
            own.map_or(self.heartbeat, Duration::from_secs)
        });
        heartbeats.max().unwrap_or(self.heartbeat)
    }

    /// Waits before trying again, not at all before the first time.
    pub(crate) async fn backoff_after(&self, failures: u32) {
        if let Some(repeats) = failures.checked_sub(1) {
            self.backoff.wait(repeats).await;
        }
    }

    /// How often we have failed in a row, when a connection that lasted so long is lost: one that is lost as soon as it is there is no
    /// success, and must not be tried again and again without a pause.
    pub(crate) fn failures_after(&self, failures: u32, lasted: Duration) -> u32 {
        if lasted > self.backoff.ceiling(u32::MAX) {
            1
        } else {
            failures.saturating_add(1)
        }
    }

    /// The user id of messages that are published by a connection to this address.
    pub(crate) fn user_id_at(&self, address: &Address) -> Option<ShortString> {
        match &self.user_id {
            // By a certificate, only the broker knows the user.
            UserId::OfAddress if address.is_external() => None,
            UserId::OfAddress => Some(short_string(address.user())),
            UserId::Named(user) => Some(short_string(user.as_str())),
            UserId::Absent => None,
        }
    }

    /// The same settings in another virtual host.
    #[must_use]
    pub fn with_vhost(mut self, vhost: &str) -> Self {
        for address in &mut self.addresses {
            *address = address.clone().with_vhost(vhost);
        }
        self
    }
}

/// The user id that published messages carry. RabbitMQ refuses any other than the name of the connection's user, so roles can rely on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum UserId {
    /// The user of the address in use.
    #[default]
    OfAddress,
    /// This one, where the broker knows the user by another name than the address does.
    Named(BrokerUser),
    /// None. Roles refuse events of a source whose earlier events carried one.
    Absent,
}

impl FromStr for UserId {
    type Err = SettingsError;

    /// Reads `-` as none.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "-" => Ok(Self::Absent),
            "" => Err(SettingsError::UserId),
            name if name.len() > MAX_USER_ID_BYTES => Err(SettingsError::UserId),
            name => Ok(Self::Named(BrokerUser::new(name))),
        }
    }
}

/// AMQP's short strings hold no more.
const MAX_USER_ID_BYTES: usize = 255;

/// What every exchange and queue of one Doorstep starts with, so that several can share a virtual host.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The most bytes of a namespace: leaves room for a role's name in the 255 bytes of a queue's.
const MAX_NAMESPACE_BYTES: usize = 100;

impl FromStr for Namespace {
    type Err = SettingsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let wrong = || SettingsError::Namespace(text.to_owned());
        if text.len() > MAX_NAMESPACE_BYTES || !text.bytes().next().is_some_and(plain) {
            return Err(wrong());
        }
        if !text
            .bytes()
            .all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'))
        {
            return Err(wrong());
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// What is wrong with the broker's settings. Whoever read them puts the name of the flag or variable before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The list holds no address.
    #[error("no address, give at least one such as amqp://user:password@localhost:5672/%2f")]
    NoAddress,
    /// One of the addresses is wrong.
    #[error("address {number}: {error}")]
    Address {
        /// Its place in the list, from 1.
        number: usize,
        /// What is wrong with it.
        error: AddressError,
    },
    /// The user id does not fit a message.
    #[error("a user id has 1 to 255 bytes; - stands for none")]
    UserId,
    /// The namespace holds what a queue's name should not.
    #[error(
        "namespace {0:?} is not made of a-z, 0-9, dot, dash and underscore, starting with a letter or digit, at most 100 of them"
    )]
    Namespace(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_addresses_are_read_in_order() {
        let settings = BrokerSettings::new("amqp://a, amqp://b:5673/x", "doorstep").unwrap();
        let hosts: Vec<_> = settings.addresses.iter().map(Address::host).collect();
        assert_eq!(hosts, ["a", "b"]);
    }

    #[test]
    fn the_longest_heartbeat_is_that_of_an_address_or_the_usual_one() {
        let longest = |url_list| {
            let settings = BrokerSettings::new(url_list, "doorstep").unwrap();
            settings.longest_heartbeat().as_secs()
        };
        assert_eq!(longest("amqp://a/%2f?heartbeat=5"), 5);
        assert_eq!(longest("amqp://a/%2f?heartbeat=5,amqp://b"), 10);
        assert_eq!(longest("amqp://a/%2f?heartbeat=60,amqp://b"), 60);
    }

    #[test]
    fn a_wrong_address_is_named_by_its_place() {
        let error = BrokerSettings::new("amqp://a,amqp://u:secret@b:x", "doorstep").unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("address 2: port"), "{text}");
        assert!(!text.contains("secret"));
        assert_eq!(
            BrokerSettings::new(" , ", "doorstep"),
            Err(SettingsError::NoAddress)
        );
    }

    #[test]
    fn a_namespace_holds_only_what_a_queue_name_should() {
        for good in ["doorstep", "a", "4shop", "team-a.shop_1"] {
            assert!(good.parse::<Namespace>().is_ok(), "{good}");
        }
        let long = "a".repeat(101);
        for bad in ["", "Doorstep", ".a", "-a", "a b", "a/b", "ä", &long] {
            assert!(bad.parse::<Namespace>().is_err(), "{bad}");
        }
    }
}
