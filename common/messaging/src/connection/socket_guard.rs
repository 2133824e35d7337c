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
pub(crate) struct SocketHandle(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    socket: Option<TcpStream>,
    is_cut: bool,
}

/// The wire in the hands of whoever needs it. With them it goes.
#[derive(Default)]
pub(crate) struct ShutdownOnDrop(pub(crate) SocketHandle);

impl Drop for ShutdownOnDrop {
    fn drop(&mut self) {
        self.0.shutdown();
    }
}

impl SocketHandle {
    pub(super) fn set_socket(&self, socket: &impl AsFd) -> io::Result<()> {
        let socket = TcpStream::from(socket.as_fd().try_clone_to_owned()?);
        let mut state = self.lock();
        if state.is_cut {
            // Whoever wanted it has gone away before it was there.
            let _ = socket.shutdown(Shutdown::Both);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        state.socket = Some(socket);
        Ok(())
    }

    /// Whether the address accepted the connection.
    pub(super) fn has_socket(&self) -> bool {
        self.lock().socket.is_some()
    }

    fn shutdown(&self) {
        let mut state = self.lock();
        state.is_cut = true;
        if let Some(socket) = state.socket.take() {
            // Fails if the peer has hung up before, which is just as well.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
