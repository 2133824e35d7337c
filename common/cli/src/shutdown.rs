//! The user's request to stop: Ctrl-C, or a service manager's signal. The first one stops in order, the second one at
//! once.

use std::process;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{CliError, ExitReason};

/// The request to stop. Clones receive the same one.
#[derive(Debug, Clone)]
pub struct ShutdownSignal(watch::Receiver<bool>);

impl ShutdownSignal {
    /// Listens for signals from here on. Needs the runtime. `at_once` is the last action before a second signal ends
    /// the process.
    ///
    /// # Errors
    /// The system does not allow to listen for signals.
    pub fn listen(at_once: impl FnOnce() + Send + 'static) -> Result<Self, CliError> {
        let failed = |e| CliError::failed(format!("cannot listen for signals: {e}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            for wanted_before in [false, true] {
                // Dropping the other one is safe: both signals mean the same.
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if wanted_before {
                    break;
                }
                // All receivers are gone only at the program's end.
                let _ = sender.send(true);
            }
            at_once();
            process::exit(i32::from(ExitReason::Interrupted.code()));
        });
        Ok(Self(receiver))
    }

    /// Waits for the request to stop; for ever if it never comes. Cancel-safe.
    pub async fn recv(&mut self) {
        if self.0.wait_for(|wanted| *wanted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns the output of a future; `None` if the user asks to stop first, and then the future is dropped.
    pub async fn or_cancelled<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            () = self.recv() => None,
            output = future => Some(output),
        }
    }
}
