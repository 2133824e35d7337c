//! The user's wish to stop: Ctrl-C, or what a service manager sends. The first asks for an end in order, which waits for the confirms
//! of what is under way and tells what was confirmed; the second gets one at once.

use std::process;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::failure::{Failure, Reason};

/// Whether the user wants to stop. Clones hear the same.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens for signals from here on. Needs the runtime.
    ///
    /// # Errors
    /// The system does not let signals be listened to.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let failed = |e| Failure::new(Reason::Failed, format!("cannot listen for signals: {e}"));
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
                    eprintln!(
                        "error: ended at once: what was under way may have arrived; sending it again changes nothing"
                    );
                    process::exit(i32::from(Reason::Interrupted.code()));
                }
                // Nobody listens any more only when the program is at its end.
                let _ = sender.send(true);
            }
        });
        Ok(Self(receiver))
    }

    /// Waits for the wish to stop; for ever if it never comes. Cancel-safe.
    pub(crate) async fn wanted(&mut self) {
        if self.0.wait_for(|wanted| *wanted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What a future brings, unless the user wants to stop first: then the future is dropped.
    ///
    /// # Errors
    /// The user wants to stop.
    pub(crate) async fn unless_wanted<T>(
        &mut self,
        future: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        tokio::select! {
            () = self.wanted() => Err(interrupted("nothing was sent yet")),
            output = future => Ok(output),
        }
    }
}

/// The end by the user's wish.
pub(crate) fn interrupted(so_far: &str) -> Failure {
    Failure::new(Reason::Interrupted, format!("interrupted: {so_far}"))
}
