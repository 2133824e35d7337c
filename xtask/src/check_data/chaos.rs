//! The import while everything is killed at random moments: nothing may be lost, and nothing applied twice.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use doorstep_broker::PrivateNode;

use super::{Exports, REFUSED, RETAIL_SUM, all_applied, import};
use crate::checkout::{own_vhost, say};
use crate::stage::Stage;

/// Each at least as often as this, in random order.
const BLOWS: [(Blow, usize); 3] = [(Blow::Consumers, 6), (Blow::Producer, 3), (Blow::Broker, 2)];
/// The pause before each, in milliseconds.
const PAUSE: std::ops::Range<u64> = 700..4_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// SIGKILL to the roles.
    Consumers,
    /// SIGKILL to the import.
    Producer,
    /// The broker is killed and started again.
    Broker,
}

/// Imports under blows, then once more in peace, and compares the exports with those of an undisturbed run.
pub(super) fn run(node: &mut PrivateNode, file: &Path, undisturbed: &Exports) -> Result<()> {
    let stage = Stage::new("check-data", own_vhost(&node.broker(), "check-data")?)?;
    let mut dice = Dice::new();
    let mut blows: Vec<Blow> = BLOWS
        .iter()
        .flat_map(|(blow, times)| vec![*blow; *times])
        .collect();
    dice.shuffle(&mut blows);
    say(&format!("blows: {blows:?}"));

    let mut roles = stage.start_roles()?;
    let mut producer = start_import(&stage, file)?;
    for blow in blows {
        sleep(Duration::from_millis(
            PAUSE.start + dice.below(PAUSE.end - PAUSE.start),
        ));
        match blow {
            Blow::Consumers => {
                // Dropping them is SIGKILL.
                drop(roles);
                roles = stage.start_roles()?;
            }
            Blow::Producer => {
                producer.kill().context("cannot kill the producer")?;
                producer.wait()?;
                producer = start_import(&stage, file)?;
            }
            Blow::Broker => {
                node.kill()?;
                node.start_again()?;
            }
        }
    }
    let ended = producer.wait()?;
    ensure!(ended.success(), "the last import ended with {ended}");
    drop(roles);
    all_applied(&stage)?;
    let exports = Exports::of(&stage)?;
    ensure!(
        exports == *undisturbed,
        "the exports differ from those of an undisturbed run"
    );

    // And once more, in peace: everything is there already.
    let roles = stage.start_roles()?;
    import(&stage, &["import", "retail"], file, RETAIL_SUM)?;
    roles.stop()?;
    all_applied(&stage)?;
    let exports = Exports::of(&stage)?;
    ensure!(
        exports == *undisturbed,
        "a second import has changed the exports"
    );
    Ok(())
}

fn start_import(stage: &Stage, file: &Path) -> Result<Child> {
    stage
        .program("producer")?
        .args(["import", "retail"])
        .arg(file)
        .arg("--refused")
        .arg(stage.folder().join(REFUSED))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run producer")
}

/// Random numbers that are different in every run.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        Self(RandomState::new().build_hasher().finish() | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        // Xorshift: good enough to choose moments.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = usize::try_from(self.below(last as u64 + 1)).unwrap_or(0);
            items.swap(last, other);
        }
    }
}
