//! The order in which a broker is searched for.

use std::env;
use std::fmt;

use anyhow::{Context, Result, bail};

use crate::address::AmqpAddress;
use crate::apt;
use crate::broker::{Broker, greets};
use crate::compose::Compose;
use crate::container::ContainerNode;
use crate::dead_lettering::outlive_worker_crashes;
use crate::installed::Installed;
use crate::management::Management;
use crate::node::{Footprint, InstalledNode, NodeOptions};

/// The address of an existing broker, used as it is.
const AMQP_URL: &str = "DOORSTEP_AMQP_URL";
/// Its management API, unless it is at port 15672 of the same host with the same login.
pub(crate) const MANAGEMENT_URL: &str = "DOORSTEP_MANAGEMENT_URL";

/// The purpose of the broker, and the receiver of progress messages.
#[derive(Debug, Clone)]
pub struct Options {
    name: String,
    footprint: Footprint,
    say: fn(&str),
}

impl Options {
    /// A broker for the purpose `name`, a word such as `test`. `say` gets a line before each step that takes long.
    #[must_use]
    pub fn named(name: &str, say: fn(&str)) -> Self {
        Self {
            name: name.to_owned(),
            footprint: Footprint::Small,
            say,
        }
    }

    /// Sets the share of the machine that a started node may use.
    #[must_use]
    pub fn footprint(mut self, footprint: Footprint) -> Self {
        self.footprint = footprint;
        self
    }
}

/// The origin of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerOrigin {
    /// Named by `DOORSTEP_AMQP_URL`: neither disturbed nor cleaned up.
    Given,
    /// A private node of the RabbitMQ installed here.
    Installed,
    /// A container of `docker-compose.yml`.
    Compose,
    /// A container of the requested image.
    Image,
}

impl fmt::Display for BrokerOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Given => "the broker that DOORSTEP_AMQP_URL names",
            Self::Installed => "a private RabbitMQ",
            Self::Compose => "RabbitMQ in a container",
            Self::Image => "RabbitMQ in a container of the image",
        })
    }
}

/// A broker with the resources started for it, which end when this is dropped or the process ends.
#[derive(Debug)]
pub struct Found {
    broker: Broker,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Given,
    Installed { _node: InstalledNode },
    Image { _node: ContainerNode },
    Compose { _compose: Compose },
}

impl Found {
    #[must_use]
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Returns its origin.
    #[must_use]
    pub fn way(&self) -> BrokerOrigin {
        match self.source {
            Source::Given => BrokerOrigin::Given,
            Source::Installed { .. } => BrokerOrigin::Installed,
            Source::Compose { .. } => BrokerOrigin::Compose,
            Source::Image { .. } => BrokerOrigin::Image,
        }
    }

    fn given(url: &str) -> Result<Self> {
        // Several may be given, separated by commas; the first that answers is used.
        let addresses = url
            .split(',')
            .map(|one| AmqpAddress::parse(one.trim()))
            .collect::<Result<Vec<_>>>()
            .context(AMQP_URL)?;
        let Some(address) = addresses
            .iter()
            .find(|address| may_answer(address))
            .cloned()
        else {
            bail!("{AMQP_URL} names {addresses:?}, but no broker answers there");
        };
        let management = match env::var(MANAGEMENT_URL) {
            Ok(url) => Some(Management::from_url(&url).context(MANAGEMENT_URL)?),
            Err(_) => Some(Management::new(
                &address.host,
                15672,
                &address.user,
                &address.password,
            ))
            .filter(Management::answers),
        };
        Ok(Self {
            broker: Broker::new(address, management),
            source: Source::Given,
        })
    }

    fn installed(options: &Options) -> Result<Self> {
        (options.say)("starting a private RabbitMQ (some seconds)");
        let node = NodeOptions::named(&options.name).footprint(options.footprint);
        let node = InstalledNode::start(node)?;
        outlive_worker_crashes(|arguments| node.ctl(arguments))?;
        Ok(Self {
            broker: node.broker(),
            source: Source::Installed { _node: node },
        })
    }

    fn compose(options: &Options) -> Result<Self> {
        (options.say)("starting RabbitMQ by docker compose (the first time it is downloaded)");
        let compose = Compose::up(&options.name)?;
        Ok(Self {
            broker: compose.broker(),
            source: Source::Compose { _compose: compose },
        })
    }
}

/// Starts a RabbitMQ in a container of this image, without searching for another broker.
///
/// # Errors
/// If Docker fails, with its message.
pub fn start_image(image: &str, options: &Options) -> Result<Found> {
    (options.say)(&format!(
        "starting {image} (the first time it is downloaded)"
    ));
    let node = NodeOptions::named(&options.name).footprint(options.footprint);
    let node = ContainerNode::start(image, &node)?;
    outlive_worker_crashes(|arguments| node.ctl(arguments))?;
    Ok(Found {
        broker: node.broker(),
        source: Source::Image { _node: node },
    })
}

/// Over TLS only a client can find out if a broker is there.
fn may_answer(address: &AmqpAddress) -> bool {
    address.scheme == "amqps" || greets(&address.host, address.port)
}

/// Finds a broker or starts one, in this order: the one named by `DOORSTEP_AMQP_URL`; a private node of the RabbitMQ
/// installed here; a container, if a Docker daemon answers; a private node of Debian's package, which is installed
/// first, if this process is root or sudo needs no password.
///
/// # Errors
/// If none is available, with what to install; or if the first available way fails.
pub fn find_or_start(options: &Options) -> Result<Found> {
    if let Ok(url) = env::var(AMQP_URL) {
        return Found::given(&url);
    }
    if Installed::find()?.is_some() {
        return Found::installed(options);
    }
    let mut failures = String::new();
    if Compose::is_possible() {
        match Found::compose(options) {
            Ok(found) => return Ok(found),
            // Docker may be unable to reach its registry; the package may still be available.
            Err(error) => {
                (options.say)(&format!("docker compose did not start it: {error:#}"));
                failures.push_str(&format!("\n  docker compose was tried: {error:#}"));
            }
        }
    }
    if let Some(rights) = apt::rights() {
        (options.say)("installing rabbitmq-server by apt-get (about a minute)");
        apt::install(rights)?;
        return Found::installed(options);
    }
    bail!(
        "there is no RabbitMQ on this machine. Any one of these helps:\n  \
         install it: `sudo apt-get install rabbitmq-server` on Debian and Ubuntu, `brew install rabbitmq` on macOS\n  \
         start Docker, and run this again\n  \
         name a broker that is running: export {AMQP_URL}=amqp://user:password@host:5672/vhost{failures}"
    )
}
