//! The user's wish to stop: Ctrl-C, or what a service manager sends. The first asks for an end in order, the second gets one at once.

use std::process;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{CliError, ExitReason};

/// Whether the user wants to stop. Clones hear the same.
#[derive(Debug, Clone)]
pub struct ShutdownSignal(watch::Receiver<bool>);

impl ShutdownSignal {
    /// Listens for signals from here on. Needs the runtime. What is done with `at_once` is the last thing before a second signal ends the
    /// process.
    ///
    /// # Errors
    /// The system does not let signals be listened to.
    pub fn listen(at_once: impl FnOnce() + Send + 'static) -> Result<Self, CliError> {
        let failed = |e| {
            CliError::new(
                ExitReason::Failed,
                format!("cannot listen for signals: {e}"),
            )
        };
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            for wanted_before in [false, true] {
                // Either signal may be missed when the other comes: both ask for the same.
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if wanted_before {
                    break;
                }
                // Nobody listens any more only when the program is at its end.
                let _ = sender.send(true);
            }
            at_once();
            process::exit(i32::from(ExitReason::Interrupted.code()));
        });
        Ok(Self(receiver))
    }

    /// Waits for the wish to stop; for ever if it never comes. Cancel-safe.
    pub async fn recv(&mut self) {
        if self.0.wait_for(|wanted| *wanted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What a future brings; `None` if the user wants to stop first, and then the future is dropped.
    pub async fn or_cancelled<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            () = self.recv() => None,
            output = future => Some(output),
        }
    }
}
