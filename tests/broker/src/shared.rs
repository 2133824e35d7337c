//! The broker that all tests of a run share.

use std::env;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};

use crate::address::AmqpAddress;
use crate::broker::Broker;
use crate::find::{Found, Options, find_or_start, start_image};
use crate::management::Management;
use crate::test_node::TEST_IMAGE;

/// The address of the broker that `cargo xtask test` passes to the tests.
pub const TEST_AMQP_URL: &str = "DOORSTEP_TEST_AMQP_URL";
/// The management API of that broker, with user and password.
pub const TEST_MANAGEMENT_URL: &str = "DOORSTEP_TEST_MANAGEMENT_URL";

/// Returns the broker for the tests of this process: the one that `cargo xtask test` has started for all. Under a plain
/// `cargo test` it is found or started now and ends with this process. Create a [`Vhost`](crate::Vhost) on it for each
/// test, and never disturb the broker itself: for that, start a [`PrivateNode`](crate::PrivateNode).
///
/// # Errors
/// If no broker is found. Tests must fail then rather than pass without one.
pub fn shared() -> Result<&'static Broker> {
    static SHARED: OnceLock<Result<Kept, String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| Kept::get().map_err(|error| format!("{error:#}")));
    match shared {
        Ok(kept) => Ok(&kept.broker),
        Err(error) => Err(anyhow!("{error}")),
    }
}

/// Kept until the process ends and never dropped: the guard ends what was started.
struct Kept {
    broker: Broker,
    _found: Option<Found>,
}

impl Kept {
    fn get() -> Result<Self> {
        let Ok(url) = env::var(TEST_AMQP_URL) else {
            let options = Options::named("tests", |line| eprintln!("{line}"));
            let found = match env::var(TEST_IMAGE) {
                Ok(image) => start_image(&image, &options)?,
                Err(_) => find_or_start(&options)?,
            };
            return Ok(Self {
                broker: found.broker().clone(),
                _found: Some(found),
            });
        };
        let address = AmqpAddress::parse(&url).context(TEST_AMQP_URL)?;
        let management = env::var(TEST_MANAGEMENT_URL)
            .ok()
            .map(|url| Management::from_url(&url).context(TEST_MANAGEMENT_URL))
            .transpose()?;
        Ok(Self {
            broker: Broker::new(address, management),
            _found: None,
        })
    }
}
