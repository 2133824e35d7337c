//! The way to hang up that always works.

use std::{
    io,
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A second handle on the connection's socket. Blocked or half-dead connections cannot be closed politely, and the client offers no
/// other way; once the socket is shut down its thread ends by itself.
#[derive(Clone, Default)]
pub(super) struct Wire(Arc<Mutex<Option<TcpStream>>>);

impl Wire {
    pub(super) fn hold(&self, socket: &impl AsFd) -> io::Result<()> {
        let socket = socket.as_fd().try_clone_to_owned()?;
        *self.lock() = Some(TcpStream::from(socket));
        Ok(())
    }

    /// Whether the address accepted the connection.
    pub(super) fn is_held(&self) -> bool {
        self.lock().is_some()
    }

    pub(super) fn cut(&self) {
        if let Some(socket) = self.lock().take() {
            // Fails if the peer has hung up before, which is just as well.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<TcpStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
