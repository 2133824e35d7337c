//! A connection that has patience with its client, but not for ever: a write that makes no progress ends it. What is read is bounded
//! elsewhere, heads by the server and bodies where they are read.

use std::{
    future::Future,
    io,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{Sleep, sleep},
};

use crate::limits::KeyedPermit;

/// A connection's place among those of its address, where they are counted, and then among all: given back in this order.
pub(super) type Place = (Option<KeyedPermit<IpAddr>>, OwnedSemaphorePermit);

/// A client's connection, and its place among the others.
pub(crate) struct WriteTimeout {
    stream: TcpStream,
    /// How long a write may make no progress.
    patience: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
    _place: Place,
}

impl WriteTimeout {
    /// Takes a connection and its place, with so much patience.
    pub(super) fn new(stream: TcpStream, patience: Duration, place: Place) -> Self {
        Self {
            stream,
            patience,
            waiting: None,
            _place: place,
        }
    }

    /// What a write has led to, or the end of the patience with it.
    fn poll_with_timeout<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let patience = self.patience;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        match waiting.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for WriteTimeout {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for WriteTimeout {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.poll_with_timeout(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.poll_with_timeout(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.poll_with_timeout(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.poll_with_timeout(shut, context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        sync::Semaphore,
    };

    use super::*;

    /// More than the system keeps of a connection that nobody reads.
    const HUGE: usize = 64 * 1024 * 1024;

    /// A connection whose server has so much patience, and its client.
    async fn pair(patience: Duration) -> (WriteTimeout, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (stream, _) = listener.accept().await.unwrap();
        let room = Arc::new(Semaphore::new(1));
        let place = room.try_acquire_owned().unwrap();
        let place = (None, place);
        (WriteTimeout::new(stream, patience, place), client.unwrap())
    }

    #[tokio::test]
    async fn what_nobody_reads_is_not_written_for_ever() {
        let (mut server, _client) = pair(Duration::from_millis(100)).await;
        let written = server.write_all(&vec![0; HUGE]).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_reads_slowly_gets_all_of_it() {
        let (mut server, mut client) = pair(Duration::from_secs(60)).await;
        let reading = async {
            let mut bytes = vec![0; HUGE / 16];
            let mut count = 0;
            loop {
                match client.read(&mut bytes).await.unwrap() {
                    0 => break count,
                    more => count += more,
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        let writing = async {
            server.write_all(&vec![0; HUGE]).await.unwrap();
            server.shutdown().await.unwrap();
        };
        let (count, ()) = tokio::join!(reading, writing);
        assert_eq!(count, HUGE);
    }
}
