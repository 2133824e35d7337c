//! A reliable way to close a connection's socket.

use std::{
    io,
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    sync::Arc,
};

use crate::locked::Locked;

/// A second handle on the connection's socket. A blocked or half-dead connection cannot be closed by protocol, and lapin offers no other
/// way. Once the socket is shut down, lapin's thread ends by itself.
#[derive(Clone, Default)]
pub(crate) struct SocketHandle(Arc<Locked<SocketState>>);

#[derive(Default)]
struct SocketState {
    socket: Option<TcpStream>,
    is_shut_down: bool,
}

/// Shuts the socket down when its owner is dropped.
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
        let mut state = self.0.lock();
        if state.is_shut_down {
            // The owner was dropped before the socket was connected.
            let _ = socket.shutdown(Shutdown::Both);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        state.socket = Some(socket);
        Ok(())
    }

    /// Returns whether the address accepted the connection.
    pub(super) fn has_socket(&self) -> bool {
        self.0.lock().socket.is_some()
    }

    fn shutdown(&self) {
        let mut state = self.0.lock();
        state.is_shut_down = true;
        if let Some(socket) = state.socket.take() {
            // Fails if the peer has already closed the socket, which is fine.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}
